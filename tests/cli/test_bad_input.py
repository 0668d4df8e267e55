import os
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metricjax import bundle, gallery
from tests.cli.conftest import content

QUICK = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def refused(result, *parts):
    """Exit code 2, nothing on standard output, and one line that says these things."""
    assert result.code == 2
    assert result.lines == []
    assert len(result.errors) == 1, result.errors
    assert result.errors[0].startswith("metricjax: ")
    for part in parts:
        assert part in result.errors[0]
    return True


BAD_FILES = {
    "zero": b"",
    "text": b"dear diary",
    "truncated": None,
    "corrupt": None,
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_images_are_named_and_nothing_is_enrolled(mj, faces, images, kind):
    good = (images / "d0/0.png").read_bytes()
    bad = {
        "truncated": good[: len(good) // 2],
        "corrupt": good[:60] + bytes(40) + good[100:],
        **{k: v for k, v in BAD_FILES.items() if v is not None},
    }[kind]
    path = images / "d2/bad.png"
    path.write_bytes(bad)
    before = content(faces)
    refused(mj("enroll", faces, images), str(path), "--skip-bad", "Nothing was changed")
    refused(mj("calibrate", faces, images, "--far", "0.1"), str(path))
    refused(mj("evaluate", faces, images), str(path))
    refused(mj("identify", faces, path), str(path))
    refused(mj("verify", faces, path, path), str(path))
    assert content(faces) == before
    skipped = mj("enroll", faces, images, "--skip-bad", "--json")
    assert skipped.code == 0
    assert skipped.json[0]["images"] == 60
    assert str(path) in skipped.errors[0]


def test_many_bad_images_are_counted(mj, faces, images):
    for i in range(9):
        (images / f"d2/bad{i}.png").write_bytes(b"")
    found = mj("enroll", faces, images)
    assert found.code == 2
    assert len(found.errors) == 7
    assert found.errors[5] == "metricjax: ... and 3 more."
    assert "(8 more) Nothing was changed" in found.errors[6]


def test_links_out_of_the_folder_are_refused(mj, faces, images, tmp_path):
    shutil.copy(images / "d0/0.png", tmp_path / "secret.png")
    (images / "d0/link.png").symlink_to(tmp_path / "secret.png")
    refused(mj("enroll", faces, images), "link.png is a link that leads out")
    assert mj("enroll", faces, images, "--skip-bad").code == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_or_written_is_named(mj, faces, images):
    (images / "d0/0.png").chmod(0)
    refused(mj("identify", faces, images / "d0/0.png"), "0.png", "Permission denied")
    before = content(faces)
    faces.chmod(0o500)
    try:
        new = images / "d1"
        refused(mj("enroll", faces, new, "--name", "x"), "Permission denied")
    finally:
        faces.chmod(0o700)
    assert content(faces) == before


def test_files_that_are_no_images_are_passed_over_and_counted(mj, faces, images):
    (images / "d0/notes.txt").write_text("x")
    (images / "d0/Thumbs.db").write_text("x")
    found = mj("enroll", faces, images)
    assert found.code == 0
    assert found.errors == ["metricjax: 2 files that are no images were passed over."]


def test_identities_of_one_image_are_enrolled_but_give_no_genuine_pair(
    mj, faces, images
):
    for digit in range(10):
        for i in range(1, 6):
            (images / f"d{digit}/{i}.png").unlink()
    assert mj("enroll", faces, images, "--json").json[0]["templates"] == 16
    refused(mj("calibrate", faces, images, "--far", "0.2"), "genuine and impostor")
    (images / "d5").rename(images / "e5")
    refused(mj("calibrate", faces, images, "--far", "0.01"), "at least 299 impostor")


def test_a_threshold_or_gallery_that_is_missing_is_named(mj, ready, images, tmp_path):
    bare = tmp_path / "bare"
    bundle.save(bare, ready)
    picture = images / "d0/0.png"
    refused(mj("verify", bare, picture, picture), "metricjax calibrate finds it")
    refused(mj("identify", bare, picture), "metricjax calibrate finds it")
    refused(mj("remove", bare, "ann"), "metricjax enroll adds some")
    found = mj("calibrate", bare, images, "--far", "0.1")
    assert found.code == 0
    refused(mj("identify", bare, picture), "metricjax enroll adds some")


def test_an_emptied_gallery_knows_nobody(mj, faces, images):
    assert mj("remove", faces, "zero", "one").code == 0
    refused(mj("identify", faces, images / "d0/0.png"), "metricjax enroll adds some")
    assert mj("enroll", faces, images / "d0", "--name", "zero").code == 0
    assert mj("identify", faces, images / "d0/0.png").code == 0


def test_identities_seen_before_are_refused(mj, faces, images):
    before = content(faces)
    (images / "d0").rename(images / "trained")
    refused(
        mj("calibrate", faces, images, "--far", "0.1"), "not trained on", "'trained'"
    )
    refused(mj("evaluate", faces, images), "not trained on")
    (images / "trained").rename(images / "5")
    refused(mj("evaluate", faces, images), "not calibrated on", "'5'")
    assert content(faces) == before


def test_a_rate_that_cannot_be_shown_is_refused(mj, faces, images):
    pair = images / "d0/0.png", images / "d0/1.png"
    refused(mj("verify", faces, *pair, "--far", "1e-6"), "2995731 impostor pairs")
    refused(mj("identify", faces, pair[0], "--fpir", "1e-4"), "impostor pairs")
    refused(mj("calibrate", faces, images, "--far", "0"), "between 0 and 1")
    refused(mj("identify", faces, pair[0], "--k", "0"), "`k`")
    refused(mj("verify", faces, *pair, "--prior", "1"), "`prior`")


def test_a_gallery_of_another_encoder_or_dimension_is_refused(
    mj, faces, images, tmp_path
):
    other = gallery.enroll(np.ones((1, 3)), ["x"], encoder="0" * 64)
    gallery.save(tmp_path / "other", other)
    picture = images / "d0/0.png"
    before = content(tmp_path / "other")
    for command in (
        ("identify", faces, picture, "--gallery", tmp_path / "other"),
        ("enroll", faces, picture, "--name", "y", "--gallery", tmp_path / "other"),
    ):
        refused(mj(*command), "enroll the images again")
    assert content(tmp_path / "other") == before


def test_bundles_cut_short_or_tampered_with_are_refused(mj, faces, images):
    for path in sorted(faces.iterdir()):
        old = path.read_bytes()
        for new in (old[:-1], old[:50], b"", old[:-9] + b"123456789"):
            if new == old:
                continue
            path.write_bytes(new)
            refused(mj("show", faces), path.name, "checksum differs")
        refused(mj("identify", faces, images / "d0/0.png"), path.name)
        path.write_bytes(old)
    assert mj("show", faces).code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "no/such/bundle"), "no/such/bundle"),
        (("bundle", "no/such/run", "out"), "Expected a training run in no/such/run"),
        (("show", "a\0b"), "Expected a bundle"),
        (("show", "x" * 5000), "File name too long"),
        (("show", "evil\x1b[31m\nname"), "evil\\x1b[31m\\nname"),
    ],
)
def test_bad_paths_are_one_line_that_cannot_steer_a_terminal(mj, arguments, message):
    refused(mj(*arguments), message)


def test_bad_arguments_of_commands_are_named(mj, faces, images, tmp_path):
    picture = images / "d0/0.png"
    refused(mj("verify", faces, picture), "got 1 paths")
    refused(mj("identify", faces, images / "gone.png"), "gone.png cannot be opened")
    refused(mj("identify", faces, tmp_path / "faces"), "Expected images in")
    refused(mj("enroll", faces, picture), "got no such folder")
    refused(mj("enroll", faces, images / "d0"), "got 6 images and no sub-folder")
    refused(mj("remove", faces, "nobody"), "got 'nobody'")
    refused(mj("export", faces, tmp_path / "a.exe"), ".stablehlo, .mlir, .onnx")
    refused(mj("export", faces, tmp_path / "no/dir/a.mlir"), "No such file")
    (tmp_path / "pairs.csv").write_bytes(b"a.png,b.png,c.png\n")
    refused(mj("verify", faces, "--pairs", tmp_path / "pairs.csv"), "row 1", "3 col")
    (tmp_path / "pairs.csv").write_bytes(b"\xff\xfe\x00")
    refused(mj("verify", faces, "--pairs", tmp_path / "pairs.csv"), "CSV file")
    (tmp_path / "pairs.csv").write_bytes(b"")
    refused(mj("verify", faces, "--pairs", tmp_path / "pairs.csv"), "got none")


def test_an_unknown_command_or_flag_ends_with_code_2(mj, faces):
    for arguments in (("dance",), ("show", faces, "--loud"), ()):
        with pytest.raises(SystemExit) as stop:
            mj(*arguments)
        assert stop.value.code == 2


def test_an_encoder_that_gives_nan_enrolls_nobody(mj, ready, images, tmp_path):
    params = {**ready.params, "embedding": {**ready.params["embedding"]}}
    params["embedding"]["bias"] = np.full(8, np.nan, np.float32)
    bundle.save(tmp_path / "nan", ready._replace(params=params))
    before = content(tmp_path / "nan")
    found = mj("enroll", tmp_path / "nan", images)
    assert found.code == 2
    assert "has an embedding of NaN or zeros" in found.errors[-1]
    found = mj("enroll", tmp_path / "nan", images, "--skip-bad")
    assert "Expected a usable image, got none." in found.errors[-1]
    assert content(tmp_path / "nan") == before


@QUICK
@given(name=st.text(min_size=1, max_size=60))
def test_any_name_can_be_enrolled_found_and_removed(
    mj, prepared, images, tmp_path, name
):
    place = tmp_path / "names"
    shutil.rmtree(place, ignore_errors=True)
    if "\0" in name:
        return
    picture = images / "d3/0.png"
    enrolled = mj(
        "enroll", prepared, picture, f"--name={name}", "--gallery", place, "--json"
    )
    if not name.strip():
        assert refused(enrolled, "Expected the name of an identity")
        return
    assert enrolled.code == 0
    found = mj("remove", prepared, "--gallery", place, "--", name + "x")
    assert refused(found, "Expected names of the gallery")
    people = gallery.load(place)
    again = mj("identify", prepared, picture, "--gallery", place, "--json").json[0]
    assert again["candidates"][0]["name"] == people.names[0]


def test_folders_of_any_name_become_identities(mj, prepared, images, tmp_path):
    names = [
        "日本 語",
        "Zoë",
        "x" * 255,
        "a\nb",
        os.fsdecode(b"\xff\xfe"),
        "[red]",
        "-x",
    ]
    for name in names:
        shutil.copytree(images / "d0", tmp_path / "odd" / name)
    place = tmp_path / "names"
    assert mj("enroll", prepared, tmp_path / "odd", "--gallery", place).code == 0
    assert sorted(gallery.load(place).names) == sorted(names)
    for name in names:
        found = mj("identify", prepared, tmp_path / "odd" / name, "--gallery", place)
        assert found.code == 0
        assert len(found.lines) == 7


@QUICK
@given(st.data())
def test_no_image_file_makes_a_traceback(mj, prepared, images, tmp_path, data):
    path = tmp_path / data.draw(st.sampled_from(["a.png", "a.jpg", "a.pgm", "a.bmp"]))
    good = (images / "d1/0.png").read_bytes()
    if data.draw(st.booleans()):
        content = data.draw(st.binary(max_size=200))
    else:
        start = data.draw(st.integers(0, len(good)))
        content = good[:start] + data.draw(st.binary(max_size=8)) + good[start + 3 :]
    path.write_bytes(content)
    found = mj("identify", prepared, path, "--json")
    assert found.code == 0 or refused(found, str(path))
