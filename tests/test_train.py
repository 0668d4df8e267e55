import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import train
from metricjax import data
from metricjax.training import (
    checkpoints,
    evaluate,
    folder,
    pictures,
    recipes,
    run,
    splits,
)
from metricjax.training.settings import Settings

SCRIPT = pathlib.Path(train.__file__)
SMALL = ["--width", "2", "--dim", "4"]
FLAT = ["--encoder", "mlp", "--width", "1", "--dim", "4"]
KOCH = ["--groups", "", "--batch-groups", "0", "--pairs", "8"]
TINY = {
    "adaface": [*FLAT, "--batch", "16"],
    "arcface": [*SMALL, "--batch", "16"],
    "center": [*FLAT, "--batch", "16"],
    "combined": [*FLAT, "--batch", "16", "--calibration-classes", "2", "--far", "0.2"],
    "cosface": [*FLAT, "--batch", "16", "--warm-up", "0.5"],
    "duplicates": [*FLAT, "--batch-classes", "8"],
    "multi_similarity": [*FLAT, "--batch-classes", "4"],
    "normface": [*FLAT, "--batch", "16", "--elastic", "0.04", "--thickness", "0.5"],
    "omniglot": [*FLAT, "--data", "digits", "--test-classes", "3"],
    "omniglot_koch": [*FLAT, *KOCH, "--data", "digits", "--test-classes", "3"],
    "omniglot_large": [*FLAT, "--data", "digits", "--test-classes", "3"],
    "omniglot_largest": [*FLAT, "--data", "digits", "--test-classes", "3"],
    "proxy_anchor": [*FLAT, "--batch", "16"],
    "siamese": [*SMALL, "--pairs", "8"],
    "simclr": [*FLAT, "--batch", "16"],
    "sphereface": [*FLAT, "--batch", "16"],
    "subcenter": [*FLAT, "--batch", "16"],
    "supcon": [*FLAT, "--batch-classes", "4"],
    "triplet": ["--encoder", "mlp", "--dim", "4", "--batch-classes", "4"],
}
SETS = {
    "center": {"seen"},
    "normface": {"seen"},
    "omniglot": {"unseen"},
    "omniglot_koch": {"unseen"},
    "omniglot_large": {"unseen"},
    "omniglot_largest": {"unseen"},
}
# How many measures beside those of all recipes.
FURTHER = {
    "center": 4,
    "combined": 3,
    "normface": 4,
    "omniglot_koch": 3,
    "siamese": 3,
}
PICTURES = ["det", "distances", "embeddings", "retrievals", "roc", "task", "worst"]


def command(recipe, out, *, steps, every, splits=1):
    counts = {"steps": steps, "evaluate-every": every, "splits": splits}
    flags = [text for name, n in counts.items() for text in (f"--{name}", str(n))]
    general = ["--recipe", recipe, "--out", str(out), "--evaluated-images", "30"]
    return [*general, *flags, *TINY[recipe]]


def test_every_recipe_has_a_tiny_run_here():
    assert sorted(TINY) == recipes.names()


@pytest.fixture
def plain(monkeypatch):
    """Runs without pictures and bundles, which take longer than so few steps."""
    for name in ("draw", "draw_examples"):
        monkeypatch.setattr(pictures, name, lambda *_, **__: None)
    monkeypatch.setattr(train, "leave_bundles", lambda *_: None)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("recipe", sorted(TINY))
def test_every_recipe_trains_and_measures_on_the_digits(recipe, tmp_path):
    assert train.main(command(recipe, tmp_path, steps=2, every=2)) == 0
    result = json.loads((tmp_path / "results.json").read_text())[0]
    sets = {"unseen", "seen"} & result.keys()
    assert sets == (SETS.get(recipe) or {"unseen", "seen"})
    for part in sets:
        assert list(result[part]["trained"]) == list(evaluate.METRICS)
    report = (tmp_path / "report.md").read_text()
    for name, value in result["further"].items():
        assert 0.0 <= value <= 1.0
        assert f"| {name} | {value:.4f} |" in report
    assert len(result["further"]) == FURTHER.get(recipe, 0)


def test_a_tiny_run_trains_measures_and_reports(tmp_path, capsys, monkeypatch):
    recipe = "arcface"
    compiled, counts = [], {}
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "compile" in event else None
    )
    write = folder.write_json

    def counted(path, value):
        counts[str(path.relative_to(tmp_path))] = len(compiled)
        write(path, value)

    monkeypatch.setattr(folder, "write_json", counted)
    arguments = command(recipe, tmp_path, steps=4, every=2, splits=2)
    assert train.main(arguments) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert [result["unseen_classes"] for result in results] == [
        list("789"),
        list("456"),
    ]
    for result in results:
        for part in ("unseen", "seen"):
            for kind in ("raw", "trained"):
                assert list(result[part][kind]) == list(evaluate.METRICS)
                assert all(0.0 <= value <= 1.0 for value in result[part][kind].values())
    report = (tmp_path / "report.md").read_text()
    for split in (0, 1):
        kept = checkpoints.available(tmp_path / f"split{split}" / "checkpoints")
        assert [checkpoint.step for checkpoint in kept] == [2, 4]
        for picture in PICTURES:
            assert (tmp_path / f"split{split}" / f"{picture}.png").stat().st_size > 5000
            assert f"(split{split}/{picture}.png)" in report
    assert (tmp_path / "split0" / "examples.png").stat().st_size > 5000
    raw = results[0]["unseen"]["raw"]["recall_at_1"]
    assert f"| 7 8 9 | raw pixels | {raw:.3f} |" in report
    assert "| mean | trained |" in report
    # The second split finds every program compiled by the first.
    assert counts["split0/result.json"] == counts["split1/result.json"] > 0
    check_trained_encoder(tmp_path, results)
    first = capsys.readouterr().out
    assert train.main(arguments) == 0
    again = capsys.readouterr().out
    assert first[first.index("Classes never seen") :] == again


def check_trained_encoder(path, results):
    """The encoder that a run leaves behind is the one that was measured."""
    digits = data.load("digits")
    settings = Settings(evaluated_images=30)
    for index, result in enumerate(results):
        unseen = splits.split(digits, settings, index).tested
        apply, params, state = run.trained_encoder(path, index=index)
        embeddings, _ = apply(params, state, unseen.images, train=False)
        scores = evaluate.scores(np.asarray(embeddings), unseen.labels)
        measured = result["unseen"]["trained"]
        np.testing.assert_allclose(scores["auc"], measured["auc"], atol=0.01)


def test_an_encoder_of_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="Expected the folder of a run"):
        run.trained_encoder(tmp_path)


def kill_in_mid_training(arguments, saved):
    """Start `train.py`, kill it once it has saved something; its exit code."""
    cache = jax.config.values["jax_compilation_cache_dir"]
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": cache or "",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05",
    }
    known = len(checkpoints.available(saved))
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120.0
    while len(checkpoints.available(saved)) == known and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    return process.returncode, errors.decode()


@pytest.mark.usefixtures("plain")
def test_a_run_killed_and_started_again_ends_with_the_same_bits(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    saved = killed / "split0" / "checkpoints"
    arguments = command("triplet", killed, steps=200, every=40)
    code, errors = kill_in_mid_training(arguments, saved)
    assert code == -signal.SIGKILL, errors
    done = checkpoints.available(saved)[-1].step
    assert 0 < done < 200
    assert not (killed / "split0" / "result.json").exists()
    assert train.main(arguments) == 0
    assert train.main(command("triplet", whole, steps=200, every=40)) == 0
    for best in (False, True):
        states = [
            final_state(path / "split0" / "checkpoints", best=best)
            for path in (killed, whole)
        ]
        jax.tree.map(np.testing.assert_array_equal, *states)
    results = [(path / "results.json").read_text() for path in (killed, whole)]
    assert results[0] == results[1]


def final_state(saved, *, best):
    settings = recipes.load("triplet").Settings(encoder="mlp", dim=4)
    experiment = recipes.load("triplet").build(settings, (28, 28, 1), 7)
    template = experiment.init(jax.random.key(0, impl="rbg"))
    restored = checkpoints.restore(saved, template, best=best)
    assert restored.skipped == ()
    state = restored.state
    return state._replace(key=jax.random.key_data(state.key))


def test_a_loss_that_diverges_ends_in_one_line(tmp_path, capsys):
    arguments = command("triplet", tmp_path, steps=60, every=4)
    assert train.main([*arguments, "--learning-rate", "1e37"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("train.py: ")
    assert " at step " in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "nonsense"], "Expected a recipe of adaface, arcface"),
        (["--data", "nonsense"], "nonsense"),
        (["--data", "folder:no/such/folder"], "no/such/folder"),
        (["--test-classes", "9"], "lower --test-classes"),
        (["--recipe", "triplet", "--batch-classes", "500"], "at most 56"),
        (["--recipe", "triplet", "--batch-examples", "1"], "Expected `examples`"),
        (["--out", str(SCRIPT)], "choose another with --out"),
    ],
)
def test_bad_input_ends_in_one_line(tmp_path, capsys, arguments, message):
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "new")]
    assert train.main([*arguments, *out]) == 2
    error = capsys.readouterr().err
    assert error.startswith("train.py: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("arguments", [["--steps", "0"], ["--no-such-flag"]])
def test_a_bad_flag_ends_with_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(arguments)
    assert stop.value.code == 2
    assert "steps" in capsys.readouterr().err or "no-such-flag" in arguments[0]


def test_the_help_lists_the_settings_of_the_recipe(capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(["--recipe", "triplet", "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    for flag in ("--recipe", "--data-dir", "--out", "--steps", "--batch-classes"):
        assert flag in printed


def test_the_list_names_every_recipe(capsys):
    assert train.main(["--list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in recipes.names())
