import subprocess
import sys

import numpy as np
import pytest

from metricjax import bundle, gallery
from tests.cli.conftest import content


def embeddings(faces, *paths):
    ready = bundle.load(faces)
    images = [bundle.read_image(path, ready.image_shape) for path in paths]
    return ready, bundle.embedder(ready)(np.stack(images))


def prepared_parts(faces):
    ready = bundle.load(faces)
    assert ready.calibration is not None
    assert ready.gallery is not None
    return ready.calibration, ready.gallery


def test_verify_gives_the_answer_of_the_library(mj, faces, images):
    a, b, c = images / "d0/0.png", images / "d0/1.png", images / "d7/2.png"
    _, x = embeddings(faces, a, b, c)
    calibration, _ = prepared_parts(faces)
    expected = gallery.verify(x[[0, 0]], x[[1, 2]], calibration)
    for i, other in enumerate((b, c)):
        found = mj("verify", faces, a, other, "--json")
        assert found.code == 0
        (line,) = found.json
        assert line["same"] == expected.same[i]
        assert line["similarity"] == pytest.approx(expected.similarities[i], abs=1e-6)
        assert line["probability"] == pytest.approx(expected.probabilities[i], abs=1e-5)
        assert (line["threshold"], line["far"]) == (expected.threshold, 0.1)
        text = mj("verify", faces, a, other)
        assert text.lines[0].startswith("same" if expected.same[i] else "different")
        assert "FAR 10 %" in text.lines[0]


def test_verify_of_folders_compares_all_with_all(mj, faces, images):
    found = mj("verify", faces, images / "d0", images / "d1/3.png", "--json").json
    assert [line["a"] for line in found] == [
        str(images / f"d0/{i}.png") for i in range(6)
    ]
    assert {line["b"] for line in found} == {str(images / "d1/3.png")}


def test_verify_of_a_list_of_pairs_is_relative_to_the_list(mj, faces, images):
    pairs = images / "pairs.csv"
    pairs.write_text("d0/0.png,d0/1.png\n\nd0/0.png,d5/gone.png\nd3/1.png,d0/0.png\n")
    found = mj("verify", faces, "--pairs", pairs, "--json")
    assert [line["b"] for line in found.json] == [
        str(images / name) for name in ("d0/1.png", "d0/0.png")
    ]
    assert found.code == 1
    gone = images / "d5/gone.png"
    message = f"metricjax: {gone} cannot be opened: No such file or directory."
    assert found.errors == [message]


def test_a_stricter_rate_has_a_higher_threshold(mj, faces, images):
    pair = (images / "d0/0.png", images / "d0/1.png")
    usual, strict, lax = (
        mj("verify", faces, *pair, "--json", *far).json[0]["threshold"]
        for far in ((), ("--far", "0.01"), ("--far", "0.5"))
    )
    assert lax < usual < strict


def test_identify_gives_the_answer_of_the_library(mj, faces, images):
    paths = [images / "d0/5.png", images / "d8/0.png"]
    _, x = embeddings(faces, *paths)
    calibration, people = prepared_parts(faces)
    expected = gallery.identify(x, people, calibration, k=2)
    found = mj("identify", faces, *paths, "--k", 2, "--json")
    assert found.code == 0
    for i, line in enumerate(found.json):
        assert line["image"] == str(paths[i])
        assert line["known"] == expected.known[i]
        assert line["name"] == (expected.names[i][0] if expected.known[i] else None)
        assert [c["name"] for c in line["candidates"]] == list(expected.names[i])
        shares = [c["probability"] for c in line["candidates"]]
        np.testing.assert_allclose(shares, expected.probabilities[i], atol=1e-4)
        assert sum(shares) + line["probability_unknown"] == pytest.approx(1.0)
    text = mj("identify", faces, *paths)
    for i, line in enumerate(text.lines[:2]):
        assert line.startswith(str(paths[i]))
        assert ("unknown" in line) == (not expected.known[i])
    assert "of strangers at most 60 % are taken for someone" in text.lines[2]


def test_identify_takes_folders_and_tells_what_it_could_not_read(mj, faces, images):
    (images / "d3" / "bad.png").write_bytes(b"no image")
    found = mj("identify", faces, images / "d3", images / "d4/0.png", "--json")
    assert found.code == 1
    assert len(found.json) == 7
    assert len(found.errors) == 1
    assert "bad.png" in found.errors[0]


def test_enrolling_and_removing_need_no_training(mj, faces, images):
    before = mj("identify", faces, images / "d4/5.png", "--json").json[0]
    assert "four" not in {c["name"] for c in before["candidates"]}
    (images / "d4/5.png").rename(images / "new.png")
    added = mj("enroll", faces, images / "d4", "--name", "four", "--json")
    assert added.json == [{"images": 5, "added": 1, "identities": 3, "templates": 11}]
    after = mj("identify", faces, images / "new.png", "--json").json[0]
    assert after["candidates"][0]["name"] == "four"
    removed = mj("remove", faces, "four", "--json")
    assert removed.json == [{"images": 0, "added": -1, "identities": 2, "templates": 6}]
    (images / "new.png").rename(images / "d4/5.png")
    assert mj("identify", faces, images / "d4/5.png", "--json").json[0] == before


def test_a_folder_of_identities_is_enrolled_by_its_sub_folders(mj, faces, images):
    found = mj("enroll", faces, images, "--mean", "--json").json
    assert found == [{"images": 60, "added": 10, "identities": 12, "templates": 12}]
    ready = bundle.load(faces)
    assert ready.gallery is not None
    assert ready.gallery.names == ("zero", "one", *(f"d{i}" for i in range(10)))
    assert "12 identities, 12 templates" in mj("show", faces).out


def test_a_gallery_of_its_own_stays_outside_the_bundle(mj, faces, images, tmp_path):
    before = content(faces)
    place = tmp_path / "staff"
    assert (
        mj("enroll", faces, images / "d7", "--name", "x", "--gallery", place).code == 0
    )
    found = mj("identify", faces, images / "d7/0.png", "--gallery", place, "--json")
    assert [c["name"] for c in found.json[0]["candidates"]] == ["x"]
    assert mj("remove", faces, "x", "--gallery", place).code == 0
    assert mj("identify", faces, images / "d7/0.png", "--gallery", place).code == 2
    assert content(faces) == before


def test_calibrate_stores_threshold_and_identities(mj, faces, images):
    for digit in range(5):
        for path in sorted((images / f"d{digit}").iterdir()):
            path.unlink()
        (images / f"d{digit}").rmdir()
    ready, x = embeddings(faces, *sorted(images.rglob("*.png")))
    expected = gallery.calibrate(x, np.repeat(np.arange(5), 6), far=0.05)
    found = mj("calibrate", faces, images, "--far", "0.05", "--json")
    assert found.json[0]["threshold"] == pytest.approx(expected.threshold, abs=1e-5)
    assert found.json[0]["impostors"] == 360
    again = bundle.load(faces)
    assert again.calibration is not None
    assert again.calibration.far == 0.05
    assert again.calibrated_on == tuple(f"d{i}" for i in range(5, 10))
    assert again.gallery is not None
    text = mj("calibrate", faces, images, "--far", "0.05", "--isotonic")
    assert "for a FAR of 5 %" in text.lines[0]
    isotonic = bundle.load(faces).calibration
    assert isotonic is not None
    assert len(isotonic.log_odds.values) > 2


def test_evaluate_reports_what_the_metrics_say(mj, faces, images):
    for digit in range(5, 10):  # named otherwise than what it was calibrated on
        (images / f"d{digit}").rename(images / f"new{digit}")
    ready, x = embeddings(faces, *sorted(images.rglob("*.png")))
    labels = np.repeat(np.arange(10), 6)
    found = mj("evaluate", faces, images, "--json").json[0]
    assert ready.calibration is not None
    rates = gallery.rates_at(x, labels, ready.calibration.threshold)
    assert found["at_threshold"]["far"] == pytest.approx(rates.far, abs=1e-3)
    assert found["at_threshold"]["tar"] == pytest.approx(rates.tar, abs=1e-2)
    assert (found["images"], found["identities"]) == (60, 10)
    assert found["verification"]["genuine"] == 150
    assert found["verification"]["tar_at_far"]["0.001"] is not None
    open_set = found["identification"]
    assert (open_set["enrolled"], open_set["templates"]) == (5, 15)
    assert (open_set["mated_probes"], open_set["unmated_probes"]) == (15, 30)
    assert open_set["tpir_at_fpir"]["0.01"] is None  # 30 strangers cannot show it
    text = mj("evaluate", faces, images).out
    assert "too few strangers to say" in text
    assert f"of {found['identities']} identities" in text


@pytest.mark.parametrize("suffix", [".stablehlo", ".mlir", ".safetensors"])
def test_export_writes_a_file_of_the_kind_its_suffix_says(mj, faces, tmp_path, suffix):
    pytest.importorskip("flatbuffers")
    pytest.importorskip("safetensors")
    out = tmp_path / f"encoder{suffix}"
    found = mj("export", faces, out)
    assert found.code == 0
    assert found.lines == [f"{out}: {out.stat().st_size} bytes"]
    assert not list(tmp_path.glob(".metricjax*"))


def test_a_reader_that_has_seen_enough_is_no_error(prepared):
    code = "import sys; from metricjax.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "show", str(prepared), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate()
    assert errors == ""
    assert process.returncode == 1
