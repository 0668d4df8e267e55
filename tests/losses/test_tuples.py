"""Tuple losses: swap, angular, tuplet, N-pair, lifted structure, margin, centroids."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from metricjax import losses, mining, numerics, pairs, reductions
from metricjax.pairs import Pairs
from tests import compiled
from tests.oracles import losses_tuples as oracles
from tests.oracles.losses import dot, euclidean, hinge, logsumexp, mean

LABELS = np.array([0, 0, 0, 1, 1, 2], np.int32)
REF_LABELS = np.array([1, 2, 0, 1, 0, 2, 3, 0], np.int32)


@pytest.fixture
def x(rng):
    return rng.normal(size=(len(LABELS), 4)).astype(np.float32)


@pytest.fixture
def refs(rng):
    rng.normal(size=100)
    return rng.normal(size=(len(REF_LABELS), 4)).astype(np.float32)


def triplets_with_references():
    for a, y in enumerate(LABELS):
        near = np.flatnonzero(y == REF_LABELS)
        far = np.flatnonzero(y != REF_LABELS)
        yield a, near, far


# --- swap -----------------------------------------------------------------------------


def test_swap_takes_the_row_of_the_reference_that_is_the_positive(x, refs):
    every, hardest = [], []
    for a, near, far in triplets_with_references():
        d = [euclidean(x[a], r) for r in refs]

        def gap(p, n, a=a, d=d):
            return d[p] - min(d[n], euclidean(refs[p], refs[n])) + 0.2

        every += [hinge(gap(p, n)) for p in near for n in far]
        p, n = max(near, key=d.__getitem__), min(far, key=d.__getitem__)
        hardest.append(hinge(gap(p, n)))
    for loss, expected in ((losses.triplet_all, every), (losses.triplet_hard, hardest)):
        found = loss(
            x,
            LABELS,
            swap=True,
            reduction=reductions.sum,
            ref_embeddings=refs,
            ref_labels=REF_LABELS,
        )
        assert float(found) == pytest.approx(sum(expected), rel=1e-5)


def test_swap_equals_the_cube_of_all_triplets_with_large_classes(rng):
    labels = jnp.asarray(rng.permutation(np.repeat([0, 1, 2], [70, 21, 9])))
    x = jnp.asarray(rng.normal(size=(100, 3)), jnp.float32)
    same = labels[:, None] == labels
    mask = (same & ~jnp.eye(100, dtype=bool))[:, :, None] & ~same[:, None, :]

    def cube(x):
        d = numerics.sqrt(jnp.sum(jnp.square(x[:, None] - x), axis=2))
        gap = d[:, :, None] - jnp.minimum(d[:, None, :], d[None]) + 0.2
        cost = jnp.where(mask, jnp.maximum(gap, 0.0), 0.0)
        return jnp.sum(cost) / jnp.sum(mask & (gap > 0))

    def streamed(x):
        return losses.triplet_all(x, labels, swap=True, block_size=33)

    value, gradient = jax.jit(jax.value_and_grad(streamed))(x)
    expected, slopes = jax.jit(jax.value_and_grad(cube))(x)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, slopes, atol=1e-5 * float(abs(slopes).max()))


# --- one positive against all negatives -----------------------------------------------


def test_angular_does_not_depend_on_the_length_of_any_embedding(x):
    lengths = np.array([1.0, 10.0, 0.1, 3.0, 0.5, 7.0], np.float32)[:, None]
    values = [
        compiled.call(losses.angular, v, LABELS) for v in (x, 10.0 * x, lengths * x)
    ]
    np.testing.assert_allclose(values, values[0], rtol=1e-5)


def test_angular_with_references_reads_the_row_of_the_positive(x, refs):
    values = []
    unit = oracles.unit
    for a, near, far in triplets_with_references():
        for p in near:
            f = [
                4 * dot(unit(x[a]) + unit(refs[p]), unit(refs[n]))
                - 4 * dot(unit(x[a]), unit(refs[p]))
                for n in far
            ]
            values.append(logsumexp([0.0, *f]))
    found = compiled.call(
        losses.angular, x, LABELS, ref_embeddings=refs, ref_labels=REF_LABELS
    )
    assert float(found) == pytest.approx(mean(values), rel=1e-5)


def test_tuplet_margin_is_finite_for_duplicates_and_antipodes():
    x = jnp.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    labels = jnp.array([0, 0, 0, 1, 1])
    value, gradient = jax.jit(jax.value_and_grad(losses.tuplet_margin))(x, labels)
    assert np.isfinite(value)
    assert np.all(np.isfinite(gradient))


def test_tuplet_margin_of_zero_is_n_pair_on_scaled_unit_vectors(x):
    scaled = math.sqrt(16.0) * compiled.call(numerics.l2_normalize, x)
    expected = compiled.call(losses.n_pair, scaled, LABELS, regularization=0.0)
    found = compiled.call(losses.tuplet_margin, x, LABELS, margin=0.0, scale=16.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_n_pair_of_two_aligned_sets_is_a_softmax_over_the_positives(rng):
    anchors, others = rng.normal(size=(2, 5, 3)).astype(np.float32)
    labels = jnp.arange(5)
    squares = np.mean(np.sum(anchors**2 + others**2, axis=1))
    logits = jax.nn.log_softmax(jnp.asarray(anchors @ others.T), axis=1)
    expected = -jnp.mean(jnp.diagonal(logits)) + 0.02 * squares
    found = compiled.call(
        losses.n_pair,
        anchors,
        labels,
        regularization=0.02,
        ref_embeddings=others,
        ref_labels=labels,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


# --- lifted structure -----------------------------------------------------------------


def test_lifted_structure_with_references_equals_loops_in_any_order(x, refs, rng):
    values = []
    for a, near, far in triplets_with_references():
        own = [1.0 - euclidean(x[a], refs[n]) for n in far]
        for p in near:
            other = [1.0 - euclidean(refs[p], refs[n]) for n in far]
            gap = logsumexp(own + other) + euclidean(x[a], refs[p])
            values.append(hinge(gap) ** 2 / 2)
    for order in (np.arange(len(refs)), rng.permutation(len(refs))):
        found = compiled.call(
            losses.lifted_structure,
            x,
            LABELS,
            ref_embeddings=refs[order],
            ref_labels=REF_LABELS[order],
        )
        assert float(found) == pytest.approx(mean(values), rel=1e-5)


def test_lifted_structure_refuses_masks_with_references(x, refs):
    masks = pairs.from_labels(LABELS, ref_labels=REF_LABELS)
    with pytest.raises(ValueError, match="integer labels"):
        losses.lifted_structure(x, masks, ref_embeddings=refs)


# --- margin based ---------------------------------------------------------------------


def test_margin_based_is_the_mean_of_what_sampling_draws(key, rng):
    labels, dim = np.array([0, 0, 0, 1, 1, 1, 2, 2]), 3
    # Of one octant, so that all are near enough to be drawn.
    x = jnp.asarray(rng.uniform(size=(8, dim)), jnp.float32)
    probabilities = oracles.draw_probabilities(np.asarray(x, np.float64), labels)
    # An anchor without a drawable negative would lose its positives, too.
    assert np.all(probabilities.sum(axis=1) > 0)

    @jax.jit
    @jax.vmap
    def drawn(key):
        miner = Partial(mining.distance_weighted, key, dim=dim, positives=2)
        return losses.margin_based(x, labels, miner=miner, reduction=reductions.sum)

    values = np.asarray(drawn(jax.random.split(key, 2000)), np.float64)
    expected = float(
        compiled.call(losses.margin_based, x, labels, reduction=reductions.sum)
    )
    error = values.std() / math.sqrt(len(values))
    assert error > 0
    assert abs(values.mean() - expected) < 4 * error


def test_margin_based_leaves_out_labels_that_have_no_boundary(x):
    boundary = np.array([1.3, 0.9])
    found = compiled.call(
        losses.margin_based, x, LABELS, boundary=boundary, miner=mining.all
    )
    expected = oracles.margin_based_triplets(x, LABELS, boundary=boundary)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_margin_based_refuses_a_boundary_of_classes_for_masks(x):
    with pytest.raises(ValueError, match="with `Pairs` pass a number"):
        losses.margin_based(x, pairs.from_labels(LABELS), boundary=jnp.ones(3))


# --- centroids ------------------------------------------------------------------------


def test_centroid_triplet_takes_any_integers_as_labels(x):
    names = np.array([2**30, 7, 123456])[LABELS]
    np.testing.assert_allclose(
        compiled.call(losses.centroid_triplet, x, names),
        compiled.call(losses.centroid_triplet, x, LABELS),
    )


def test_the_centroid_of_an_anchor_leaves_the_anchor_out():
    x = jnp.array([[0.0], [4.0], [100.0], [100.0]])
    labels = jnp.array([0, 0, 1, 1])
    loss = compiled.call(
        losses.centroid_triplet,
        x,
        labels,
        margin=100.0,
        reduction=reductions.per_anchor,
    )
    # Not 2: the other member alone is the centroid.
    assert loss[0] == 4.0 - 100.0 + 100.0


# --- miners ---------------------------------------------------------------------------


def seen(rows, masks: Pairs) -> Pairs:
    assert rows.shape == masks.positive.shape
    return Pairs(masks.positive, masks.negative & (jnp.arange(rows.shape[1]) != 3))


@pytest.mark.parametrize(
    "loss",
    [losses.angular, losses.n_pair, losses.lifted_structure],
    ids=lambda loss: loss.__name__,
)
def test_a_pair_miner_sees_plain_rows_and_chooses(loss, x):
    masks = seen(jnp.zeros((6, 6)), pairs.from_labels(LABELS))
    np.testing.assert_allclose(
        loss(x, LABELS, pair_miner=seen), loss(x, masks), rtol=1e-6
    )
