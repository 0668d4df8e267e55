"""Margins against the formulas on the angle, in float64, on a grid with both ends."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial

from metricjax import margins
from tests.oracles import margins as oracles

GRID = np.array(
    [
        *np.cos(np.linspace(0.05, math.pi - 0.05, 23)),
        *(1.0, 1 - 1e-9, 1 - 1e-6, 0.999, 0.0, -0.999, -1 + 1e-6, -1 + 1e-9, -1.0),
    ]
)
quick = settings(max_examples=25, deadline=None, derandomize=True)


def arcface(m, fallback, oracle):
    keywords = {"margin": m, "fallback": oracle}
    return (
        Partial(margins.arcface, margin=m, fallback=fallback),
        functools.partial(oracles.arcface, **keywords),
        functools.partial(oracles.arcface_slope, **keywords),
    )


def combined(margin, factor, angle, shift, monotone=True):
    keywords = {"factor": factor, "angle": angle, "monotone": monotone}
    return (
        margin,
        functools.partial(oracles.combined, shift=shift, **keywords),
        functools.partial(oracles.combined_slope, **keywords),
    )


# Name -> (margin, its value, its slope).
CASES = {
    "arcface": arcface(0.5, margins.safe, oracles.safe),
    "arcface wide": arcface(1.4, margins.safe, oracles.safe),
    "arcface easy": arcface(0.5, margins.easy, oracles.easy),
    "arcface continuous": arcface(0.9, margins.continuous, oracles.continuous),
    "cosface": (
        Partial(margins.cosface, margin=0.4),
        lambda c: c - 0.4,
        lambda c: 1.0,
    ),
    "sphereface": combined(margins.sphereface, 1.35, 0.0, 0.0),
    "sphereface 4": combined(Partial(margins.sphereface, margin=4.0), 4.0, 0.0, 0.0),
    "sphereface e": combined(
        Partial(margins.sphereface, margin=math.e), math.e, 0.0, 0.0
    ),
    "sphereface plain": combined(
        Partial(margins.sphereface, monotone=False), 1.35, 0.0, 0.0, False
    ),
    "combined": combined(margins.combined, 1.0, 0.3, 0.2),
    "combined second": combined(
        Partial(margins.combined, angle_factor=0.9, angle_shift=0.4, shift=0.15),
        0.9,
        0.4,
        0.15,
    ),
    "combined plain": combined(
        Partial(margins.combined, angle_factor=2.0, monotone=False),
        2.0,
        0.3,
        0.2,
        False,
    ),
}
every = pytest.mark.parametrize(
    ("margin", "value", "slope"), CASES.values(), ids=CASES.keys()
)


@every
@pytest.mark.usefixtures("x64")
def test_value_and_slope_equal_the_formulas_in_float64(margin, value, slope):
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(margin)))(GRID)
    for c, found, found_slope in zip(GRID, values, slopes, strict=True):
        assert float(found) == pytest.approx(value(c), abs=1e-12), c
        expected = slope(c)
        # At an end the angle itself is rounded: theta loses half of the digits.
        loose = 1e-4 if abs(c) > 1 - 1e-8 else 1e-9
        assert float(found_slope) == pytest.approx(expected, rel=loose, abs=1e-9), c


@every
def test_float32_keeps_its_digits_and_finite_slopes_on_the_whole_range(
    margin, value, slope
):
    grid = jnp.asarray(GRID, jnp.float32)
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(margin)))(grid)
    assert values.dtype == jnp.float32
    expected = [value(float(c)) for c in grid]
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=2e-6)
    assert np.all(np.isfinite(slopes))
    # What reaches an embedding is the slope times the sine of the angle.
    sine = np.sqrt(np.maximum(1 - np.square(np.float64(grid)), 0))
    assert np.max(np.abs(slopes) * sine) < 5


@every
def test_rounding_beyond_one_changes_little(margin, value, slope):
    beyond = jnp.array([1 + 1e-6, -1 - 1e-6], jnp.float32)
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(margin)))(beyond)
    np.testing.assert_allclose(values, [value(1.0), value(-1.0)], atol=1e-5)
    assert np.all(np.isfinite(slopes))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_cosines_are_computed_in_float32(dtype):
    cosine = jnp.asarray([0.99, 0.5, -0.99], dtype)
    for margin in (margins.arcface, margins.cosface, margins.sphereface):
        value, pullback = jax.vjp(margin, cosine)
        assert value.dtype == jnp.float32
        assert pullback(jnp.ones(3))[0].dtype == dtype


# --- the edges of the fallbacks -------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_safe_jumps_where_theta_plus_m_passes_pi():
    edge = -math.cos(0.5)
    above, at = (float(margins.arcface(c)) for c in (edge + 1e-9, edge))
    assert above == pytest.approx(-1.0, abs=1e-6)
    assert at == pytest.approx(-math.cos(0.5) - 0.5 * math.sin(0.5), abs=1e-6)
    assert at == pytest.approx(-1.117, abs=1e-3)


@pytest.mark.usefixtures("x64")
def test_continuous_does_not_jump_and_easy_leaves_obtuse_angles_alone():
    for m in (0.1, 0.5, 1.3, 3.0):
        edge = -math.cos(m)
        ends = [
            float(margins.arcface(c, margin=m, fallback=margins.continuous))
            for c in (edge + 1e-9, edge - 1e-9)
        ]
        assert ends[0] == pytest.approx(ends[1], abs=1e-7)
    obtuse = np.array([0.0, -0.3, -1.0])
    np.testing.assert_array_equal(
        margins.arcface(obtuse, fallback=margins.easy), obtuse
    )


# --- properties -----------------------------------------------------------------------

wide = jnp.linspace(-1.0, 1.0, 201)
monotone = {
    "sphereface": jax.jit(lambda m: margins.sphereface(wide, margin=1.0 + m)),
    "arcface continuous": jax.jit(
        lambda m: margins.arcface(wide, margin=m, fallback=margins.continuous)
    ),
    # Above 2.33 the authors' fallback lands above -1.
    "arcface safe": jax.jit(lambda m: margins.arcface(wide, margin=m * 0.75)),
    "combined": jax.jit(
        lambda m: margins.combined(wide, angle_factor=1.0 + m, angle_shift=m)
    ),
    "cosface": jax.jit(lambda m: margins.cosface(wide, margin=m)),
}


@pytest.mark.parametrize("name", monotone)
@given(m=st.floats(0.0, 3.0))
@quick
def test_a_larger_cosine_never_gives_a_smaller_target(name, m):
    values = monotone[name](m)
    assert np.min(np.diff(values)) > -1e-5
    # A margin never helps.
    assert np.all(values <= wide + 1e-5)


@pytest.mark.usefixtures("x64")
def test_without_a_margin_nothing_changes():
    grid = jnp.asarray(GRID)
    for margin in (
        Partial(margins.cosface, margin=0.0),
        Partial(margins.sphereface, margin=1.0),
        Partial(margins.arcface, margin=0.0),
        Partial(margins.arcface, margin=0.0, fallback=margins.continuous),
        Partial(margins.combined, angle_shift=0.0, shift=0.0),
    ):
        values, slopes = jax.jit(jax.vmap(jax.value_and_grad(margin)))(grid)
        np.testing.assert_allclose(values, grid, atol=1e-12)
        # Closer to the ends the slope of the angle is capped.
        inner = np.abs(GRID) <= 1 - 1e-6
        np.testing.assert_allclose(slopes[inner], 1.0, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_parameters_may_be_one_for_each_example():
    cosine = np.array([0.9, 0.1, -0.8])
    m = np.array([0.1, 0.5, 1.2])
    for function, name in (
        (Partial(margins.arcface), "margin"),
        (Partial(margins.cosface), "margin"),
        (Partial(margins.arcface, fallback=margins.continuous), "margin"),
        (Partial(margins.sphereface), "margin"),
        (Partial(margins.combined), "angle_shift"),
    ):
        found = jax.jit(function)(cosine, **{name: m})
        one = jax.jit(function)
        each = [float(one(c, **{name: k})) for c, k in zip(cosine, m, strict=True)]
        np.testing.assert_allclose(found, each, rtol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("function", "name", "at"),
    [
        (margins.arcface, "margin", 0.5),
        (Partial(margins.arcface, fallback=margins.continuous), "margin", 0.7),
        (margins.cosface, "margin", 0.3),
        (margins.sphereface, "margin", 2.2),
        (margins.combined, "angle_factor", 1.1),
        (margins.combined, "angle_shift", 0.3),
        (margins.combined, "shift", 0.2),
    ],
)
def test_a_traced_parameter_has_the_gradient_of_the_formula(function, name, at):
    grid = jnp.asarray(GRID[:23])

    @jax.jit
    def values(m):
        return function(grid, **{name: m})

    slopes = jax.jit(jax.jacobian(values))(at)
    expected = (values(at + 1e-6) - values(at - 1e-6)) / 2e-6
    np.testing.assert_allclose(slopes, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.usefixtures("x64")
def test_the_slope_of_arcface_in_its_margin_is_minus_the_sine():
    cosine, m = 0.3, 0.5
    slope = jax.grad(lambda m: margins.arcface(cosine, margin=m))(m)
    assert float(slope) == pytest.approx(-math.sin(math.acos(cosine) + m))


def test_vmap_over_margins_inside_jit_is_a_loop():
    cosine = jnp.asarray(GRID, jnp.float32)
    m = jnp.array([0.1, 0.4, 0.8])
    found = jax.jit(jax.vmap(lambda m: margins.arcface(cosine, margin=m)))(m)
    for row, each in zip(found, m, strict=True):
        np.testing.assert_allclose(
            row, margins.arcface(cosine, margin=each), rtol=1e-6, atol=1e-6
        )


def test_straight_through_has_the_value_of_the_margin_and_slope_one():
    cosine = jnp.asarray(GRID, jnp.float32)
    margin = Partial(margins.arcface, margin=0.7)
    through = Partial(margins.straight_through, margin=margin)
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(through)))(cosine)
    np.testing.assert_array_equal(values, jax.jit(margin)(cosine))
    np.testing.assert_array_equal(slopes, 1.0)
    # Nor does the margin learn anything from it.
    blind = jax.grad(
        lambda m: margins.straight_through(
            jnp.float32(0.3), margin=Partial(margins.arcface, margin=m)
        )
    )
    assert float(blind(0.5)) == 0.0
