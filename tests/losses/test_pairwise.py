"""Pair losses, where others have gone wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from metricjax import losses, mining, reductions
from tests import compiled
from tests.oracles import losses_pairwise as oracles
from tests.oracles.losses import cosine, mean, squared

LABELS = np.array([0, 0, 0, 1, 1, 2], np.int32)


@pytest.fixture
def x(rng):
    return rng.normal(size=(len(LABELS), 4)).astype(np.float32)


def test_nca_keeps_the_rows_whose_probability_underflows():
    x = jnp.array([[0.0], [10.0], [1.0], [1.5]])
    labels = jnp.array([0, 0, 1, 1])
    value, gradient = jax.jit(jax.value_and_grad(losses.nca))(x, labels, scale=50.0)
    expected = oracles.nca(np.asarray(x, np.float64), labels.tolist(), scale=50.0)
    assert expected > 1000
    assert float(value) == pytest.approx(expected, rel=1e-5)
    # The far pair is pulled together, hard.
    assert float(gradient[1, 0]) > 100


def test_nca_takes_other_distances(x):
    found = compiled.call(losses.nca, x, LABELS, distance=Partial(_doubled))
    expected = oracles.nca(x, LABELS, distance=lambda a, b: 2.0 * squared(a, b))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def _doubled(x, y):
    return 2.0 * jnp.sum(jnp.square(x[:, None] - y), axis=2)


def test_threshold_consistent_margin_reads_the_references(x, rng):
    refs, ref_labels = rng.normal(size=(5, 4)), np.array([1, 0, 2, 2, 0], np.int32)
    near, far = [], []
    for a, y in enumerate(LABELS):
        for r, z in zip(refs, ref_labels, strict=True):
            (near if y == z else far).append(cosine(x[a], r))
    near = [0.9 - s for s in near if s < 0.9]
    far = [s - 0.5 for s in far if s > 0.5]
    found = compiled.call(
        losses.threshold_consistent_margin,
        x,
        LABELS,
        ref_embeddings=refs.astype(np.float32),
        ref_labels=ref_labels,
    )
    assert float(found) == pytest.approx(mean(near) + mean(far), rel=1e-5)


def test_circle_does_not_overflow_at_any_scale(x):
    for scale in (256.0, 1e4):
        value, gradient = jax.jit(jax.value_and_grad(losses.circle))(
            x, LABELS, scale=scale
        )
        expected = oracles.circle(np.asarray(x, np.float64), LABELS, scale=scale)
        assert float(value) == pytest.approx(expected, rel=1e-5)
        assert np.all(np.isfinite(gradient))


def test_weights_of_circle_and_ranked_list_give_no_gradient_to_hyperparameters(x):
    # d/dm of the weights is left out: at one pair each it can be written down.
    pair = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    labels = jnp.array([0, 0, 1])

    def first_anchor(margin):
        terms = losses.circle(
            pair, labels, margin=margin, scale=2.0, reduction=reductions.per_anchor
        )
        return terms[0]

    value, slope = jax.jit(jax.value_and_grad(first_anchor))(0.25)
    # s_p = 0.6, s_n = 0: logits 2 * 0.25 * (0 - m) and -2 * 0.65 * (0.6 - 1 + m).
    total = 2 * 0.25 * (0 - 0.25) - 2 * 0.65 * (0.6 - 1 + 0.25)
    assert float(value) == pytest.approx(np.logaddexp(0, total), rel=1e-5)
    weight = 1 / (1 + np.exp(-total))
    assert float(slope) == pytest.approx(weight * (-2 * 0.25 - 2 * 0.65), rel=1e-5)


def test_multi_similarity_mines_as_the_miner_of_that_name_does(x):
    miner = Partial(mining.on_similarities, miner=mining.multi_similarity)
    loss = Partial(losses.multi_similarity, x, LABELS, reduction=reductions.sum)
    np.testing.assert_allclose(
        loss(epsilon=0.1), loss(epsilon=None, pair_miner=miner), rtol=1e-6
    )


def test_snr_contrastive_does_not_depend_on_a_common_factor_or_shift(x):
    base = compiled.call(losses.snr_contrastive, x, LABELS)
    np.testing.assert_allclose(
        compiled.call(losses.snr_contrastive, 7.0 * x, LABELS), base, rtol=1e-5
    )
    np.testing.assert_allclose(
        compiled.call(losses.snr_contrastive, x + 3.0, LABELS), base, rtol=1e-4
    )


def test_intra_pair_variance_is_zero_where_similarities_are_alike():
    # Two orthogonal classes of one point each, and orthogonal ones to them.
    x = jnp.array([[1.0, 0, 0], [2.0, 0, 0], [0, 1.0, 0], [0, 3.0, 0]])
    assert (
        float(compiled.call(losses.intra_pair_variance, x, jnp.array([0, 0, 1, 1])))
        == 0.0
    )


def test_ranked_list_weighs_near_negatives_more(x):
    def push(temperature):
        loss = losses.ranked_list(
            x, LABELS, negative_temperature=temperature, balance=1.0, boundary=2.0
        )
        return float(loss)

    values = [push(t) for t in (0.0, 1.0, 10.0, 1000.0)]
    assert values == sorted(values)
    assert values[0] < values[-1]
