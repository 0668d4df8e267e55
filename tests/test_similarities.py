"""Similarities against loops in float64."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from metricjax import cohorts, distances, similarities
from tests.oracles import distances as oracles


def gaussian(x, y, *, bandwidth):
    return math.exp(-oracles.squared_euclidean(x, y) / (2 * bandwidth**2))


# Items that no pair has, unit vectors of which are what counts.
OTHERS = np.random.default_rng(5).normal(size=(9, 5)) + 0.5


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def moments(x):
    mean = x.mean(axis=0)
    return cohorts.Cohort(mean, (x - mean).T @ (x - mean) / len(x))


def s_norm(x, y):
    """Every item of the cohort, one after the other."""
    score, found = oracles.cosine_similarity(x, y), 0.0
    for item in (x, y):
        with_others = [oracles.cosine_similarity(item, other) for other in OTHERS]
        found += (score - np.mean(with_others)) / np.std(with_others) / 2
    return found


# Name -> (similarity, oracle of two vectors).
CASES = {
    "dot": (similarities.dot, oracles.dot),
    "cosine": (similarities.cosine, oracles.cosine_similarity),
    "gaussian": (
        Partial(similarities.gaussian, distance=distances.euclidean, bandwidth=0.7),
        functools.partial(gaussian, bandwidth=0.7),
    ),
    "negative": (
        Partial(similarities.negative, distance=distances.manhattan),
        lambda x, y: -oracles.manhattan(x, y),
    ),
    "s_norm": (
        Partial(
            similarities.s_norm,
            cohort=moments(unit(OTHERS)),
        ),
        s_norm,
    ),
}
every = pytest.mark.parametrize(
    ("similarity", "oracle"), CASES.values(), ids=CASES.keys()
)


def two_sides(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(4, 5)), rng.normal(size=(3, 5))


@every
@pytest.mark.usefixtures("x64")
def test_value_and_gradient_equal_the_loops_in_float64(similarity, oracle):
    x, y = two_sides()
    step = np.random.default_rng(1).normal(size=x.shape)

    @jax.jit
    def both(x):
        out, pullback = jax.vjp(lambda x: similarity(x, y), x)
        return out, pullback(jnp.ones_like(out))[0]

    out, gradient = both(x)
    np.testing.assert_allclose(out, oracles.matrix(oracle, x, y), rtol=1e-12)
    ends = [np.sum(oracles.matrix(oracle, x + e * step, y)) for e in (1e-6, -1e-6)]
    assert np.vdot(gradient, step) == pytest.approx(
        (ends[0] - ends[1]) / 2e-6, rel=1e-7
    )


@every
def test_low_precision_edges_and_a_missing_side(similarity, oracle):
    x = jnp.asarray(two_sides(2)[0], jnp.bfloat16)
    edges = jnp.stack([x, 0 * x, jnp.broadcast_to(x[:1], x.shape), x * 1e4])

    def one(x):
        out, pullback = jax.vjp(similarity, x)
        return out, pullback(jnp.ones_like(out))[0], similarity(x, x)

    out, gradient, both = jax.jit(jax.vmap(one))(edges)
    assert out.dtype == jnp.float32
    assert gradient.dtype == jnp.bfloat16
    assert np.all(np.isfinite(out))
    assert np.all(np.isfinite(gradient.astype(jnp.float32)))
    np.testing.assert_allclose(out, both, rtol=1e-6, atol=1e-6)
    rows = np.asarray(x, np.float64)
    expected = oracles.matrix(oracle, rows, rows)
    np.testing.assert_allclose(out[0], expected, rtol=1e-5, atol=1e-6)


@every
def test_bad_shapes_are_refused(similarity, oracle):
    x = jnp.zeros((4, 5))
    with pytest.raises(ValueError, match=r"\[rows, dim\]"):
        similarity(x[0], x)
    with pytest.raises(ValueError, match="same last axis"):
        similarity(x, x[:, :3])
    with pytest.raises(TypeError, match="floating"):
        similarity(x.astype(int))


def test_a_zero_vector_is_similar_to_nothing_with_zero_gradient():
    x = jnp.zeros((1, 3))

    def total(x):
        return similarities.cosine(x, jnp.ones((2, 3))).sum()

    value, gradient = jax.jit(jax.value_and_grad(total))(x)
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.usefixtures("x64")
def test_the_bandwidth_is_differentiable():
    x, y = two_sides(3)

    def total(bandwidth):
        kernel = similarities.gaussian(
            x, y, distance=distances.euclidean, bandwidth=bandwidth
        )
        return kernel.sum()

    def loops(bandwidth):
        between = functools.partial(gaussian, bandwidth=bandwidth)
        return np.sum(oracles.matrix(between, x, y))

    expected = (loops(1.5 + 1e-6) - loops(1.5 - 1e-6)) / 2e-6
    assert float(jax.jit(jax.grad(total))(1.5)) == pytest.approx(expected, rel=1e-7)
