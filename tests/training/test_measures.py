import numpy as np
import pytest

from metricjax.training import measures

LABELS = np.repeat(np.arange(6), 4)
CORNERS = np.eye(6, dtype=np.float32)[LABELS]


def test_tasks_need_a_group_with_so_many_classes():
    alphabets = LABELS // 3
    found = measures.few_shot(CORNERS, LABELS, ways=3, groups=alphabets)
    assert found == {"3-way one-shot accuracy": 1.0}
    assert measures.few_shot(CORNERS, LABELS, ways=4, groups=alphabets) == {}
    assert measures.few_shot(CORNERS, LABELS, ways=6) == {
        "6-way one-shot accuracy": 1.0
    }
    assert measures.few_shot(CORNERS, LABELS, ways=7) == {}


def test_one_enrolled_image_names_the_others():
    x = CORNERS.copy()
    # The last image of class 5 looks like class 0: wrong unless it is enrolled.
    x[-1] = CORNERS[0]
    found = measures.identified(x, LABELS)["rank 1, one enrolled image"]
    rates = []
    for turn in range(4):
        enrolled = np.arange(6) * 4 + turn
        others = np.setdiff1d(np.arange(24), enrolled)
        scores = x[others] @ x[enrolled].T
        # Classes that tie share the answer.
        best = scores == scores.max(axis=1, keepdims=True)
        right = best[np.arange(18), LABELS[others]] / best.sum(axis=1)
        rates.append(right.mean())
    assert found == pytest.approx(np.mean(rates), abs=1e-6)


def test_images_are_named_by_class_means_and_by_votes():
    known = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 1], [0.2, 1]], np.float32)
    known_labels = np.array([0, 0, 1, 1, 1])
    x, labels = np.array([[1, 0.2], [0.1, 1]], np.float32), np.array([0, 1])
    found = measures.classified(x, labels, known, known_labels)
    assert found["accuracy by nearest class mean"] == 1.0
    # Three of the five neighbours of every image are of class 1.
    assert found["accuracy by 5 nearest neighbours"] == 0.5
