"""Safe building blocks: right values, and finite gradients at the edges."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from metricjax import numerics

quick = settings(max_examples=50, deadline=None, derandomize=True)


@pytest.mark.parametrize(
    ("given", "computed"),
    [
        (jnp.bfloat16, jnp.float32),
        (jnp.float16, jnp.float32),
        (jnp.float32, jnp.float32),
        (jnp.int32, jnp.float32),
        (jnp.bool_, jnp.float32),
    ],
)
def test_promote_computes_in_at_least_float32(given, computed):
    assert numerics.promote(jnp.ones(2, given)).dtype == computed
    assert numerics.promote(1.5).dtype == jnp.float32


@pytest.mark.usefixtures("x64")
def test_float64_stays_float64():
    x = jnp.ones((2, 2))
    for out in (
        numerics.promote(x),
        numerics.sqrt(x),
        numerics.norm(x),
        numerics.l2_normalize(x),
        numerics.matmul(x, x.astype(jnp.bfloat16)),
        numerics.sine(x),
        numerics.divide(x, x),
    ):
        assert out.dtype == jnp.float64


def test_sqrt_has_slope_zero_where_the_true_one_is_infinite():
    x = jnp.array([-1e-7, 0.0, 1e-30, 4.0, 1e30])
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(numerics.sqrt)))(x)
    np.testing.assert_allclose(values, [0, 0, 1e-15, 2, 1e15], rtol=1e-6)
    np.testing.assert_allclose(slopes, [0, 0, 5e14, 0.25, 5e-16], rtol=1e-6)
    assert float(jax.grad(lambda x: 0.0 * numerics.sqrt(x))(0.0)) == 0.0


def test_norm_and_l2_normalize_survive_any_scale():
    x = jnp.array([3.0, 4.0])
    scales = jnp.array([1e-30, 1e-6, 1.0, 1e30])
    np.testing.assert_allclose(
        numerics.norm(scales[:, None] * x), 5 * scales, rtol=1e-6
    )
    unit = numerics.l2_normalize(scales[:, None] * x)
    np.testing.assert_allclose(unit, jnp.tile(x / 5, (4, 1)), rtol=1e-6)


def test_the_zero_vector_has_norm_zero_and_stays_zero_with_zero_gradient():
    zero = jnp.zeros(3)
    assert float(numerics.norm(zero)) == 0.0
    np.testing.assert_array_equal(jax.jit(jax.grad(numerics.norm))(zero), 0.0)
    np.testing.assert_array_equal(numerics.l2_normalize(zero), 0.0)
    jacobian = jax.jit(jax.jacobian(numerics.l2_normalize))(zero)
    np.testing.assert_array_equal(jacobian, 0.0)


@pytest.mark.usefixtures("x64")
def test_norm_and_l2_normalize_have_the_gradients_of_their_formulas():
    x = np.random.default_rng(0).normal(size=4)
    length = math.sqrt(sum(a * a for a in x))
    np.testing.assert_allclose(
        jax.jit(jax.grad(numerics.norm))(x), x / length, rtol=1e-12
    )
    jacobian = jax.jit(jax.jacobian(numerics.l2_normalize))(x)
    expected = (np.eye(4) - np.outer(x, x) / length**2) / length
    np.testing.assert_allclose(jacobian, expected, rtol=1e-10)


def test_axes_and_keepdims_of_norm():
    x = jnp.ones((2, 3, 4))
    assert numerics.norm(x, axis=1).shape == (2, 4)
    assert numerics.norm(x, axis=1, keepdims=True).shape == (2, 1, 4)
    np.testing.assert_allclose(numerics.l2_normalize(x, axis=0), 2**-0.5, rtol=1e-6)


rows = arrays.arrays(
    np.float32, (3, 4), elements=st.floats(-200, 200, width=32, allow_subnormal=False)
)
chosen = arrays.arrays(np.bool_, (3, 4))


logsumexp, softplus_sum = jax.jit(numerics.logsumexp), jax.jit(numerics.softplus_sum)


@given(x=rows, where=chosen)
@quick
def test_masked_sums_of_exponentials_equal_loops(x, where):
    found, plus_one = logsumexp(x, where), softplus_sum(x, where)
    for i in range(3):
        terms = [float(v) for v, keep in zip(x[i], where[i], strict=True) if keep]
        expected = np.logaddexp.reduce([*terms, -np.inf])
        np.testing.assert_allclose(found[i], expected, rtol=1e-5, atol=1e-5)
        expected = np.logaddexp.reduce([*terms, 0.0])
        np.testing.assert_allclose(plus_one[i], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("function", [numerics.logsumexp, numerics.softplus_sum])
def test_what_is_masked_out_may_be_anything_and_gets_no_gradient(function):
    x = jnp.array([[0.0, 1.0, jnp.inf], [1e30, -1e30, jnp.nan], [1.0, 2.0, 3.0]])
    where = jnp.array([[True, True, False], [True, True, False], [False] * 3])

    @jax.jit
    def both(x):
        value, pullback = jax.vjp(lambda x: function(x, where), x)
        return value, pullback(jnp.ones(3))[0]

    value, gradient = both(x)
    np.testing.assert_array_equal(gradient[~where], 0.0)
    assert np.all(np.isfinite(gradient))
    assert np.all(np.isfinite(value[:2]))
    # The softmax weights, and nothing for a row without entries.
    ones = np.exp([0.0, 1.0]) / (np.sum(np.exp([0.0, 1.0])))
    if function is numerics.logsumexp:
        np.testing.assert_allclose(gradient[0, :2], ones, rtol=1e-6)
        assert value[2] == -np.inf
    else:
        assert value[2] == 0.0


def test_softplus_sum_keeps_a_small_sum():
    value = numerics.softplus_sum(jnp.array([-30.0]), jnp.array([True]))
    assert float(value) == pytest.approx(math.exp(-30.0), rel=1e-6)


def test_divide_by_zero_is_zero_with_zero_gradient():
    slopes = jax.jit(jax.grad(numerics.divide, argnums=(0, 1)))
    assert float(numerics.divide(3.0, 0.0)) == 0.0
    assert [float(x) for x in slopes(3.0, 0.0)] == [0.0, 0.0]
    assert [float(x) for x in slopes(3.0, 2.0)] == [0.5, -0.75]


def test_matmul_accumulates_in_float32():
    x = jnp.ones((1, 4096), jnp.bfloat16) * 0.1
    exact = 4096 * float(x[0, 0]) ** 2
    # In bfloat16 a sum stops growing at 256 times a term.
    assert float(numerics.matmul(x, x.T)[0, 0]) == pytest.approx(exact, rel=1e-5)


def test_mask_rows_silences_padding_and_checks_it():
    x = jnp.array([[1.0, 2.0], [jnp.nan, jnp.inf]])
    where = jnp.array([True, False])

    def total(x):
        return jnp.sum(jnp.square(numerics.mask_rows(x, where)))

    value, gradient = jax.jit(jax.value_and_grad(total))(x)
    assert float(value) == 5.0
    np.testing.assert_array_equal(gradient, [[2.0, 4.0], [0.0, 0.0]])
    assert numerics.mask_rows(x, None).shape == (2, 2)
    with pytest.raises(TypeError, match="dtype bool"):
        numerics.mask_rows(x, jnp.ones(2))
    with pytest.raises(ValueError, match=r"\[2\]"):
        numerics.mask_rows(x, jnp.ones(3, bool))


def test_straight_through_has_the_value_of_one_and_the_slope_of_the_other():
    def stepped(x):
        return numerics.straight_through(jnp.round(x), jnp.square(x))

    value, slope = jax.value_and_grad(stepped)(0.7)
    assert (float(value), float(slope)) == (1.0, pytest.approx(1.4))
    assert float(jax.jvp(stepped, (0.7,), (1.0,))[1]) == pytest.approx(1.4)


def test_sine_is_right_to_the_last_digits_and_its_slope_is_capped():
    c = np.array([-1.0, -0.9999, -0.5, 0.0, 0.3, 0.999999, 1.0], np.float32)
    sine_and_slope = jax.jit(jax.vmap(jax.value_and_grad(numerics.sine)))
    values, slopes = sine_and_slope(jnp.asarray(c))
    exact = [math.sqrt((1 - v) * (1 + v)) for v in c.tolist()]
    np.testing.assert_allclose(values, exact, rtol=1e-6)
    for v, s, slope in zip(c.tolist(), exact, slopes, strict=True):
        assert float(slope) == pytest.approx(-v / max(s, numerics.MIN_SINE), rel=1e-6)
    assert numerics.MIN_SINE == 1 / 2048
    # Cosines beyond one by rounding.
    values, slopes = sine_and_slope(jnp.array([1.0001, -2.0]))
    np.testing.assert_array_equal(values, 0.0)
    assert np.all(np.isfinite(slopes))
