import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from metricjax import similarities
from metricjax.training import _outcome, evaluate, report


def test_the_report_averages_over_splits():
    def result(value):
        scores = dict.fromkeys(evaluate.METRICS, value)
        kinds = {"raw": scores, "trained": {**scores, "eer": value / 2}}
        return {"unseen": kinds, "seen": kinds}

    means = report.means([result(0.2), result(0.6)])
    assert means["unseen"]["raw"]["map_at_r"] == pytest.approx(0.4)
    assert means["seen"]["trained"]["eer"] == pytest.approx(0.2)


@pytest.mark.parametrize("collapsed", [True, False])
def test_a_collapse_is_told_during_training(collapsed, rng):
    x = rng.normal(size=(40, 8)).astype(np.float32)
    if collapsed:
        x = 1.0 + 1e-4 * x
    console = Console(record=True, quiet=False, file=io.StringIO(), width=200)
    problem: Any = SimpleNamespace(similarity=similarities.cosine)
    found = _outcome.watched(problem, x, np.arange(40) % 4, console)
    assert list(found) == [*evaluate.METRICS, "effective_rank"]
    assert ("collapse" in console.export_text()) == collapsed
    assert (found["effective_rank"] > 5) == (not collapsed)
