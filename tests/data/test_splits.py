"""Splits by class and by image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metricjax import data

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 20))


def classes_of(labels, indices):
    return sorted(set(np.asarray(labels)[indices].tolist()))


def test_named_classes_are_taken_as_named():
    split = data.split_by_class(LABELS, test=[7, 8, 9], validation=(0,))
    assert classes_of(LABELS, split.test) == [7, 8, 9]
    assert classes_of(LABELS, split.validation) == [0]
    assert classes_of(LABELS, split.train) == [1, 2, 3, 4, 5, 6]
    assert sorted(np.concatenate(split).tolist()) == list(range(200))
    for indices in split:
        assert (np.diff(indices) > 0).all()


def test_without_validation_classes_there_are_none():
    split = data.split_by_class(LABELS, test=[9])
    assert split.validation.size == 0
    assert split.validation.dtype == split.train.dtype


@pytest.mark.parametrize(("test", "count"), [(3, 3), (0.3, 3), (0.01, 1), (0.96, 9)])
def test_a_number_or_a_share_of_classes_is_drawn(test, count):
    if count == 9:
        test = 9
    split = data.split_by_class(LABELS, test=test, seed=4)
    assert len(classes_of(LABELS, split.test)) == count


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    draw = {"test": 3, "validation": 2}
    one, two, other = (data.split_by_class(LABELS, seed=s, **draw) for s in (1, 1, 2))
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first, second)
    assert one.test.tolist() != other.test.tolist()


def test_asking_for_validation_classes_leaves_the_test_set_as_it_was():
    without = data.split_by_class(LABELS, test=3, seed=5)
    with_some = data.split_by_class(LABELS, test=3, validation=0.2, seed=5)
    np.testing.assert_array_equal(without.test, with_some.test)
    assert len(classes_of(LABELS, with_some.validation)) == 2


def test_every_class_is_equally_likely_to_be_a_test_class():
    counts = np.zeros(10)
    for seed in range(1000):
        split = data.split_by_class(np.arange(10), test=3, seed=seed)
        counts[split.test] += 1
    assert np.abs(counts - 300).max() < 6 * np.sqrt(1000 * 0.3 * 0.7)


def test_negative_labels_are_in_no_set():
    labels = np.array([-1, 0, 1, 2, -1, 0])
    split = data.split_by_class(labels, test=[2])
    assert sorted(np.concatenate(split).tolist()) == [1, 2, 3, 5]
    kept = data.hold_out(labels, fraction=0.5)
    assert sorted(np.concatenate(kept).tolist()) == [1, 2, 3, 5]


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"test": [10]}, r"got \[10\]; free are \[0, 1"),
        ({"test": [1], "validation": [1, 2]}, r"got \[1\]"),
        ({"test": 10}, "a class to train on"),
        ({"test": 11}, "at most 10"),
        ({"test": 6, "validation": 5}, "`validation` of at most 4"),
        ({"test": -1}, "`test`"),
        ({"test": 0.0}, "`test`"),
        ({"test": 1.0}, "`test`"),
        ({"test": float("nan")}, "`test`"),
    ],
)
def test_impossible_splits_are_refused_with_the_reason(kwargs, match):
    with pytest.raises(ValueError, match=match):
        data.split_by_class(LABELS, **kwargs)


@pytest.mark.parametrize(
    "call",
    [
        lambda labels: data.split_by_class(labels, test=1),
        lambda labels: data.hold_out(labels, fraction=0.5),
    ],
)
def test_bad_labels_are_refused(call):
    with pytest.raises(ValueError, match="one-hot"):
        call(np.eye(4, dtype=int))
    with pytest.raises(TypeError, match="integer dtype"):
        call(np.zeros(4))
    with pytest.raises(ValueError, match="label of 0 or more"):
        call(np.array([-1, -2]))


def test_hold_out_takes_the_share_of_each_class():
    split = data.hold_out(LABELS, fraction=0.25, seed=1)
    assert np.bincount(LABELS[split.held_out]).tolist() == [5] * 10
    assert np.bincount(LABELS[split.train]).tolist() == [15] * 10
    assert sorted(np.concatenate(split).tolist()) == list(range(200))


def test_hold_out_leaves_and_takes_one_of_a_tiny_class():
    labels = np.array([0, 1, 1, 2, 2, 2])
    for fraction in (0.01, 0.99):
        split = data.hold_out(labels, fraction=fraction)
        assert classes_of(labels, split.train) == [0, 1, 2]
        assert classes_of(labels, split.held_out) == [1, 2]


def test_hold_out_is_reproducible_and_seeded():
    one, two, other = (data.hold_out(LABELS, fraction=0.5, seed=s) for s in (3, 3, 4))
    np.testing.assert_array_equal(one.held_out, two.held_out)
    assert one.held_out.tolist() != other.held_out.tolist()


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 2, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ValueError, match="between 0 and 1"):
        data.hold_out(LABELS, fraction=fraction)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-1, 5), min_size=1, max_size=40), st.floats(0.01, 0.99))
def test_hold_out_divides_any_labels(labels, fraction):
    labels = np.array(labels)
    if (labels < 0).all():
        return
    split = data.hold_out(labels, fraction=fraction)
    both = np.concatenate(split)
    assert sorted(both.tolist()) == np.flatnonzero(labels >= 0).tolist()
    assert classes_of(labels, split.train) == sorted(set(labels[labels >= 0].tolist()))
