"""Center loss, alone and beside a softmax."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metricjax import losses, memory, reductions

CLASSES, DIM = 4, 3
LABELS = np.array([0, 0, 1, 3, 0, 3, 0, 1], np.int32)  # class 2 is absent


@pytest.fixture
def inputs(rng) -> tuple[Any, Any]:
    """Centers and embeddings, float32."""
    centers = rng.normal(size=(CLASSES, DIM)).astype(np.float32)
    return centers, rng.normal(size=(len(LABELS), DIM)).astype(np.float32)


def test_the_cost_of_an_example_does_not_depend_on_its_batch(inputs):
    centers, x = inputs
    each = functools.partial(losses.center, reduction=reductions.per_anchor)
    np.testing.assert_allclose(
        each(x, centers, LABELS)[:2], each(x[:2], centers, LABELS[:2]), rtol=1e-6
    )


def test_the_joint_loss_is_softmax_plus_center_and_its_factor_can_be_learned(inputs):
    centers, x = inputs
    w = np.flip(centers, axis=1)

    def loss(factor):
        return losses.center_softmax(x, w, centers, LABELS, center_weight=factor)

    value, slope = jax.jit(jax.value_and_grad(loss))(0.07)
    logits = jnp.asarray(x) @ w.T
    hit = jnp.take_along_axis(logits, LABELS[:, None], axis=1)[:, 0]
    softmax = jnp.mean(jax.nn.logsumexp(logits, axis=1) - hit)
    center = losses.center(x, centers, LABELS)
    np.testing.assert_allclose(value, softmax + 0.07 * center, rtol=1e-5)
    np.testing.assert_allclose(slope, center, rtol=1e-5)


def test_training_with_centers_tightens_the_classes(rng):
    labels = jnp.asarray(np.arange(32) % CLASSES, jnp.int32)
    start = [rng.normal(size=(32, 2)), rng.normal(size=(CLASSES, 2))]
    start = [jnp.asarray(x, jnp.float32) for x in start]

    @jax.jit
    def train(center_weight):
        def step(state, _):
            params, centers = state
            loss = functools.partial(losses.center_softmax, center_weight=center_weight)
            value, slopes = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(
                *params, centers, labels
            )
            centers = memory.update_centers(centers, params[0], labels)
            params = [x - slope for x, slope in zip(params, slopes, strict=True)]
            return (params, centers), value

        state = (start, jnp.zeros((CLASSES, 2)))
        (params, _), values = jax.lax.scan(step, state, length=200)
        return params[0], values

    spreads = []
    for center_weight in (0.0, 0.5):
        x, values = train(center_weight)
        assert float(values[-1]) < float(values[0])
        means = jnp.stack([x[labels == j].mean(axis=0) for j in range(CLASSES)])
        within = jnp.mean(jnp.square(x - means[labels]))
        spreads.append(float(within / jnp.mean(jnp.square(means))))
    assert spreads[1] < 0.1 * spreads[0]


def test_centers_of_another_number_than_classes_are_refused(inputs):
    centers, x = inputs
    with pytest.raises(ValueError, match="one center for each class"):
        losses.center_softmax(x, centers, centers[:-1], LABELS)
