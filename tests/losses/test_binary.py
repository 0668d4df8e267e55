"""Sigmoid losses over classes: where they start, and how they relate."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metricjax import heads, losses, margins, numerics
from tests import compiled

LABELS = jnp.array([0, 1, 2, 0], jnp.int32)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("classes", [2, 50])
def test_sphereface2_starts_at_the_best_bias_for_cosines_of_zero(classes: int):
    # Embeddings that are orthogonal to every class.
    x, w = jnp.eye(4, classes + 4), jnp.eye(classes, classes + 4, 4)
    labels = jnp.arange(4, dtype=jnp.int32) % classes
    slope = jax.jit(jax.grad(losses.sphereface2, argnums=2))
    bias = heads.init_sphereface2_bias(classes)
    for offset, sign in ((-0.01, -1), (0.01, 1)):
        found = float(slope(x, w, bias + offset, labels))
        # Convex, so that the slope changes its sign at the best bias.
        assert np.sign(found) == sign
        assert abs(found) > 1e-10


def test_uniface_keeps_pulling_where_the_clamp_of_its_code_lets_go():
    x, w = jnp.array([[-1.0, 0.1]]), jnp.eye(2)
    threshold = heads.init_uniface_threshold(2)
    gradient = compiled.grad(losses.uniface, x, w, threshold, LABELS[:1])
    # s (c - m) - b is about -93, beyond -s = -64.
    assert float(gradient[0, 1]) != 0.0
    assert float(threshold) == pytest.approx(np.log(20.0))


def test_sphereface2_without_margin_and_stretch_is_a_plain_sigmoid(rng):
    x = jnp.asarray(rng.normal(size=(4, 5)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(3, 5)), jnp.float32)

    @jax.jit
    def every(x, w):
        loss = partial(losses.sphereface2, margin=0.0, exponent=1.0, balance=0.5)
        return (
            losses.margin_sigmoid(
                x, w, -1.0, LABELS, margin=numerics.promote, scale=8.0
            ),
            loss(x, w, -1.0, LABELS, scale=8.0),
            losses.uniface(x, w, 1.0, LABELS, margin=0.0, scale=8.0),
        )

    plain, found, threshold = every(x, w)
    assert float(found) == pytest.approx(float(plain) / 16.0, rel=1e-5)
    assert float(threshold) == pytest.approx(float(plain), rel=1e-5)


def test_detached_sphereface2_has_the_value_with_margin_and_a_gradient_without(rng):
    x = jnp.asarray(rng.normal(size=(4, 5)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(3, 5)), jnp.float32)
    cosine = np.asarray(compiled.call(heads.cosine_logits, x, w))
    is_target = np.eye(3, dtype=bool)[np.asarray(LABELS)]
    true = margins.sphereface2(cosine)
    other = margins.sphereface2_others(cosine, 0.0)
    logits = 40.0 * np.where(is_target, true, other) - 2.0
    # dL/dc_j with r dc in the place of the slope of the margin.
    probability = 1 / (1 + np.exp(-logits))
    slope = np.where(is_target, 0.7 * (probability - 1), 0.3 * probability)

    def surrogate(x):
        return jnp.sum(slope * heads.cosine_logits(x, w)) / 4

    found = compiled.grad(losses.sphereface2, x, w, -2.0, LABELS, detached=True)
    expected = compiled.grad(surrogate, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_p2sgrad_differs_from_the_mean_over_classes_by_a_factor(rng):
    x = jnp.asarray(rng.normal(size=(4, 5)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(3, 5)), jnp.float32)
    cosine = np.asarray(compiled.call(heads.cosine_logits, x, w))
    mean = np.mean(np.square(cosine - np.eye(3)[np.asarray(LABELS)]))
    found = compiled.call(losses.p2sgrad, x, w, LABELS)
    assert float(mean) == pytest.approx(2 / 3 * float(found), rel=1e-5)
