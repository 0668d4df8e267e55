import json
import os
import sys

import numpy as np
import pytest

from benchmarks import harness, omniglot_baselines
from metricjax.metrics import fewshot
from metricjax.training import official_runs

DATA_DIR = os.environ.get("METRICJAX_DATA_DIR")
OFFICIAL = {
    # Koch et al.: 78.3 % for the nearest neighbour.
    "cosine of pixels, 105 x 105": 0.7825,
    "cosine of pixels, 35 x 35": 0.78,
    "Euclidean distance of pixels, 105 x 105": 0.81,
    "Euclidean distance of pixels, 35 x 35": 0.7925,
    # Lake et al., the README of the data set: 38.8 %.
    "modified Hausdorff distance of ink": 0.3875,
}


@pytest.fixture
def runs(rng):
    """Two runs of five drawings, asked for in another order."""
    support = rng.random((2, 5, 105, 105)) < 0.1
    answers = np.stack([rng.permutation(5) for _ in range(2)]).astype(np.int32)
    queries = np.stack(
        [one[order] for one, order in zip(support, answers, strict=True)]
    )
    return fewshot.OneShotRuns(support, queries, answers)


def test_a_drawing_is_nearest_to_itself_by_every_baseline(runs):
    found = omniglot_baselines.errors(runs)
    assert len(found) == 5
    assert set(found.values()) == {0.0}
    turned = runs._replace(answers=(runs.answers + 1) % 5)
    assert set(omniglot_baselines.errors(turned).values()) == {1.0}


def test_pixels_answer_as_the_loop_does(rng, runs):
    noisy = runs._replace(queries=runs.queries ^ (rng.random((2, 5, 105, 105)) < 0.48))
    wrong = []
    for support, queries, answers in zip(*noisy, strict=True):
        for query, answer in zip(queries, answers, strict=True):
            differing = [(query != image).sum() for image in support]
            wrong.append(np.argmin(differing) != answer)
    assert 0 < np.mean(wrong) < 1
    found = omniglot_baselines.errors(noisy)["Euclidean distance of pixels, 105 x 105"]
    assert found == pytest.approx(np.mean(wrong))


def test_an_encoder_sees_the_drawings_as_the_data_set_has_them(runs):
    shown = official_runs.images(runs.support, size=35)
    assert (shown.shape, shown.dtype) == ((10, 35, 35, 1), np.uint8)
    means = 255 * runs.support.reshape(10, 35, 3, 35, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(shown[..., 0], means, atol=0.51)


def test_an_encoder_that_says_nothing_is_wrong_four_times_in_five(runs):
    error = official_runs.error(runs, lambda images: np.ones((len(images), 3)))
    assert error == pytest.approx(0.8)


def test_without_the_file_there_are_no_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("METRICJAX_DATA_DIR", str(tmp_path))
    assert official_runs.find() is None
    monkeypatch.setattr(sys, "argv", ["omniglot_baselines"])
    with pytest.raises(SystemExit):
        omniglot_baselines.main()
    assert "--data-dir" in capsys.readouterr().err


def test_the_command_prints_what_it_records(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(omniglot_baselines, "RESULT", tmp_path / "record.json")
    monkeypatch.setattr(official_runs, "find", lambda _: runs)
    monkeypatch.setattr(harness, "machine", dict)
    monkeypatch.setattr(sys, "argv", ["omniglot_baselines"])
    assert omniglot_baselines.main() == 0
    record = json.loads((tmp_path / "record.json").read_text())
    printed = capsys.readouterr().out
    for name, error in record["errors"].items():
        assert f"| {name} | {100 * error:.2f} % |" in printed


@pytest.fixture
def official():
    """The errors of the official runs, where they are."""
    if DATA_DIR is None:
        pytest.skip("METRICJAX_DATA_DIR names no folder of raw files")
    runs = official_runs.find(DATA_DIR)
    if runs is None:
        pytest.skip(f"no all_runs.zip in {DATA_DIR}")
    assert runs.support.shape == (20, 20, 105, 105)
    return omniglot_baselines.errors(runs)


def test_official_runs_give_the_published_baselines(official):
    assert official == pytest.approx(OFFICIAL, abs=1e-4)


def test_the_record_is_what_the_code_finds():
    record = json.loads(omniglot_baselines.RESULT.read_text())
    assert record["errors"] == pytest.approx(OFFICIAL, abs=1e-4)
