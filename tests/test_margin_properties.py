"""Margins of the catalogue: their ends, their formulas, and that they only fall."""

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
from tests.oracles import losses_classes as oracles
from tests.oracles.losses import psi

ANGLES = np.linspace(0.0, np.pi, 181)
GRID = jnp.asarray(np.cos(ANGLES), jnp.float32)
TARGET = jnp.zeros((181, 1), jnp.float32)

OFF = {
    "arcface": Partial(margins.arcface, margin=0.0),
    "arcface_easy": Partial(margins.arcface, margin=0.0, fallback=margins.easy),
    "arcface_continuous": Partial(
        margins.arcface, margin=0.0, fallback=margins.continuous
    ),
    "cosface": Partial(margins.cosface, margin=0.0),
    "sphereface": Partial(margins.sphereface, margin=1.0),
    "combined": Partial(margins.combined, angle_shift=0.0, shift=0.0),
    "sphereface_r": Partial(margins.sphereface_r, margin=1.0),
    "adaface": Partial(margins.adaface, margin=0.0, quality=0.3),
    "sphereface2": Partial(margins.sphereface2, margin=0.0, exponent=1.0),
    "annealed": Partial(
        margins.annealed, margin=Partial(margins.cosface, margin=0.0), annealing=3.0
    ),
}
OTHERS_OFF = {
    "mv_softmax": Partial(margins.mv_softmax_others, emphasis=1.0),
    "sphereface_r": Partial(margins.sphereface_r_others, margin=1.0),
    "sphereface2": Partial(margins.sphereface2_others, margin=0.0, exponent=1.0),
}
DEFAULTS = [
    margins.arcface,
    margins.cosface,
    margins.sphereface,
    margins.combined,
    margins.sphereface_r,
    margins.li_arcface,
    margins.sphereface2,
    Partial(margins.adaface, quality=-0.5),
    Partial(margins.annealed, margin=margins.sphereface, annealing=5.0),
    Partial(margins.straight_through, margin=margins.arcface),
]
OTHERS = [
    Partial(margins.curricularface_others, curriculum=0.3),
    Partial(margins.mv_softmax_others),
    Partial(margins.sphereface_r_others),
    Partial(margins.li_arcface_others),
    Partial(margins.sphereface2_others),
    Partial(margins.straight_through_others, others=margins.li_arcface_others),
]


@pytest.mark.parametrize("name", OFF)
def test_no_margin_is_the_plain_cosine(name: str):
    # AdaFace alone keeps its angle 0.001 away from the ends.
    np.testing.assert_allclose(OFF[name](GRID), GRID, atol=1e-6)


@pytest.mark.parametrize("name", OTHERS_OFF)
def test_others_without_effect_are_the_plain_cosine(name: str):
    found = OTHERS_OFF[name](GRID, TARGET[:1, 0])
    np.testing.assert_allclose(found, GRID, atol=1e-6)


def test_linear_margin_off_is_linear_in_the_angle():
    linear = 1 - 2 * ANGLES / np.pi
    found = margins.li_arcface(GRID, margin=0.0)
    np.testing.assert_allclose(found, linear, atol=1e-6)
    np.testing.assert_allclose(margins.li_arcface_others(GRID, GRID), linear, atol=1e-6)


def falls(margin) -> bool:
    values = np.asarray(margin(GRID))
    return bool(np.all(np.diff(values) <= 2e-6))


floats = functools.partial(st.floats, allow_nan=False, width=32)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(angle=floats(0.0, 3.0), factor=floats(1.0, 6.0), quality=floats(-1.0, 1.0))
def test_every_margin_falls_with_the_angle(angle, factor, quality):
    assert falls(Partial(margins.arcface, margin=angle, fallback=margins.continuous))
    assert falls(Partial(margins.cosface, margin=angle))
    assert falls(Partial(margins.sphereface, margin=factor))
    assert falls(Partial(margins.sphereface_r, margin=factor))
    assert falls(Partial(margins.li_arcface, margin=angle))
    assert falls(Partial(margins.adaface, margin=angle / 4, quality=quality))
    assert falls(Partial(margins.sphereface2, margin=angle, exponent=factor))
    assert falls(Partial(margins.sphereface_r_others, target=TARGET, margin=factor))


def test_safe_arcface_jumps_down_and_easy_arcface_up():
    gaps = np.diff(np.asarray(margins.arcface(GRID)))
    assert falls(margins.arcface)
    # From -1 to -cos m - m sin m.
    jump = 1 - math.cos(0.5) - 0.5 * math.sin(0.5)
    assert gaps.min() == pytest.approx(jump, abs=0.02)
    assert not falls(Partial(margins.arcface, fallback=margins.easy))
    assert not falls(Partial(margins.sphereface, monotone=False))


@pytest.mark.parametrize("margin", DEFAULTS)
def test_gradients_of_targets_are_finite_at_both_ends(margin):
    ends = jnp.array([1.0, 1.0 + 2e-7, 1.0 - 1e-7, -1.0, -1.0 - 2e-7, 0.0])
    values, slopes = jax.vmap(jax.value_and_grad(margin))(ends)
    assert np.all(np.isfinite(values))
    assert np.all(np.isfinite(slopes))


@pytest.mark.parametrize("others", OTHERS)
def test_gradients_of_others_are_finite_at_both_ends(others):
    ends = jnp.array([[1.0, 1.0 + 2e-7, 1.0 - 1e-7, -1.0, -1.0 - 2e-7, 0.0]])

    def total(cosine, target):
        return jnp.sum(others(cosine, target))

    for target in (-1.0, 0.0, 1.0):
        slopes = jax.grad(total)(ends, jnp.array([[target]]))
        assert np.all(np.isfinite(slopes))


@pytest.mark.usefixtures("x64")
def test_adaface_goes_from_arcface_over_cosface_to_a_negative_angle():
    below = ANGLES[np.abs(ANGLES - np.pi / 2) < np.pi / 2 - 0.5]
    cosine = jnp.cos(below)
    at = [margins.adaface(cosine, quality=z, margin=0.4) for z in (-1.0, 0.0, 1.0)]
    np.testing.assert_allclose(at[0], margins.arcface(cosine, margin=0.4), atol=1e-12)
    np.testing.assert_allclose(at[1], margins.cosface(cosine, margin=0.4), atol=1e-12)
    np.testing.assert_allclose(at[2], np.cos(below - 0.4) - 0.8, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_targets_equal_their_loops():
    cosine = jnp.cos(jnp.asarray(ANGLES))
    loops = [
        (
            margins.sphereface_r(cosine),
            lambda c: math.cos(min(1.5 * oracles.angle(c), math.pi)),
        ),
        (margins.sphereface2(cosine), lambda c: oracles.stretched(c) - 0.4),
        (
            margins.li_arcface(cosine),
            lambda c: 1 - 2 * (oracles.angle(c) + 0.45) / math.pi,
        ),
        (margins.adaface(cosine, quality=0.3), lambda c: oracles.adaface(c, 0.3)),
        (
            margins.annealed(cosine, margin=margins.sphereface, annealing=3.0),
            lambda c: (3 * c + psi(1.35 * oracles.angle(c))) / 4,
        ),
    ]
    for found, loop in loops:
        expected = [loop(float(c)) for c in cosine]
        np.testing.assert_allclose(found, expected, atol=2e-8)


@pytest.mark.usefixtures("x64")
def test_others_equal_their_loops():
    cosine, target = jnp.cos(jnp.asarray(ANGLES))[None], jnp.array([[0.2]])
    loops = [
        lambda c: oracles.curricularface_other(c, 0.2, 0.3),
        lambda c: oracles.mv_softmax_other(c, 0.2),
        lambda c: math.cos(oracles.angle(c) / 1.5),
        lambda c: 1 - 2 * oracles.angle(c) / math.pi,
        lambda c: oracles.stretched(c) + 0.4,
    ]
    for others, loop in zip(OTHERS[:5], loops, strict=True):
        expected = [loop(float(c)) for c in cosine[0]]
        np.testing.assert_allclose(others(cosine, target)[0], expected, atol=2e-8)
    fixed = margins.mv_softmax_others(cosine, target, adaptive=False)
    np.testing.assert_allclose(fixed - cosine, 0.2 * (cosine > 0.2), atol=1e-12)


def test_quality_and_magnitude_margins_equal_their_loops(rng):
    x = rng.normal(size=(20, 3)) * rng.uniform(0.1, 90.0, size=(20, 1))
    norms = jnp.asarray(np.linalg.norm(x, axis=1), jnp.float32)
    quality = margins.adaface_quality(norms, mean=40.0, std=15.0)
    expected = [oracles.adaface_quality(row, 40.0, 15.0) for row in x]
    np.testing.assert_allclose(quality, expected, rtol=1e-5, atol=1e-6)
    margin = margins.magface_margin(norms)
    expected = [oracles.magface_margin(row) for row in x]
    np.testing.assert_allclose(margin, expected, rtol=1e-5)


def test_annealing_falls_to_its_end():
    steps = jnp.arange(0, 30_000, 1000)
    values = np.asarray(margins.sphereface_annealing(steps))
    expected = [max(5.0, 1000.0 / (1 + 0.12 * int(step))) for step in steps]
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    assert values[0] == 1000.0
    assert values[-1] == 5.0


def test_straight_through_keeps_values_and_gives_the_gradient_of_the_cosine():
    row, target = GRID[None], jnp.array([[0.1]])
    for others in OTHERS[:5]:
        through = Partial(margins.straight_through_others, others=others)
        value, pullback = jax.vjp(lambda c, f=through: f(c, target), row)
        np.testing.assert_allclose(value, others(row, target), atol=5e-7)
        np.testing.assert_array_equal(pullback(jnp.ones_like(row))[0], 1.0)
