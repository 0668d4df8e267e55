"""Regularisers at their edges."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metricjax import losses
from tests.oracles import losses_regularizers as oracles


@pytest.mark.parametrize(("order", "power"), [(1.0, 1.0), (2.0, 2.0), (4.0, 0.5)])
def test_norms_of_any_order_and_power(order, power, rng):
    x = rng.normal(size=(6, 4))
    value = losses.lp_norm(jnp.asarray(x, jnp.float32), order=order, power=power)
    expected = oracles.lp_norm(x, order=order, power=power)
    assert float(value) == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("x64")
def test_order_and_power_can_be_traced(rng):
    x = rng.normal(size=(6, 4))
    slopes = jax.jit(
        jax.grad(lambda p, q: losses.lp_norm(x, order=p, power=q), (0, 1))
    )(3.0, 2.0)
    for slope, step in zip(slopes, ((1e-6, 0.0), (0.0, 1e-6)), strict=True):
        ends = [
            oracles.lp_norm(x, order=3.0 + s * step[0], power=2.0 + s * step[1])
            for s in (1, -1)
        ]
        assert float(slope) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6)


@pytest.mark.parametrize(("order", "power"), [(1.0, 0.5), (2.0, 1.0), (3.0, 2.0)])
def test_the_zero_vector_has_no_norm_and_no_slope(order, power):
    loss = functools.partial(losses.lp_norm, order=order, power=power)
    value, slope = jax.jit(jax.value_and_grad(loss))(jnp.zeros((2, 3)))
    assert float(value) == 0.0
    np.testing.assert_array_equal(slope, 0.0)


def test_a_norm_overflows_only_where_it_is_too_large_itself():
    x = jnp.array([[3e30, 4e30], [3e-30, 4e-30]])
    terms: Any = losses.lp_norm(x, reduction=None)
    np.testing.assert_allclose(terms.total, [5e30, 5e-30], rtol=1e-6)


def test_zero_mean_is_of_the_entries_of_an_embedding_not_of_the_batch():
    assert float(losses.zero_mean(jnp.array([[1.0, 1.0], [-1.0, -1.0]]))) == 2.0
    assert float(losses.zero_mean(jnp.array([[1.0, -1.0], [1.0, -1.0]]))) == 0.0


def test_classes_of_one_length_are_center_invariant():
    w = jnp.array([[3.0, 4.0], [-5.0, 0.0], [0.0, 5.0]])
    assert float(losses.center_invariant(w)) == 0.0
    # Three times the length: 45^2 against mean (25 + 25 + 225) / 3.
    value = losses.center_invariant(w.at[2].mul(3.0))
    squares = np.array([25.0, 25.0, 225.0])
    assert float(value) == pytest.approx(np.mean((squares - squares.mean()) ** 2) / 4)


def test_regularface_pushes_the_two_nearest_classes_apart():
    w = jnp.array([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.0, 0.0, 1.0]])
    moved = w - 0.1 * jax.jit(jax.grad(losses.regularface))(w)

    def angle(w):
        return jnp.arccos(w[0] @ w[1] / jnp.linalg.norm(w[0]) / jnp.linalg.norm(w[1]))

    assert float(angle(moved)) > float(angle(w))


def test_one_class_has_no_neighbour():
    value, slope = jax.jit(jax.value_and_grad(losses.regularface))(jnp.ones((1, 3)))
    assert float(value) == 0.0
    np.testing.assert_array_equal(slope, 0.0)


def test_regularface_at_many_classes_holds_no_square():
    classes = 4096
    w = jax.ShapeDtypeStruct((classes, 8), jnp.float32)
    compiled = jax.jit(jax.value_and_grad(losses.regularface)).lower(w).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < classes * classes * 4 / 4


def test_near_centers_keep_the_digits_of_their_distance():
    # The cosine of these two is 1 - 5e-9: in float32 it is one.
    centers = jnp.array([[[1.0, 0.0], [1.0, 1e-4]]])
    value, slope = jax.jit(jax.value_and_grad(losses.sparse_centers))(centers)
    assert float(value) == pytest.approx(1e-4 / 2, rel=1e-4)
    # A norm pulls with full strength however small it is.
    np.testing.assert_allclose(slope[0, :, 1], [-0.5, 0.5], rtol=1e-3)


def test_centers_that_met_stay_together():
    centers = jnp.ones((2, 3, 4))
    value, slope = jax.jit(jax.value_and_grad(losses.sparse_centers))(centers)
    assert float(value) == 0.0
    np.testing.assert_array_equal(slope, 0.0)


def test_sparse_centers_compares_no_two_classes():
    classes, k = 1024, 4
    centers = jax.ShapeDtypeStruct((classes, k, 8), jnp.float32)
    compiled = jax.jit(jax.value_and_grad(losses.sparse_centers)).lower(centers)
    memory = compiled.compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < (classes * k) ** 2 / 8
