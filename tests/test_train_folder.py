"""From a folder of images to an answer: `train.py --data folder:PATH`, in test size."""

import html.parser
import json
import shutil
from typing import Any

import numpy as np
import pytest

import train
from metricjax import bundle, gallery
from metricjax.data import deferred, pixels
from metricjax.training import pictures
from tests.bundle.conftest import digits, picture
from tests.bundle.test_images import bomb
from tests.cli.conftest import mj

__all__ = ["digits", "mj", "picture"]

FLAGS = [
    *("--recipe", "arcface", "--encoder", "mlp", "--width", "1", "--dim", "4"),
    *("--batch", "16", "--symmetries", "1", "--steps", "4", "--evaluate-every", "4"),
    *("--splits", "1"),
]
SPLIT = ["--test-classes", "3", "--calibration-classes", "3", "--far", "0.2"]


@pytest.fixture(scope="module")
def people(tmp_path_factory, digits, picture):
    """Ten identities of six digits; one has a name that HTML and TeX would take."""
    root = tmp_path_factory.mktemp("data") / "people"
    for digit in range(10):
        name = "Zoë 佐藤 <b>[i]$x_&|" if digit == 9 else f"d{digit}"
        for i, pixels_of in enumerate(digits[digit]):
            picture(root / name / f"{i}.png", pixels_of)
    return root


def started(folder, out, *flags):
    return train.main([*FLAGS, "--data", f"folder:{folder}", "--out", str(out), *flags])


@pytest.fixture(scope="module")
def trained(people, tmp_path_factory):
    """A finished run on seven of them, three of which calibrated it."""
    out = tmp_path_factory.mktemp("runs") / "my run"
    assert started(people, out, *SPLIT) == 0
    return out


@pytest.fixture
def some(people, tmp_path):
    """A copy of the folder, to be spoilt."""
    return shutil.copytree(people, tmp_path / "some")


def refused(capsys, *parts):
    errors = capsys.readouterr().err
    assert errors.startswith("train.py: ")
    assert errors.count("\n") == 1
    for part in parts:
        assert part in errors
    return True


class Page(html.parser.HTMLParser):
    """Tags that are closed in order, and everything that a page refers to."""

    VOID = {"meta", "img", "link", "br", "hr"}

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.references, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.references += [v for k, v in attrs if k in ("src", "href", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_a_folder_becomes_a_bundle_that_is_calibrated_and_answers(trained, people, mj):
    result = json.loads((trained / "split0" / "result.json").read_text())
    parts = [result[k] for k in ("trained_on", "calibrated_on", "unseen_classes")]
    assert [len(part) for part in parts] == [4, 3, 3]
    assert set(sum(parts, [])) == {path.name for path in people.iterdir()}
    ready = bundle.load(trained / "split0" / "bundle")
    assert list(ready.trained_on) == parts[0]
    assert list(ready.calibrated_on) == parts[1]
    assert ready.image_shape == (28, 28, 1)
    again = mj("calibrate", trained / "split0" / "bundle", people, "--far", "0.2")
    assert again.code == 2
    assert "not trained on" in again.errors[0]
    faces = shutil.copytree(trained / "split0" / "bundle", trained.parent / "faces")
    assert mj("enroll", faces, people / "d7", "--name", "seven").code == 0
    answer = mj("identify", faces, people / "d7", "--json").json
    assert len(answer) == 6
    assert all(line["candidates"][0]["name"] == "seven" for line in answer)
    assert mj("verify", faces, people / "d7/0.png", people / "d8/1.png").code == 0


def test_the_calibration_is_that_of_the_bundle_on_the_same_files(trained, people):
    ready = bundle.load(trained / "split0" / "bundle")
    found = bundle.find_identities(people)
    kept = [i for i, name in enumerate(found.names) if name in ready.calibrated_on]
    names = [found.names[i] for i in kept]
    files = bundle.Files(tuple(found.paths[i] for i in kept), tuple(names))
    x = bundle.embed_files(ready, files).embeddings
    labels = np.unique(names, return_inverse=True)[1]
    expected = gallery.calibrate(x, labels, far=0.2)
    assert ready.calibration is not None
    assert ready.calibration.threshold == pytest.approx(expected.threshold, abs=1e-5)
    assert ready.calibration.far_interval == pytest.approx(expected.far_interval)
    result = json.loads((trained / "split0" / "result.json").read_text())
    assert (
        result["threshold"]["calibration"]["threshold"] == ready.calibration.threshold
    )


def test_identities_that_were_seen_can_be_left_out_of_an_evaluation(
    trained, people, mj
):
    faces = trained / "split0" / "bundle"
    assert mj("evaluate", faces, people).code == 2
    found = mj("evaluate", faces, people, "--unseen", "--json")
    assert found.json[0]["identities"] == 3
    assert "7 identities that it has seen were left out" in found.errors[0]


def test_the_page_is_well_formed_and_needs_nothing_else(trained):
    text = (trained / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.seen
    assert "link" not in page.seen
    assert "b" not in page.seen, "the name of an identity is text"
    assert page.references
    assert all(ref.startswith("data:image/png;base64,") for ref in page.references)
    assert "url(" not in text
    assert "http" not in "".join(page.text)
    words = " ".join(page.text)
    for part in (
        "Zoë 佐藤 <b>[i]$x_&|",
        "Threshold",
        "Worst pairs",
        "identities",
        "Encoder",
    ):
        assert part in words
    pictures = sorted(path.stem for path in (trained / "split0").glob("*.png"))
    assert len(page.references) == len(pictures) == 8
    written = (trained / "report.md").read_text()
    assert all(f"(split0/{name}.png)" in written for name in pictures)
    assert "Zoë 佐藤 <b>[i]$x_&\\|" in written


def test_a_second_start_keeps_the_gallery_and_says_how_it_goes_on(
    trained, people, mj, capsys, tmp_path
):
    run = shutil.copytree(trained, tmp_path / "my run")
    assert mj("enroll", run / "split0" / "bundle", people).code == 0
    assert started(people, run, *SPLIT) == 0
    kept = bundle.load(run / "split0" / "bundle").gallery
    assert kept is not None
    assert len(kept.names) == 10
    printed = capsys.readouterr().out
    assert "identities" in printed
    assert f"metricjax enroll '{run}/split0/bundle' FOLDER" in printed
    # A run that was stopped before its bundle was written gets it now.
    shutil.rmtree(run / "split0" / "bundle")
    assert started(people, run, *SPLIT) == 0
    assert bundle.load(run / "split0" / "bundle").calibration is not None


def test_bad_files_are_refused_with_the_first_few_or_skipped(some, tmp_path, capsys):
    whole = (some / "d0" / "0.png").read_bytes()
    bad = {"zero": b"", "cut": whole[:70], "text": b"dear diary", "torn": whole[60:]}
    bad["bomb"] = bomb(10_000, 10_000)
    for name, content in bad.items():
        (some / "d1" / f"{name}.png").write_bytes(content)
    (some / "d2" / "out.png").symlink_to(tmp_path / "elsewhere.png")
    (tmp_path / "elsewhere.png").write_bytes(whole)
    (some / "empty").mkdir()
    assert started(some, tmp_path / "run", *SPLIT) == 2
    assert refused(capsys, "got 7 things", "out.png", "and 4 more", "--skip-bad")
    assert not (tmp_path / "run").exists()
    arguments = [*FLAGS, *SPLIT, "--data", f"folder:{some}", "--skip-bad"]
    _, plan = prepared([*arguments, "--out", str(tmp_path / "run")])
    assert sum(plan.inspection.counts) == 60
    assert plan.settings.skip_bad


def prepared(arguments) -> Any:
    options = train.parse(arguments)
    recipe = train.recipes.load(options.recipe)
    plan = train.run.prepare(recipe, options.settings, out=options.out)
    return options, plan


def test_identities_with_one_image_are_left_out_with_a_sentence(some, tmp_path, capsys):
    for digit in (0, 8):
        for path in sorted((some / f"d{digit}").iterdir())[1:]:
            path.unlink()
    arguments = [*FLAGS, "--test-classes", "3", "--data", f"folder:{some}"]
    _, plan = prepared([*arguments, "--out", str(tmp_path / "run")])
    (part,) = plan.splits
    used = {*part.trained_on, *part.names.values()}
    assert len(used) == 8
    assert not used & {"d0", "d8"}
    printed = capsys.readouterr().out
    assert "2 identities have a single image: d0, d8" in printed
    assert "2 identities with a single image are left out" in printed


def test_a_folder_without_a_pair_is_refused_after_its_report(some, tmp_path, capsys):
    for identity in some.iterdir():
        for path in sorted(identity.iterdir())[1:]:
            path.unlink()
    assert started(some, tmp_path / "run") == 2
    printed = capsys.readouterr()
    assert "identities" in printed.out
    assert "no positive pair" in printed.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--test-classes", "9"], ["got 10 classes", "--test-classes 2 --splits 1"]),
        (
            ["--calibration-classes", "2", "--far", "0.01"],
            ["at least 299", "got 36 of 2", "--far 0.08"],
        ),
    ],
)
def test_what_the_folder_is_too_small_for_is_told_before_training(
    people, tmp_path, capsys, flags, parts
):
    assert started(people, tmp_path / "run", *flags) == 2
    assert refused(capsys, *parts)
    assert not (tmp_path / "run").exists()


def test_a_list_of_images_trains_as_its_folder_does(people, tmp_path, capsys):
    lines = ["path,label"]
    for path in sorted(people.glob("d*/*.png")):
        lines.append(f"people/{path.parent.name}/{path.name},{path.parent.name}")
    listed = people.parent / "list.csv"
    listed.write_text("\n".join(lines))
    arguments = [*FLAGS, "--test-classes", "3", "--data", f"csv:{listed}"]
    _, plan = prepared([*arguments, "--out", str(tmp_path / "run")])
    assert plan.inspection.names == tuple(f"d{i}" for i in range(9))
    assert plan.splits[0].train.images.shape[1:] == (28, 28, 1)
    assert "54, of an identity 6 to 6" in capsys.readouterr().out


def test_a_folder_that_stays_on_disk_gives_the_same_batches(
    people, tmp_path, monkeypatch
):
    arguments = [*FLAGS, *SPLIT, "--data", f"folder:{people}"]
    _, plain = prepared([*arguments, "--out", str(tmp_path / "a")])
    monkeypatch.setattr(pixels, "memory_room", lambda: 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    _, large = prepared([*arguments, "--out", str(tmp_path / "b")])
    assert isinstance(large.splits[0].train.images, deferred.Rows)
    batches = [
        plan.experiment.batches(plan.splits[0].train, 0)(3) for plan in (plain, large)
    ]
    for a, b in zip(*batches, strict=True):
        np.testing.assert_array_equal(a, b)
    for name in ("calibration", "unseen", "seen"):
        one, other = (getattr(plan.splits[0], name) for plan in (plain, large))
        if one is None:
            assert other is None
        else:
            np.testing.assert_array_equal(one.images, np.asarray(other.images))


def test_a_folder_that_is_streamed_trains_to_the_same_bits(
    people, tmp_path, capsys, monkeypatch
):
    for name in ("draw", "draw_examples"):
        monkeypatch.setattr(pictures, name, lambda *_, **__: None)
    monkeypatch.setattr(train, "leave_bundles", lambda *_: None)
    for name, flags in (("held", []), ("streamed", ["--stream"])):
        assert started(people, tmp_path / name, *SPLIT, *flags) == 0
        shown = capsys.readouterr().out
        assert ("decoded for each batch" in shown) == bool(flags)
    results = [
        (tmp_path / name / "results.json").read_text() for name in ("held", "streamed")
    ]
    assert results[0] == results[1]


def test_only_image_files_are_streamed(tmp_path, capsys):
    out = tmp_path / "run"
    assert train.main([*FLAGS, "--stream", "--out", str(out)]) == 2
    assert refused(capsys, "Expected --stream with --data folder:PATH", "got digits")


@pytest.mark.parametrize(
    ("shape", "hint"),
    [((30, 30), None), ((70, 60), "photos"), ((200, 30), "--image-size")],
)
def test_settings_that_do_not_fit_the_images_are_pointed_out(
    some, tmp_path, capsys, picture, shape, hint
):
    for identity in sorted(some.iterdir()):
        for path in identity.iterdir():
            picture(path, np.zeros(shape, np.uint8))
    arguments = [*FLAGS, "--test-classes", "3", "--data", f"folder:{some}"]
    prepared([*arguments, "--out", str(tmp_path / "run")])
    printed = capsys.readouterr().out
    if hint is None:
        assert "photos" not in printed
    else:
        assert hint in printed
