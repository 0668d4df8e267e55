import pytest

from metricjax.training import evaluate, report


def test_the_report_averages_over_splits():
    def result(value):
        scores = dict.fromkeys(evaluate.METRICS, value)
        kinds = {"raw": scores, "trained": {**scores, "eer": value / 2}}
        return {"unseen": kinds, "seen": kinds}

    means = report.means([result(0.2), result(0.6)])
    assert means["unseen"]["raw"]["map_at_r"] == pytest.approx(0.4)
    assert means["seen"]["trained"]["eer"] == pytest.approx(0.2)
