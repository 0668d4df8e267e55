"""The benchmarks' own parts: what they compare, tell and draw; nothing is timed."""

import copy
import functools
import json

import matplotlib.image
import numpy as np
import pytest

from benchmarks import harness, plots, reality_check, report, scale, training, worker
from benchmarks.cases import AREAS, Case, cases

EVERY = [case for area in [*AREAS, "growth"] for case in cases(area)]
MACHINE = {
    "device": "a machine",
    "cores": 2,
    "versions": {"jax": "1"},
    "revision": "abc",
    "date": "2026-01-01",
    "rates": {"gflops": 200.0, "gbytes": 50.0},
}


def figures(median, growth=4.0):
    return {"median_ms": median, "min_ms": median, "growth_mib": growth}


def record():
    works = {"supcon": "batch", "arcface_step": "classes"}
    keys = [f"{work}/{size}" for work in works for size in (64, 256, 1024)]
    return {
        "machine": MACHINE,
        "cases": {key: {"jax": figures(2.0), "pml": figures(9.0)} for key in keys},
        "bounds": dict.fromkeys(keys, 1.5),
        "units": works,
    }


def test_every_case_is_filed_under_a_key_of_its_own_and_has_ours():
    for area in [*AREAS, "growth"]:
        keys = [case.key for case in cases(area)]
        assert len(keys) == len(set(keys)), area
    assert all(next(iter(case.contestants)) == "jax" for case in EVERY)
    assert all(case.unit in plots.UNITS for case in EVERY)
    assert any(case.quick for case in EVERY)


def test_every_contestant_has_a_look_in_the_plots():
    grown = {name for case in cases("growth") for name in case.contestants}
    assert grown <= plots.STYLES.keys()
    assert {case.name for case in cases("growth")} == plots.TITLES.keys()


def digests(value, gradient):
    return json.loads(json.dumps([worker.digest(value), worker.digest(gradient)]))


def test_equal_results_pass_and_other_ones_do_not():
    case = Case("work", 3, {}, tolerance=1e-3, gradient_tolerance=1e-2)
    value, gradient = np.float32(2.0), np.linspace(-1.0, 1.0, 5000).reshape(2500, 2)
    same = digests(value, gradient)
    harness.assert_equal(case, {"jax": same, "torch": copy.deepcopy(same)})
    near = digests(value * 1.0005, gradient + 0.005)
    harness.assert_equal(case, {"jax": same, "torch": near})
    changed = gradient.copy()
    changed[7, 1] = 1.5
    for other in (
        digests(value * 1.002, gradient),
        digests(value, -gradient),
        digests(value, changed),
        digests(value, np.where(gradient > 0.9, np.nan, gradient)),
        digests(value, gradient[:-1]),
        same[:1],
    ):
        with pytest.raises(AssertionError, match="torch"):
            harness.assert_equal(case, {"jax": same, "torch": other})


def test_the_roofline_is_the_slower_of_products_and_bytes():
    rates = MACHINE["rates"]
    assert harness.bound_ms(Case("w", 1, {}, flops=2e9), rates) == pytest.approx(10.0)
    case = Case("w", 1, {}, flops=2e9, bytes=1e9)
    assert harness.bound_ms(case, rates) == pytest.approx(20.0)


def test_the_table_says_how_much_faster_and_how_much_is_possible():
    lines = report.table(record()).splitlines()
    expected = "| supcon | 64 | 2 ms | pml 9 ms | 4.5x | 6.0x | 4 / 4 MiB |"
    assert expected in lines
    assert "200 GFLOP/s" in lines[-1]


def test_the_table_shows_a_peer_that_did_not_finish_and_records_without_rooflines():
    found = record()
    found["cases"]["supcon/64"]["pml"] = {}
    del found["bounds"], found["machine"]["rates"]
    text = report.table(found)
    assert "| supcon | 64 | 2 ms | pml did not finish | - | - | 4 MiB |" in text
    assert "| supcon | 256 | 2 ms | pml 9 ms | 4.5x | - | 4 / 4 MiB |" in text


def test_compare_flags_what_became_slower_beyond_noise(capsys):
    old, new = record(), record()
    assert report.compare(old, new) == 0
    new["cases"]["supcon/64"]["jax"] = figures(2.0 * report.ALLOWANCE + 0.1)
    assert report.compare(old, new) == 1
    assert "SLOWER" in capsys.readouterr().out


def test_growth_is_drawn_with_a_peer_that_stops_early(tmp_path):
    found = record()
    found["cases"]["supcon/1024"]["pml"] = {}
    path = tmp_path / "growth.png"
    plots.draw(found, path)
    picture = matplotlib.image.imread(path)
    assert picture.shape[0] > 400
    assert np.ptp(picture[..., :3]) > 0.9


# --- memory over devices --------------------------------------------------------------


def test_the_plan_of_memory_is_what_is_compiled_and_is_told_in_the_table(monkeypatch):
    monkeypatch.setattr(scale, "PLANNED", [(100_000_000, 128)])
    rows = scale.plan()
    assert len(rows) == 2 * len(scale.SLOTS)
    for row in rows:
        assert row["planned"] == pytest.approx(row["compiled"], rel=0.1)
    lines = scale.table({"batch": [], "classes": [], "plan": rows}).splitlines()
    assert lines[-1].startswith("| 100,000,000 x 128 | 8 | 12,207 / 12,2")


def test_every_form_computes_the_same_and_is_told_in_the_table(monkeypatch):
    monkeypatch.setattr(scale, "SECONDS", 0.0)
    batch = scale.grown(scale.BATCH_FORMS, [64], scale.batch_program, largest_dense=64)
    classes = scale.grown(
        scale.CLASS_FORMS, [800], scale.class_program, largest_dense=64
    )
    record = {"batch": list(batch), "classes": list(classes), "plan": []}
    assert [f["form"] for f in record["batch"]] == list(scale.BATCH_FORMS)
    text = scale.table(record)
    assert text.count("MiB, ") == 6
    assert "| 800 | - | " in text


def test_forms_that_differ_are_refused(monkeypatch):
    monkeypatch.setattr(scale, "SECONDS", 0.0)
    other = functools.partial(scale.BATCH_FORMS["blocks"][1], temperature=0.2)
    forms = {**scale.BATCH_FORMS, "blocks": (1, other)}
    monkeypatch.setattr(scale, "BATCH_FORMS", forms)
    with pytest.raises(AssertionError, match="the forms disagree at 64"):
        list(scale.grown(forms, [64], scale.batch_program, largest_dense=64))


def test_what_was_recorded_can_be_read_and_is_told_in_tables():
    runs, losses = training.table(), reality_check.table()
    for path in training.RECORDS.glob("*.json"):
        found = json.loads(path.read_text())
        assert found["command"] in runs or f"| `{found['recipe']}` |" in runs
    for path in reality_check.RESULTS.glob("*.json"):
        final = json.loads(path.read_text())["final"]
        assert (f"| `{path.stem}` |" in losses) == (len(final) == reality_check.SEEDS)
