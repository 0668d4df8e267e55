"""Tables of groups and P x K batches within a group."""

import collections
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metricjax import samplers
from tests.samplers import chance

# Three groups of 2, 3 and 5 classes, whose labels are mixed; each class is drawn by
# four people, class 7 by one of them twice.
GROUP_OF = np.array([2, 0, 2, 1, 0, 2, 1, 2, 1, 2])
LABELS = np.concatenate([np.repeat(np.arange(10), 4), [7]])
GROUPS = GROUP_OF[LABELS]
DRAWERS = np.concatenate([np.tile([11, 3, 8, 5], 10), [3]])


@pytest.fixture(scope="module")
def table():
    return samplers.group_table(LABELS, GROUPS, contexts=DRAWERS)


def grouped(table, steps, **change):
    draw: dict[str, Any] = {"classes": 3, "examples": 2, "seed": 0} | change
    return [samplers.grouped_pk_batch(table, step=t, **draw) for t in range(steps)]


# group_table


def test_group_table_has_classes_by_group_and_cells_by_class(table):
    assert table.group_values.tolist() == [0, 1, 2]
    assert table.labels.tolist() == [1, 4, 3, 6, 8, 0, 2, 5, 7, 9]
    assert table.groups.counts.tolist() == [2, 3, 5]
    assert table.classes.counts.tolist() == [4] * 10
    assert sorted(table.order.tolist()) == list(range(41))
    assert table.cells.counts.tolist() == [1] * 32 + [2, 1, 1, 1] + [1] * 4
    assert LABELS[table.order].tolist() == sorted(
        LABELS.tolist(), key=lambda label: (GROUP_OF[label], label)
    )


def test_contexts_that_all_classes_of_a_group_share_are_found():
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 3, 3, 3])
    groups = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    drawers = np.array([4, 5, 6, 6, 4, 4, 9, 9, 4, 5])
    table = samplers.group_table(labels, groups, contexts=drawers)
    known = np.unique(drawers)
    shared, shared_contexts = table.shared, table.shared_contexts
    assert shared is not None
    assert shared_contexts is not None
    found = [
        known[shared_contexts[start : start + count]].tolist()
        for start, count in zip(*shared, strict=True)
    ]
    assert found == [[4, 6], [4, 9]]


def test_classes_of_too_few_contexts_or_a_negative_label_are_left_out():
    labels = np.array([0, 0, 0, 1, 1, 1, -1, -1, -1, 2])
    drawers = np.array([1, 1, 1, 1, 2, 2, 1, 2, 3, 1])
    groups = np.zeros(10, int)
    with_drawers = samplers.group_table(labels, groups, contexts=drawers)
    assert with_drawers.labels.tolist() == [1]
    assert samplers.group_table(labels, groups).labels.tolist() == [0, 1]
    one = samplers.group_table(labels, groups, at_least=1)
    assert one.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("labels", "groups", "kwargs", "error", "match"),
    [
        (np.eye(3, dtype=int), [0, 0, 0], {}, ValueError, "not one-hot"),
        ([0, 0], [0], {}, ValueError, "groups"),
        ([0, 0], [0.0, 1.0], {}, TypeError, "groups"),
        ([0, 0], [0, 0], {"contexts": [1]}, ValueError, "contexts"),
        ([0, 0], [0, 1], {}, ValueError, r"label 0 in groups \[0, 1\]"),
        # The last class of a group and the first of the next one.
        ([1, 1, 2, 2, 2, 3], [0, 0, 0, 0, 1, 1], {}, ValueError, "label 2 in groups"),
        ([-1, -1], [0, 0], {}, ValueError, "label of 0 or more"),
        ([0, 1, 2], [0, 0, 0], {}, ValueError, "classes of at most 1"),
        ([0, 0], [0, 0], {"contexts": [1, 1]}, ValueError, "distinct contexts"),
        ([0, 0], [0, 0], {"at_least": 0}, ValueError, "at_least"),
    ],
)
def test_group_table_refuses_bad_arguments(labels, groups, kwargs, error, match):
    with pytest.raises(error, match=match):
        samplers.group_table(labels, groups, **kwargs)


# grouped_pk_batch


def test_a_batch_is_of_one_group_and_of_distinct_drawers(table):
    for batch in grouped(table, 100, examples=3):
        assert batch.shape == (9,)
        assert len(set(batch.tolist())) == 9
        assert len(np.unique(GROUPS[batch])) == 1
        rows = batch.reshape(3, 3)
        assert len(np.unique(LABELS[rows[:, 0]])) == 3
        for row in rows:
            assert len(np.unique(LABELS[row])) == 1
            assert len(np.unique(DRAWERS[row])) == 3


def test_groups_with_too_few_classes_are_left_out(table):
    for classes, groups in ((2, {0, 1, 2}), (3, {1, 2}), (5, {2})):
        batches = grouped(table, 60, classes=classes)
        assert set(GROUPS[np.array(batches)[:, 0]].tolist()) == groups


def test_every_class_comes_up_in_each_epoch_and_all_equally_often(table):
    visits = np.zeros(10)
    for epoch in range(200):
        drawn = [
            samplers.grouped_pk_batch(
                table, classes=2, examples=2, seed=3, step=10 * epoch + t
            )
            for t in range(10)
        ]
        seen = collections.Counter(LABELS[np.array(drawn)[:, ::2]].ravel().tolist())
        assert set(seen) == set(range(10))
        groups = collections.Counter(GROUPS[np.array(drawn)[:, 0]].tolist())
        assert groups == {0: 2, 1: 3, 2: 5}
        for label, count in seen.items():
            visits[label] += count
    # The class whose turn it is always comes; the others by chance, which makes the
    # spread smaller than that of independent draws.
    assert visits.sum() == 4000
    assert np.abs(visits - 400).max() < chance.SIGMAS * np.sqrt(400)


def test_every_set_of_classes_of_a_group_is_equally_likely(table):
    counts = collections.Counter(
        tuple(sorted(LABELS[batch[::2]]))
        for batch in grouped(table, 4000)
        if GROUPS[batch[0]] == 2
    )
    sets = list(itertools.combinations(sorted(np.flatnonzero(GROUP_OF == 2)), 3))
    assert chance.is_plausible([counts[one] for one in sets])


def test_an_example_of_a_drawer_is_drawn_evenly(table):
    counts = collections.Counter(
        int(i) for batch in grouped(table, 3000, classes=2) for i in batch
    )
    twice = [i for i in range(41) if LABELS[i] == 7 and DRAWERS[i] == 3]
    assert len(twice) == 2
    assert chance.is_plausible([counts[i] for i in twice])


def test_shared_contexts_are_the_same_drawers_in_the_same_order(table):
    drawers = collections.Counter()
    for batch in grouped(table, 600, shared_contexts=True):
        rows = DRAWERS[batch].reshape(3, 2)
        assert (rows == rows[0]).all()
        assert (LABELS[batch[::2]] == LABELS[batch].reshape(3, 2).T).all()
        assert len(np.unique(GROUPS[batch])) == 1
        drawers[tuple(rows[0])] += 1
    ordered = list(itertools.permutations([3, 5, 8, 11], 2))
    assert chance.is_plausible([drawers[pair] for pair in ordered])


def test_contexts_that_a_class_lacks_are_not_shared():
    labels = np.repeat([0, 1, 2, 3], 3)
    groups = np.repeat([0, 0, 1, 1], 3)
    drawers = np.array([1, 2, 3, 2, 3, 4, 1, 2, 3, 3, 4, 5])
    table = samplers.group_table(labels, groups, contexts=drawers)
    for batch in grouped(table, 20, classes=2, shared_contexts=True):
        # Group 1 has one context in common, which makes no positive pair.
        assert groups[batch].tolist() == [0] * 4
        assert set(drawers[batch]) == {2, 3}


def test_a_table_without_contexts_draws_distinct_examples():
    table = samplers.group_table(LABELS, GROUPS)
    for batch in grouped(table, 30, examples=4):
        assert len(set(batch.tolist())) == 12
    counts = collections.Counter(
        int(i) for batch in grouped(table, 3000, classes=2) for i in batch
    )
    assert chance.is_plausible(
        [counts[i] for i in np.flatnonzero(LABELS == 7).tolist()]
    )


def test_a_grouped_batch_depends_on_seed_and_step_alone(table):
    one = grouped(table, 5)
    np.testing.assert_array_equal(one, grouped(table, 5))
    assert np.not_equal(one, grouped(table, 5, seed=1)).any()
    assert np.not_equal(one[0], one[1]).any()


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"classes": 1}, ValueError, "no negative pair"),
        ({"examples": 1}, ValueError, "no positive pair"),
        ({"classes": 6}, ValueError, "at most 5, the classes .* largest group"),
        ({"examples": 5}, ValueError, "distinct contexts, got one of 4.*at_least=5"),
        ({"classes": 2.0}, ValueError, "classes"),
        ({"seed": -1}, ValueError, "seed"),
        ({"step": 1.0}, TypeError, "integer"),
    ],
)
def test_grouped_pk_batch_refuses_impossible_batches(table, change, error, match):
    arguments = {"classes": 3, "examples": 2, "seed": 0, "step": 0} | change
    with pytest.raises(error, match=match):
        samplers.grouped_pk_batch(table, **arguments)


def test_contexts_must_be_there_to_be_shared():
    plain = samplers.group_table(LABELS, GROUPS)
    with pytest.raises(ValueError, match="table with contexts"):
        grouped(plain, 1, shared_contexts=True)
    apart = samplers.group_table([0, 0, 1, 1], [0] * 4, contexts=[1, 2, 2, 3])
    with pytest.raises(ValueError, match="2 contexts in common, got at most 1"):
        grouped(apart, 1, classes=2, shared_contexts=True)


def possible_groups(labels, group_of, drawers, examples, shared):
    """Groups of which a batch of two classes can be made, found one by one."""
    found = set()
    for group in set(group_of.tolist()):
        of_class = [
            set(drawers[labels == label])
            for label in set(labels[labels >= 0])
            if group_of[label] == group
        ]
        usable = [drawn for drawn in of_class if len(drawn) >= examples]
        if len(usable) < 2:
            continue
        if not shared or len(set.intersection(*usable)) >= examples:
            found.add(group)
    return found


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_classes_and_drawers_give_distinct_examples_of_one_group(data):
    group_of = np.array(data.draw(st.lists(st.integers(0, 2), min_size=8, max_size=8)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    classes, size = data.draw(st.integers(2, 8)), data.draw(st.integers(1, 60))
    labels = rng.integers(-1, classes, size)
    drawers = rng.integers(0, 5, size)
    examples, shared = data.draw(st.integers(2, 3)), data.draw(st.booleans())
    step = data.draw(st.integers(0, 2**40))

    def draw():
        table = samplers.group_table(
            labels, group_of[labels], contexts=drawers, at_least=examples
        )
        return samplers.grouped_pk_batch(
            table,
            classes=2,
            examples=examples,
            seed=0,
            step=step,
            shared_contexts=shared,
        )

    groups = possible_groups(labels, group_of, drawers, examples, shared)
    if not groups:
        with pytest.raises(ValueError, match="^Expected "):
            draw()
        return
    batch = draw()
    assert len(set(batch.tolist())) == batch.size == 2 * examples
    assert labels[batch].min() >= 0
    assert len(set(group_of[labels[batch]])) == 1
    assert group_of[labels[batch[0]]] in groups
    for row in batch.reshape(2, -1):
        assert len(set(labels[row])) == 1
        assert len(set(drawers[row])) == examples
    if shared:
        first, second = drawers[batch].reshape(2, -1)
        assert first.tolist() == second.tolist()
