"""Tables of classes and P x K batches, counted one by one over many steps."""

import collections
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metricjax import samplers
from tests.samplers import chance

UNEVEN = np.repeat([0, 1, 2, 5, 9, 11], [1, 2, 3, 7, 40, 300])


def batches(table, steps, **kwargs):
    return [samplers.pk_batch(table, step=t, **kwargs) for t in range(steps)]


# class_table


def test_class_table_groups_examples_by_class():
    labels = np.array([7, 2, 7, -1, 2, 7, 4])
    table = samplers.class_table(labels)
    assert table.classes.tolist() == [2, 7]
    assert table.counts.tolist() == [2, 3]
    groups = [
        table.order[start : start + count].tolist()
        for start, count in zip(table.starts, table.counts, strict=True)
    ]
    assert groups == [[1, 4], [0, 2, 5]]


def test_class_table_keeps_only_the_examples_where_says():
    labels = np.array([0, 0, 0, 1, 1, 1])
    where = np.array([True, False, True, True, False, False])
    table = samplers.class_table(labels, where=where, at_least=1)
    assert table.order.tolist() == [0, 2, 3]
    assert samplers.class_table(labels, where=where).classes.tolist() == [0]


def test_class_table_leaves_out_classes_below_at_least():
    table = samplers.class_table(UNEVEN, at_least=7)
    assert table.classes.tolist() == [5, 9, 11]
    assert set(UNEVEN[table.order]) == {5, 9, 11}


@pytest.mark.parametrize(
    ("labels", "kwargs", "error", "match"),
    [
        (np.eye(3, dtype=int), {}, ValueError, "not one-hot"),
        ([0.0, 1.0], {}, TypeError, "integer dtype"),
        (3, {}, ValueError, "shape"),
        ([0, 1], {"where": [True]}, ValueError, "where"),
        ([0, 1], {"where": [1, 0]}, TypeError, "bool"),
        ([0, 1, 2], {}, ValueError, "no positive pair can be made"),
        ([-1, -1], {}, ValueError, "label of 0 or more"),
        ([], {}, (TypeError, ValueError), "Expected"),
        ([0, 0], {"at_least": 0}, ValueError, "at_least"),
    ],
)
def test_class_table_refuses_bad_labels_with_the_reason(labels, kwargs, error, match):
    with pytest.raises(error, match=match):
        samplers.class_table(labels, **kwargs)


# pk_batch


def test_a_batch_is_p_distinct_classes_of_k_distinct_examples_side_by_side():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(20), 9))
    for batch in batches(labels, 10, classes=6, examples=4, seed=3):
        grouped = labels[batch].reshape(6, 4)
        assert (grouped == grouped[:, :1]).all()
        assert len(set(grouped[:, 0])) == 6
        assert len(set(batch.tolist())) == 24


def test_an_epoch_visits_every_class_once_when_p_divides_their_number():
    labels = np.repeat(np.arange(12), 5)
    for epoch in range(3):
        steps = range(epoch * 4, epoch * 4 + 4)
        seen = [
            labels[samplers.pk_batch(labels, classes=3, examples=2, seed=0, step=t)]
            for t in steps
        ]
        assert sorted(np.concatenate(seen)[::2]) == list(range(12))


def test_epochs_have_different_orders_of_classes():
    labels = np.repeat(np.arange(12), 5)
    first, second = (
        [
            tuple(labels[batch][::2])
            for batch in batches(labels, 8, classes=3, examples=2, seed=0)[part]
        ]
        for part in (slice(0, 4), slice(4, 8))
    )
    assert first != second


def test_a_remainder_of_classes_sits_out_no_class_for_good():
    labels = np.repeat(np.arange(7), 5)
    visits = collections.Counter()
    for batch in batches(labels, 700, classes=5, examples=2, seed=1):
        visits.update(labels[batch][::2].tolist())
    # One batch of 5 classes in each epoch of 7.
    assert sum(visits.values()) == 3500
    for count in visits.values():
        assert abs(count - 500) < chance.SIGMAS * np.sqrt(700 * 5 / 7 * 2 / 7)


def test_every_subset_of_a_class_is_equally_likely():
    labels = np.repeat([0, 1], 5)
    counts = collections.Counter(
        tuple(sorted(batch[labels[batch] == 0].tolist()))
        for batch in batches(labels, 5000, classes=2, examples=3, seed=0)
    )
    subsets = list(itertools.combinations(range(5), 3))
    assert chance.is_plausible([counts[subset] for subset in subsets])


def test_every_place_in_a_batch_is_equally_likely_for_every_example():
    labels = np.repeat([0, 1], 5)
    counts = np.zeros((3, 5))
    for batch in batches(labels, 5000, classes=2, examples=3, seed=1):
        counts[np.arange(3), batch[labels[batch] == 0]] += 1
    for row in counts:
        assert chance.is_plausible(row)


def test_small_classes_repeat_their_examples_evenly():
    table = samplers.class_table(UNEVEN)
    extra = collections.Counter()
    for batch in batches(table, 300, classes=5, examples=7, seed=0):
        for label, size in ((1, 2), (2, 3), (5, 7), (9, 40), (11, 300)):
            counts = collections.Counter(batch[UNEVEN[batch] == label].tolist())
            assert len(counts) == min(size, 7)
            assert max(counts.values()) - min(counts.values()) <= 1
            if label == 2:
                # Seven places for three examples: one of them comes a third time.
                extra.update(i for i, count in counts.items() if count == 3)
    assert len(extra) == 3
    assert chance.is_plausible(list(extra.values()))


def test_classes_of_one_example_are_never_drawn():
    drawn = np.concatenate(batches(UNEVEN, 50, classes=5, examples=2, seed=0))
    assert 0 not in UNEVEN[drawn]


def test_at_least_leaves_out_classes_that_would_repeat():
    table = samplers.class_table(UNEVEN, at_least=7)
    for batch in batches(table, 20, classes=3, examples=7, seed=0):
        assert len(set(batch.tolist())) == 21


def test_a_batch_depends_on_seed_and_step_alone():
    table = samplers.class_table(UNEVEN)
    draw = {"classes": 3, "examples": 4}
    one = samplers.pk_batch(table, seed=5, step=9, **draw)
    samplers.pk_batch(table, seed=5, step=10, **draw)
    np.testing.assert_array_equal(
        one, samplers.pk_batch(UNEVEN, seed=5, step=9, **draw)
    )
    assert one.tolist() != samplers.pk_batch(table, seed=6, step=9, **draw).tolist()
    assert one.tolist() != samplers.pk_batch(table, seed=5, step=8, **draw).tolist()


def test_steps_may_come_from_an_array_and_seeds_may_be_large():
    draw = {"classes": 3, "examples": 4, "seed": 2**64 - 1}
    np.testing.assert_array_equal(
        samplers.pk_batch(UNEVEN, step=np.int32(4), **draw),  # pyright: ignore
        samplers.pk_batch(UNEVEN, step=4, **draw),
    )


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"examples": 301}, ValueError, "at most 300, the size of the largest class"),
        ({"examples": 1}, ValueError, "no positive pair"),
        ({"examples": 0}, ValueError, "examples"),
        ({"classes": 1}, ValueError, "no negative pair"),
        ({"classes": 6}, ValueError, "at most 5, the classes with enough examples"),
        ({"classes": 2.0}, ValueError, "classes"),
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": 0.5}, TypeError, "integer"),
        ({"step": -1}, ValueError, "step"),
        ({"step": 1.0}, TypeError, "integer"),
    ],
)
def test_pk_batch_refuses_impossible_batches_with_the_reason(change, error, match):
    arguments = {"classes": 3, "examples": 4, "seed": 0, "step": 0} | change
    with pytest.raises(error, match=match):
        samplers.pk_batch(UNEVEN, **arguments)


def test_labels_without_a_repeated_class_are_refused():
    with pytest.raises(ValueError, match="no positive pair"):
        samplers.pk_batch(np.arange(9), classes=2, examples=2, seed=0, step=0)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_class_sizes_give_a_full_batch_of_drawable_examples(data):
    sizes = data.draw(st.lists(st.integers(1, 12), min_size=2, max_size=9))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    usable = [size for size in sizes if size > 1]
    if len(usable) < 2:
        return
    classes = data.draw(st.integers(2, len(usable)))
    examples = data.draw(st.integers(2, max(usable)))
    step = data.draw(st.integers(0, 2**40))
    batch = samplers.pk_batch(
        labels, classes=classes, examples=examples, seed=0, step=step
    )
    assert batch.shape == (classes * examples,)
    for row in batch.reshape(classes, examples):
        size = sizes[labels[row[0]]]
        assert (labels[row] == labels[row[0]]).all()
        assert len(set(row.tolist())) == min(examples, size)
