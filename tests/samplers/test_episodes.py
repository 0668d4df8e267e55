"""Episodes to train on: distinct examples, and every class in its turn."""

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metricjax import samplers
from tests.samplers import chance

LABELS = np.repeat(np.arange(8), [5, 4, 6, 9, 5, 30, 2, 5])
GROUPS = np.array([0, 1, 1, 0, 1, 1, 0, 0])[LABELS]


def drawn(labels, steps, **kwargs):
    kwargs = {"ways": 3, "shots": 1, "queries": 2, "seed": 0} | kwargs
    return [samplers.episode_batch(labels, step=t, **kwargs) for t in range(steps)]


def test_an_episode_has_distinct_examples_of_distinct_classes():
    for support, queries in drawn(LABELS, 100, shots=2, groups=GROUPS):
        assert support.shape == (3, 2)
        assert queries.shape == (3, 2)
        both = np.concatenate([support, queries], axis=1)
        assert len(set(both.ravel().tolist())) == 12
        assert len(set(LABELS[support[:, 0]])) == 3
        assert (LABELS[both] == LABELS[support[:, :1]]).all()
        assert len(set(GROUPS[both.ravel()])) == 1


def test_classes_are_equally_likely_and_small_ones_left_out():
    ways = np.concatenate(
        [LABELS[episode.support[:, 0]] for episode in drawn(LABELS, 1400)]
    )
    counts = collections.Counter(ways.tolist())
    assert set(counts) == {0, 1, 2, 3, 4, 5, 7}
    assert chance.is_plausible(list(counts.values()))


def test_every_class_stands_in_every_way():
    ways = np.stack([LABELS[episode.support[:, 0]] for episode in drawn(LABELS, 1400)])
    for way in ways.T:
        counts = np.bincount(way, minlength=8)
        assert chance.is_plausible(counts[counts > 0])


def test_examples_are_drawn_evenly_as_support_and_as_query():
    counts = np.zeros((2, len(LABELS)))
    for support, queries in drawn(LABELS, 3000, queries=1):
        counts[0, support.ravel()] += 1
        counts[1, queries.ravel()] += 1
    for row in counts[:, LABELS == 3]:
        assert chance.is_plausible(row)


def test_examples_are_of_distinct_drawers_if_the_table_has_them():
    drawers = np.arange(len(LABELS)) % 3
    table = samplers.group_table(LABELS, GROUPS, contexts=drawers, at_least=3)
    for support, queries in drawn(table, 50):
        for row in np.concatenate([support, queries], axis=1):
            assert sorted(drawers[row]) == [0, 1, 2]


def test_an_episode_depends_on_seed_and_step_alone():
    table = samplers.class_table(LABELS, at_least=3)
    one = drawn(table, 4)
    for first, second in zip(one, drawn(LABELS, 4), strict=True):
        np.testing.assert_array_equal(first.support, second.support)
        np.testing.assert_array_equal(first.queries, second.queries)
    assert len({episode.support.tobytes() for episode in one}) == 4
    assert (one[0].support != drawn(table, 1, seed=1)[0].support).any()


@pytest.mark.parametrize(
    ("labels", "change", "error", "match"),
    [
        (LABELS, {"ways": 9}, ValueError, "`ways` of at most 7"),
        (LABELS, {"ways": 5, "groups": GROUPS}, ValueError, "`ways` of at most 4"),
        (LABELS, {"ways": 1}, ValueError, "nothing to choose"),
        (LABELS, {"shots": 0}, ValueError, "shots"),
        (LABELS, {"queries": 0}, ValueError, "queries"),
        (LABELS, {"shots": 40}, ValueError, "at least 42 examples.*at_least"),
        (np.eye(4, dtype=int), {}, ValueError, "not one-hot"),
        ([0, 0, 0], {}, ValueError, "`ways` of at most 1"),
        (LABELS, {"seed": 2**64}, ValueError, "seed"),
        (LABELS, {"step": 1.5}, TypeError, "integer"),
    ],
)
def test_episode_batch_refuses_impossible_episodes(labels, change, error, match):
    arguments = {"ways": 3, "shots": 1, "queries": 2, "seed": 0, "step": 0} | change
    with pytest.raises(error, match=match):
        samplers.episode_batch(labels, **arguments)


def test_a_table_of_smaller_classes_is_refused():
    with pytest.raises(ValueError, match="at least 3 examples, got one of 2.*=3"):
        drawn(samplers.class_table(LABELS), 1)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_class_sizes_give_a_full_episode(data):
    sizes = data.draw(st.lists(st.integers(3, 9), min_size=2, max_size=7))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    ways = data.draw(st.integers(2, len(sizes)))
    shots = data.draw(st.integers(1, 2))
    support, queries = samplers.episode_batch(
        labels,
        ways=ways,
        shots=shots,
        queries=1,
        seed=0,
        step=data.draw(st.integers(0, 2**40)),
    )
    both = np.concatenate([support, queries], axis=1)
    assert both.shape == (ways, shots + 1)
    assert len(set(both.ravel().tolist())) == both.size
    assert (labels[both] == labels[both[:, :1]]).all()
