"""Masks of positive and negative pairs against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from metricjax import pairs
from tests.oracles import pairs as oracles

BATCH, REFS, TAGS = 6, 4, 3

labels = arrays.arrays(np.int32, BATCH, elements=st.integers(-1, 2))
ref_labels = arrays.arrays(np.int32, REFS, elements=st.integers(-1, 2))
masks = arrays.arrays(np.bool_, BATCH)
ref_masks = arrays.arrays(np.bool_, REFS)
numbers = arrays.arrays(np.int32, BATCH, elements=st.integers(0, 7))
ref_numbers = arrays.arrays(np.int32, REFS, elements=st.integers(0, 7))
from_labels = jax.jit(pairs.from_labels)
shares_label = jax.jit(pairs.shares_label)
quick = settings(max_examples=50, deadline=None, derandomize=True)


def assert_masks(found, expected):
    for mask, loops in zip(found, expected, strict=True):
        assert mask.dtype == jnp.bool_
        np.testing.assert_array_equal(mask, loops)
    assert not np.any(found.positive & found.negative)


@given(labels=labels, where=masks)
@quick
def test_pairs_of_a_batch_with_padding(labels, where):
    found = from_labels(labels, where=where)
    assert_masks(found, oracles.from_labels(labels, where=where))
    assert not np.any(np.diag(found.positive) | np.diag(found.negative))
    np.testing.assert_array_equal(found.positive, found.positive.T)


@given(labels=labels, ids=numbers)
@quick
def test_rows_of_equal_id_are_no_pair(labels, ids):
    found = from_labels(labels, ids=ids)
    assert_masks(found, oracles.from_labels(labels, ids=ids))


@given(
    labels=labels,
    refs=ref_labels,
    where=masks,
    ref_where=ref_masks,
    ids=numbers,
    ref_ids=ref_numbers,
)
@quick
def test_pairs_with_references(labels, refs, where, ref_where, ids, ref_ids):
    options = {"where": where, "ref_where": ref_where}
    found = from_labels(labels, ref_labels=refs, **options)
    assert_masks(found, oracles.from_labels(labels, refs, **options))
    options |= {"ids": ids, "ref_ids": ref_ids}
    found = from_labels(labels, ref_labels=refs, **options)
    assert_masks(found, oracles.from_labels(labels, refs, **options))


def test_ids_of_one_side_alone_exclude_nothing():
    found = from_labels(
        jnp.array([0, 1]), ref_labels=jnp.array([0, 1]), ids=jnp.array([3, 4])
    )
    assert_masks(found, oracles.from_labels([0, 1], [0, 1]))


@given(
    tags=arrays.arrays(np.bool_, (BATCH, TAGS)),
    refs=arrays.arrays(np.bool_, (REFS, TAGS)),
)
@quick
def test_items_of_several_labels_are_positive_if_they_share_one(tags, refs):
    assert_masks(shares_label(tags), oracles.shares_label(tags))
    found = shares_label(tags.astype(np.int32), refs.astype(np.float32))
    assert_masks(found, oracles.shares_label(tags, refs))


def test_one_label_each_is_the_same_as_class_indices():
    indices = jnp.array([0, 2, 0, 1, 2])
    assert_masks(shares_label(jnp.eye(3, dtype=bool)[indices]), from_labels(indices))


def test_it_runs_under_jit_and_vmap():
    batches = jnp.array([[0, 0, 1], [2, 1, 1]])
    found = jax.jit(jax.vmap(pairs.from_labels))(batches)
    for i, batch in enumerate(batches):
        assert_masks(
            pairs.Pairs(found.positive[i], found.negative[i]),
            oracles.from_labels(batch.tolist()),
        )


@pytest.mark.parametrize(
    ("error", "words", "arguments"),
    [
        (ValueError, "not one-hot", {"labels": np.eye(3, dtype=int)}),
        (ValueError, r"of shape \[0\]", {"labels": np.int32(3)}),
        (TypeError, "integer dtype", {"labels": np.zeros(3)}),
        (TypeError, "dtype bool", {"where": np.ones(3)}),
        (ValueError, r"`where` of shape \[3\]", {"where": np.ones(4, bool)}),
        (ValueError, r"`ids` of shape \[3\]", {"ids": np.arange(4)}),
        (TypeError, "`ref_labels` of an integer", {"ref_labels": np.ones(2)}),
    ],
)
def test_bad_arguments_are_refused_with_a_cure(error, words, arguments):
    with pytest.raises(error, match=words):
        pairs.from_labels(**({"labels": np.zeros(3, int)} | arguments))


def test_bad_label_sets_are_refused():
    with pytest.raises(ValueError, match="pass class indices"):
        pairs.shares_label(jnp.zeros(3, bool))
    with pytest.raises(ValueError, match="same last axis"):
        pairs.shares_label(jnp.zeros((2, 3), bool), jnp.zeros((2, 4), bool))
