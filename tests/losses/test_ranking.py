"""Rank losses and histograms: what the conformance table does not ask."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from metricjax import losses
from metricjax.losses import _each_positive
from tests import compiled
from tests.oracles import losses as oracles
from tests.oracles import losses_ranking as ranking

LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 3], np.int32)


def random(rng, rows=8, dim=4):
    return rng.normal(size=(rows, dim)).astype(np.float32)


def on_circle(*degrees):
    angles = np.deg2rad(np.array(degrees))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def terms_of(loss, *args, **options) -> Any:
    """Its `Terms`."""
    return compiled.call(loss, *args, reduction=None, **options)


def slopes(oracle, x, labels, direction, step=1e-7):
    """Derivative of an oracle along a direction, by central differences."""
    ends = [oracle(x + sign * step * direction, labels) for sign in (1, -1)]
    return (ends[0] - ends[1]) / (2 * step)


# --- Smooth-AP ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [[0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 2, 3, 0, 1, 2, 3], [5, 5, 5, 5, 5, 9, 9, 1]],
    ids=["more classes than examples", "interleaved", "uneven"],
)
def test_smooth_ap_is_right_for_any_labels(rng, labels):
    x, labels = random(rng), np.array(labels, np.int32)
    value = losses.smooth_ap(x, labels)
    np.testing.assert_allclose(value, ranking.smooth_ap(x, labels), rtol=2e-5)
    # In the limit it is the true average precision.
    true = []
    for i in range(8):
        others = [j for j in range(8) if j != i]
        scores = [oracles.cosine(x[i], x[j]) for j in others]
        relevant = [labels[j] == labels[i] for j in others]
        if any(relevant):
            true.append(1 - ranking.average_precision(scores, relevant))
    sharp = losses.smooth_ap(x, labels, temperature=1e-5)
    np.testing.assert_allclose(sharp, np.mean(true), rtol=1e-5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("loss", "oracle"),
    [
        (losses.smooth_ap, ranking.smooth_ap),
        (losses.recall_surrogate, ranking.recall_surrogate),
        (
            losses.pnp_dq,
            lambda x, y: ranking.pnp(x, y, penalty=lambda r: 1 - (1 + r) ** -4),
        ),
    ],
)
def test_defaults_and_their_gradient_equal_the_oracle(rng, loss, oracle):
    x = rng.normal(size=(8, 4))
    value, gradient = jax.jit(jax.value_and_grad(loss))(x, LABELS)
    np.testing.assert_allclose(value, oracle(x, LABELS), rtol=1e-10)
    direction = rng.normal(size=x.shape)
    np.testing.assert_allclose(
        np.vdot(gradient, direction), slopes(oracle, x, LABELS, direction), rtol=1e-5
    )


# --- Recall@k surrogate ---------------------------------------------------------------


def test_best_rank_is_one_because_the_anchor_is_no_candidate():
    x = on_circle(0, 10, 90, 180)
    labels = np.array([0, 0, 1, 2], np.int32)
    # The single positive at rank 1: 1 - g(k - 1).
    value = losses.recall_surrogate(x, labels, ks=(1, 3))
    expected = 1 - (0.5 + ranking.sigmoid(2.0)) / 2
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_lengths_that_are_no_positive_integers_are_refused():
    x, y = jnp.ones((2, 2)), jnp.zeros(2, jnp.int32)
    lengths: list[Any] = [(), (0,), (1, 2.5)]
    for ks in lengths:
        with pytest.raises(ValueError, match="`ks` to be an integer of at least 1"):
            losses.recall_surrogate(x, y, ks=ks)


# --- PNP ------------------------------------------------------------------------------


def test_an_anchor_is_not_counted_as_its_own_positive():
    # From 0 degrees both negatives stand before the only positive.
    x = on_circle(0, 40, 20, -20)
    labels = np.array([0, 0, 1, 2], np.int32)
    terms = terms_of(losses.pnp, x, labels)
    np.testing.assert_allclose(terms.total, [2.0, 1.0, 0.0, 0.0], atol=1e-3)
    np.testing.assert_array_equal(terms.count, [1, 1, 0, 0])


def test_variants_of_pnp_differ_by_what_a_negative_costs():
    x = on_circle(0, 40, 20, -20)
    labels = np.array([0, 0, 1, 2], np.int32)

    def first(loss, **options):
        return float(terms_of(loss, x, labels, **options).total[0])

    # Two negatives before the positive.
    assert first(losses.pnp_iu) == pytest.approx(3 * np.log(3), rel=1e-3)
    assert first(losses.pnp_ib, b=2.0) == pytest.approx((4 - np.log(5)) / 4, rel=1e-3)
    assert first(losses.pnp_ds) == pytest.approx(np.log(3), rel=1e-3)
    assert first(losses.pnp_dq, alpha=2.0) == pytest.approx(8 / 9, rel=1e-3)
    assert first(losses.pnp, penalty=jnp.square) == pytest.approx(4.0, rel=1e-3)
    assert first(losses.pnp, penalty=Partial(jnp.power, 2)) == pytest.approx(4.0, 1e-3)


# --- the loop over positives ----------------------------------------------------------


def softmax_share(row, value, rivals, negative, scale):
    """A term that reads all of its arguments."""
    others = jnp.where(rivals | negative, jnp.exp(scale[:, None] * row), 0.0)
    share = jnp.exp(scale * value)
    return share / (share + others.sum(axis=1)) + 0.1 * jnp.sum(rivals, axis=1)


@pytest.mark.usefixtures("x64")
def test_sum_over_positives_and_its_derivatives_equal_the_dense_sum(rng):
    row = rng.normal(size=(3, 7))
    # Rows of four, one and no positives.
    positive = np.array([[1, 0, 1, 1, 0, 0, 1], [0, 0, 0, 0, 0, 1, 0], [0] * 7], bool)
    negative = ~positive & (rng.random((3, 7)) > 0.3)

    def dense(row, scale):
        scale = jnp.broadcast_to(scale, 3)
        total = jnp.zeros(3)
        for j in range(7):
            own = np.arange(7) == j
            term = softmax_share(row, row[:, j], positive & ~own, negative, scale)
            total += jnp.where(positive[:, j], term, 0.0)
        return total

    def looped(row, scale):
        scale = _each_positive.per_row(scale, row)
        return _each_positive.sum_terms(softmax_share, row, positive, negative, scale)

    @jax.jit
    def everything(row, scale):
        return [
            (f(row, scale), *(jac(f, (0, 1))(row, scale) for jac in JACOBIANS))
            for f in (dense, looped)
        ]

    expected, found = everything(row, 0.7)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12),
        found,
        expected,
    )


JACOBIANS = (jax.jacrev, jax.jacfwd)


# --- histograms -----------------------------------------------------------------------


def test_fastap_keeps_the_mass_of_antipodes_and_duplicates():
    # Squared distances of exactly 0 and 4, the two ends of the histogram.
    x = on_circle(0, 0, 180)
    labels = np.array([0, 0, 1], np.int32)
    np.testing.assert_allclose(losses.fastap(x, labels), 0.0, atol=1e-6)
    labels = np.array([0, 1, 0], np.int32)
    np.testing.assert_allclose(losses.fastap(x, labels), 0.5, atol=1e-6)


def test_fastap_of_other_bins_equals_the_oracle(rng):
    x = random(rng)
    for bins in (1, 25):
        value = losses.fastap(x, LABELS, bins=bins)
        np.testing.assert_allclose(value, ranking.fastap(x, LABELS, bins=bins), 1e-5)


@pytest.mark.parametrize("bins", [2, 151])
def test_identical_pairs_stay_in_the_last_bin_of_the_histogram(bins):
    x, labels = on_circle(0, 0, 180, 180), np.array([0, 0, 1, 1], np.int32)

    def loss(x, labels):
        return losses.histogram(x, labels, bins=bins)

    both = jax.jit(jax.value_and_grad(loss))
    value, gradient = both(x, labels)
    # All positive pairs at cosine 1, all negative pairs at -1.
    np.testing.assert_allclose(value, 0.0, atol=1e-5)
    assert np.all(np.isfinite(gradient))
    # The other way round: half of the negative pairs are at 1, above all positives;
    # the others share a bin with the positives, and count as below.
    value, gradient = both(x, np.array([0, 1, 0, 1], np.int32))
    np.testing.assert_allclose(value, 1.0, atol=1e-5)
    assert np.all(np.isfinite(gradient))


def test_histogram_of_few_bins_equals_the_oracle_and_counts_negative_pairs(rng):
    x = random(rng)
    value = losses.histogram(x, LABELS, bins=5)
    np.testing.assert_allclose(value, ranking.histogram(x, LABELS, bins=5), rtol=1e-5)
    terms = terms_of(losses.histogram, x, LABELS)
    np.testing.assert_array_equal(
        terms.count, [len(oracles.negatives(LABELS, i)) for i in range(8)]
    )


def test_histogram_is_the_chance_that_a_negative_pair_is_closer(rng):
    x = random(rng, rows=24)
    labels = np.arange(24, dtype=np.int32) // 4
    near, far = [], []
    for i in range(24):
        near += [oracles.cosine(x[i], x[p]) for p in oracles.positives(labels, i)]
        far += [oracles.cosine(x[i], x[n]) for n in oracles.negatives(labels, i)]
    chance = np.mean(np.array(far)[:, None] > np.array(near))
    value = losses.histogram(x, labels, bins=2001)
    np.testing.assert_allclose(value, chance, atol=5e-3)


def test_histogram_without_positive_or_negative_pairs_is_zero(rng):
    x = random(rng)
    both = jax.jit(jax.value_and_grad(losses.histogram))
    for labels in (np.zeros(8, np.int32), np.arange(8, dtype=np.int32)):
        value, gradient = both(x, labels)
        assert value == 0.0
        np.testing.assert_array_equal(gradient, 0.0)


def test_numbers_of_bins_that_make_no_histogram_are_refused():
    x, y = jnp.ones((2, 2)), jnp.zeros(2, jnp.int32)
    with pytest.raises(ValueError, match="`bins`"):
        losses.fastap(x, y, bins=0)
    with pytest.raises(ValueError, match="at least 2"):
        losses.histogram(x, y, bins=1)
