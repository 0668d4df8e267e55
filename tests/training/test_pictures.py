from typing import Any

import numpy as np
import pytest
from matplotlib import figure

from metricjax import plots, similarities
from metricjax.training import pictures


def task(labels, embeddings) -> Any:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (len(labels), 4, 4, 1), dtype=np.uint8)
    names = [f"class {label}" for label in range(labels.max() + 1)]
    return pictures._task(images, embeddings, labels, names, similarities.cosine)


def test_a_task_has_five_classes_or_all_of_them_and_shows_what_was_chosen():
    for classes, ways in ((8, 5), (4, 4), (3, 3)):
        labels = np.repeat(np.arange(classes), 3)
        right = task(labels, np.eye(classes, dtype=np.float32)[labels])
        assert right.get_suptitle() == f"{ways}-way task: chosen rightly"
    assert task(np.repeat(np.arange(2), 3), np.eye(6, dtype=np.float32)) is None
    assert task(np.arange(6), np.eye(6, dtype=np.float32)) is None


def test_a_wrong_answer_is_shown_as_such():
    # Every image points away from the others of its class.
    labels = np.repeat(np.arange(3), 2)
    x = np.array([[1, 0], [-1, 0]] * 3, np.float32)
    assert task(labels, x).get_suptitle() == "3-way task: chosen wrongly"


def test_curves_without_an_error_have_no_place_on_deviate_axes():
    perfect = plots.RocCurve([0.0, 0.0, 1.0], [0.0, 1.0, 1.0], auc=1.0, eer=0.0)
    usual = plots.RocCurve([0.0, 0.1, 0.5, 1.0], [0.0, 0.7, 0.9, 1.0], auc=0.8, eer=0.2)
    assert pictures._det({"trained": perfect}, "title") is None
    drawn = pictures._det({"untrained": usual, "trained": perfect}, "title")
    assert drawn is not None
    (line,) = drawn.axes[0].lines
    assert line.get_label() == "untrained: EER 20.0 %"


@pytest.mark.parametrize("name", ["$a_{$", "$x$", "佐藤", "\x1b[2J", "a" * 300, "{}%"])
def test_any_name_can_be_drawn(name, tmp_path):
    drawn = figure.Figure(figsize=(1.0, 1.0))
    drawn.text(0.5, 0.5, pictures._drawable(name))
    pictures._save(drawn, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 0
