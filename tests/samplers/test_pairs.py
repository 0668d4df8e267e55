"""Pairs: half of the same class, half not, all classes equally often."""

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metricjax import samplers
from tests.samplers import chance

UNEVEN = np.repeat([0, 1, 2, 5, 9, 11], [1, 2, 3, 7, 40, 300])
GROUPS = np.array([0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0])[UNEVEN]


def drawn(labels, steps, **kwargs):
    kwargs = {"pairs": 10, "seed": 0} | kwargs
    return [samplers.pair_batch(labels, step=t, **kwargs) for t in range(steps)]


def test_half_of_the_pairs_are_of_the_same_class():
    for first, second, same in drawn(UNEVEN, 50):
        assert first.shape == second.shape == same.shape == (10,)
        assert same.dtype == bool
        assert same.sum() == 5
        np.testing.assert_array_equal(same, UNEVEN[first] == UNEVEN[second])
        assert (first != second).all()


def test_an_odd_number_has_one_more_different_pair():
    assert [batch.same.sum() for batch in drawn(UNEVEN, 3, pairs=7)] == [3, 3, 3]


def test_same_and_different_pairs_are_mixed():
    counts = sum(batch.same.astype(int) for batch in drawn(UNEVEN, 2000, pairs=6))
    assert np.abs(counts - 1000).max() < chance.SIGMAS * np.sqrt(500)


def test_classes_are_equally_likely_however_large_they_are():
    table = samplers.class_table(UNEVEN)
    alike, firsts, seconds = (collections.Counter() for _ in range(3))
    for first, second, same in drawn(table, 400):
        alike.update(UNEVEN[first[same]].tolist())
        firsts.update(UNEVEN[first[~same]].tolist())
        seconds.update(UNEVEN[second[~same]].tolist())
    # Classes take turns: 2,000 same pairs are 400 epochs of five classes.
    assert alike == dict.fromkeys([1, 2, 5, 9, 11], 400)
    assert firsts == dict.fromkeys([1, 2, 5, 9, 11], 400)
    assert set(seconds) == {1, 2, 5, 9, 11}
    assert chance.is_plausible(list(seconds.values()))


def test_every_pair_of_different_classes_is_equally_likely():
    counts = collections.Counter()
    for first, second, same in drawn(UNEVEN, 1000):
        apart = np.stack([first, second], axis=1)[~same]
        counts.update(tuple(sorted(pair)) for pair in UNEVEN[apart].tolist())
    assert len(counts) == 10
    assert chance.is_plausible(list(counts.values()))


def test_every_pair_of_a_class_is_equally_likely():
    counts = collections.Counter()
    for first, second, same in drawn(UNEVEN, 2000):
        alike = np.stack([first, second], axis=1)[same & (UNEVEN[first] == 5)]
        counts.update(map(tuple, alike.tolist()))
    assert len(counts) == 7 * 6
    assert chance.is_plausible(list(counts.values()))


def test_different_classes_are_of_one_group():
    labels = np.repeat(np.arange(5), 4)
    groups = np.array([3, 0, 0, 3, 8])[labels]
    seen = set()
    for first, second, same in drawn(labels, 100, groups=groups):
        np.testing.assert_array_equal(groups[first], groups[second])
        seen.update(labels[first[~same]].tolist())
        # A class that is alone in its group still makes pairs of its own.
        assert 4 not in labels[first[~same]]
    assert seen == {0, 1, 2, 3}
    every = [labels[batch.first[batch.same]] for batch in drawn(labels, 5)]
    assert set(np.concatenate(every)) == {0, 1, 2, 3, 4}


def test_same_pairs_are_of_two_drawers_if_the_table_has_them():
    labels, drawers = np.repeat([0, 1, 2], 6), np.tile([1, 1, 1, 2, 2, 3], 3)
    table = samplers.group_table(labels, labels * 0, contexts=drawers)
    counts = collections.Counter()
    for first, second, same in drawn(table, 300):
        assert (drawers[first[same]] != drawers[second[same]]).all()
        counts.update(drawers[first[same]].tolist())
    assert chance.is_plausible([counts[1], counts[2], counts[3]])


def test_a_table_gives_the_same_pairs_as_its_labels():
    labels, groups = UNEVEN, UNEVEN * 0 + 1
    expected = drawn(labels, 4)
    tables = (samplers.class_table(labels), samplers.group_table(labels, groups))
    for other in (*(drawn(table, 4) for table in tables), drawn(labels, 4)):
        np.testing.assert_array_equal(expected, other)
    assert np.not_equal(expected, drawn(labels, 4, seed=1)).any()


@pytest.mark.parametrize(
    ("labels", "change", "error", "match"),
    [
        ([0, 1, 2], {}, ValueError, "no positive pair"),
        ([0, 0, 0], {}, ValueError, "pair of different classes"),
        ([0, 0, 1, 1], {"groups": [0, 0, 1, 1]}, ValueError, "different classes"),
        ([0, 0, 1, 1], {"groups": [0, 1, 1, 1]}, ValueError, "one group"),
        (np.eye(4, dtype=int), {}, ValueError, "not one-hot"),
        ([0, 0, 1, 1], {"pairs": 1}, ValueError, "at least 2"),
        ([0, 0, 1, 1], {"pairs": 2.0}, ValueError, "pairs"),
        ([0, 0, 1, 1], {"seed": -1}, ValueError, "seed"),
        ([0, 0, 1, 1], {"step": 0.5}, TypeError, "integer"),
    ],
)
def test_pair_batch_refuses_what_makes_no_pair(labels, change, error, match):
    arguments = {"pairs": 4, "seed": 0, "step": 0} | change
    with pytest.raises(error, match=match):
        samplers.pair_batch(labels, **arguments)


def test_a_table_with_single_examples_or_other_groups_is_refused():
    single = samplers.class_table(UNEVEN, at_least=1)
    with pytest.raises(ValueError, match="got one of 1; .*at_least=2"):
        samplers.pair_batch(single, pairs=4, seed=0, step=0)
    table = samplers.class_table(UNEVEN)
    with pytest.raises(ValueError, match=r"group_table\(labels, groups\)"):
        samplers.pair_batch(table, pairs=4, seed=0, step=0, groups=GROUPS)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_class_sizes_give_balanced_pairs(data):
    sizes = data.draw(st.lists(st.integers(2, 9), min_size=2, max_size=7))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    pairs = data.draw(st.integers(2, 40))
    step = data.draw(st.integers(0, 2**40))
    first, second, same = samplers.pair_batch(labels, pairs=pairs, seed=0, step=step)
    assert same.sum() == pairs // 2
    assert (first != second).all()
    np.testing.assert_array_equal(same, labels[first] == labels[second])
