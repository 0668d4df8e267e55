"""Contrastive losses: what the conformance table does not ask."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metricjax import losses, pairs, reductions, similarities
from tests import compiled
from tests.oracles import losses as oracles
from tests.oracles import losses_contrastive as contrastive

LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 3], np.int32)


def random(rng, rows=8, dim=4):
    return rng.normal(size=(rows, dim)).astype(np.float32)


def terms_of(loss, *args, **options) -> Any:
    """Its `Terms`."""
    return compiled.call(loss, *args, reduction=None, **options)


# --- NT-Xent --------------------------------------------------------------------------


def test_denominators_of_ntxent_agree_for_two_views_and_differ_for_three(rng):
    two = pairs.view_labels(4, 2)
    three = pairs.view_labels(4, 3)

    @jax.jit
    def both(x, labels):
        few = losses.ntxent(x, labels, other_positives=False)
        return losses.ntxent(x, labels), few, losses.supcon(x, labels)

    every, few, supcon = both(random(rng), two)
    np.testing.assert_allclose([few, supcon], every, rtol=1e-6)
    # Of equal vectors: log of the number of candidates.
    every, few, _ = both(np.ones((12, 4), np.float32), three)
    np.testing.assert_allclose([every, few], [np.log(11), np.log(10)], rtol=1e-6)


def test_ntxent_without_any_negative_is_zero_for_a_single_pair(rng):
    labels = np.array([0, 0], np.int32)
    for other_positives in (True, False):

        def loss(x, other_positives=other_positives):
            return losses.ntxent(x, labels, other_positives=other_positives)

        value, gradient = jax.jit(jax.value_and_grad(loss))(random(rng, rows=2))
        np.testing.assert_allclose(value, 0.0, atol=1e-6)
        np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


def test_ntxent_counts_positive_pairs_and_supcon_counts_anchors(rng):
    x = random(rng)
    for other_positives in (True, False):
        terms = terms_of(losses.ntxent, x, LABELS, other_positives=other_positives)
        np.testing.assert_array_equal(terms.count, [2, 2, 2, 1, 1, 1, 1, 0])
    # The sum of its terms, each anchor weighing as many as it has positives.
    per_anchor = losses.supcon(x, LABELS, reduction=reductions.per_anchor)
    terms = terms_of(losses.ntxent, x, LABELS)
    np.testing.assert_allclose(terms.total, per_anchor * terms.count, rtol=1e-5)


def test_close_pairs_keep_their_gradient_in_dcl_but_not_in_ntxent():
    labels = np.array([0, 0, 1], np.int32)

    def pull(loss):
        """Slope of the loss in the angle of the positive, which is 0.3 away."""

        def of(angle):
            angles = jnp.stack([jnp.zeros(()), angle, jnp.asarray(jnp.pi)])
            x = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
            return loss(x, labels, temperature=0.1)

        return float(jax.jit(jax.grad(of))(0.3))

    assert pull(losses.ntxent) < 1e-4
    assert pull(losses.dcl) > 1.0


# --- aligned sets ---------------------------------------------------------------------


def test_info_nce_is_cross_entropy_over_the_matrix_of_cosines(rng):
    x, y = random(rng), random(rng)
    logits = similarities.cosine(x, y) / 0.2
    expected = -np.mean(np.diagonal(jax.nn.log_softmax(logits, axis=1)))
    value = losses.info_nce(x, y, temperature=0.2)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    back = -np.mean(np.diagonal(jax.nn.log_softmax(logits, axis=0)))
    both = losses.clip(x, y, temperature=0.2)
    np.testing.assert_allclose(both, (expected + back) / 2, rtol=1e-5)
    np.testing.assert_allclose(losses.clip(y, x, temperature=0.2), both, rtol=1e-6)


def test_further_negatives_count_for_all_rows_and_may_be_padded(rng):
    x, y, z = random(rng), random(rng), random(rng, rows=5)
    expected = contrastive.info_nce(
        x, y, np.arange(8), temperature=0.05, negative_embeddings=z[:3]
    )
    z[3:] = np.nan
    there = np.arange(5) < 3

    def loss(z):
        return losses.multiple_negatives(
            x, y, negative_embeddings=z, negative_where=there
        )

    value, gradient = jax.jit(jax.value_and_grad(loss))(z)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.all(np.isfinite(gradient))
    assert np.any(gradient[:3] != 0)
    np.testing.assert_array_equal(gradient[3:], 0.0)


def test_equal_labels_leave_only_the_queue_as_in_moco(rng):
    queries, keys, queue = random(rng), random(rng), random(rng, rows=5)
    value = losses.info_nce(
        queries, keys, negative_embeddings=queue, labels=np.zeros(8, np.int32)
    )
    expected = contrastive.info_nce(
        queries, keys, np.zeros(8), negative_embeddings=queue
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_rows_of_equal_label_do_not_push_each_other_away(rng):
    x, y = random(rng), random(rng)
    for loss in (losses.info_nce, losses.siglip):

        def cost(y, labels, loss=loss):
            return terms_of(loss, x[:2], y, labels=labels).total[0]

        slope = jax.jit(jax.grad(cost))
        apart = slope(y[:2], np.array([0, 1], np.int32))
        alike = slope(y[:2], np.array([4, 4], np.int32))
        assert np.any(apart[1] != 0)
        np.testing.assert_array_equal(alike[1], 0.0)


def test_share_of_active_rows_is_the_error_of_retrieval(rng):
    x = np.eye(4, dtype=np.float32)
    y = np.eye(4, dtype=np.float32)[[0, 1, 3, 2]]
    terms = terms_of(losses.info_nce, x, y)
    np.testing.assert_array_equal(terms.active, [0, 0, 1, 1])


def test_partners_of_other_shape_are_refused():
    x = jnp.ones((3, 2))
    with pytest.raises(ValueError, match="row i is the partner of row i"):
        losses.clip(x, jnp.ones((4, 2)))
    with pytest.raises(ValueError, match="same last axis"):
        losses.info_nce(x, x, negative_embeddings=jnp.ones((4, 3)))
    with pytest.raises(ValueError, match="Expected `negative_embeddings`"):
        losses.info_nce(x, x, negative_where=jnp.ones(4, bool))
    with pytest.raises(TypeError, match="`negative_where` of dtype bool"):
        losses.info_nce(x, x, negative_embeddings=x, negative_where=jnp.ones(3))


# --- guides ---------------------------------------------------------------------------


def test_gist_across_the_sets_alone_equals_the_oracle(rng):
    sides = [random(rng) for _ in range(4)]
    value = losses.gist(*sides, margin=0.2, temperature=0.1, within=False)
    expected = contrastive.gist(
        *sides, labels=np.arange(8), margin=0.2, temperature=0.1, within=False
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    # A guide that finds everything alike keeps nothing; a margin of -2, everything.
    assert losses.gist(*sides, margin=2.5) == 0.0
    everything = losses.gist(*sides, margin=-2.5, temperature=0.07, within=False)
    np.testing.assert_allclose(everything, losses.info_nce(*sides[:2]), rtol=1e-5)


def test_a_false_negative_is_not_pushed_away_under_a_guide(rng):
    x, y, guide, noise = (random(rng) for _ in range(4))
    other_guide = guide + 0.3 * noise
    # To the guide row 1 is nearer to either side of row 0 than these are to each other.
    guide[1], other_guide[1] = guide[0], guide[0] + other_guide[0]

    def cost(y, loss, *guides):
        return terms_of(loss, x, y, *guides, temperature=0.5).total[0]

    slope = jax.jit(jax.grad(cost), static_argnums=1)
    blind = slope(y, losses.info_nce)
    guided = slope(y, losses.gist, guide, other_guide)
    assert np.any(blind[1] != 0)
    np.testing.assert_array_equal(guided[1], 0.0)
    assert np.any(guided[2:] != 0)


def test_masks_without_false_negatives_serve_any_pair_loss(rng):
    x, guide = random(rng), random(rng)
    masks = pairs.from_labels(jnp.asarray(LABELS))
    scores = similarities.cosine(guide)
    kept = pairs.without_false_negatives(masks, scores, margin=0.1)
    negatives = [
        [
            n
            for n in oracles.negatives(LABELS, i)
            if not oracles.positives(LABELS, i)
            or scores[i, n]
            <= max(scores[i, p] for p in oracles.positives(LABELS, i)) - 0.1
        ]
        for i in range(8)
    ]
    found = [list(np.flatnonzero(row)) for row in kept.negative]
    assert found == negatives
    assert sum(map(len, found)) < int(masks.negative.sum())
    assert len(found[7]) == 7
    np.testing.assert_array_equal(kept.positive, masks.positive)
    assert float(losses.ntxent(x, kept)) < float(losses.ntxent(x, LABELS))
    with pytest.raises(ValueError, match="`guide` of shape"):
        pairs.without_false_negatives(masks, scores[:, :3])
