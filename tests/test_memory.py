"""State of losses: how it moves."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from metricjax import losses, memory
from tests.oracles import losses_centers as oracles

CLASSES, DIM = 4, 3
LABELS = np.array([0, 0, 1, 3, 0, 3, 0, 1], np.int32)  # class 2 is absent


@pytest.fixture
def inputs(rng) -> tuple[Any, Any]:
    """Centers and embeddings, float32."""
    centers = rng.normal(size=(CLASSES, DIM)).astype(np.float32)
    return centers, rng.normal(size=(len(LABELS), DIM)).astype(np.float32)


# --- the centers move -----------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_centers_move_by_label_and_divide_by_one_plus_the_count(rng):
    centers, x = rng.normal(size=(CLASSES, DIM)), rng.normal(size=(len(LABELS), DIM))
    for rate in (0.5, 0.1):
        new = memory.update_centers(centers, x, LABELS, rate=rate)
        expected = oracles.update_centers(centers, x, LABELS, rate=rate)
        np.testing.assert_allclose(new, expected, rtol=1e-13)
    np.testing.assert_array_equal(new[2], centers[2])


def test_the_loss_falls_when_the_update_is_applied(inputs):
    centers, x = inputs

    def step(centers, _):
        value = losses.center(x, centers, LABELS)
        return memory.update_centers(centers, x, LABELS), value

    centers, values = jax.jit(lambda c: jax.lax.scan(step, c, length=40))(centers)
    assert np.all(np.diff(values[:15]) < 0)
    for j in (0, 1, 3):
        np.testing.assert_allclose(centers[j], x[j == LABELS].mean(axis=0), atol=1e-4)


def test_centers_are_not_differentiated(inputs):
    centers, x = inputs

    def later(x, centers):
        moved = memory.update_centers(centers, x, LABELS)
        return losses.center(x, moved, LABELS), moved

    slopes, moved = jax.jit(jax.grad(later, argnums=(0, 1), has_aux=True))(x, centers)
    np.testing.assert_array_equal(slopes[1], 0.0)
    expected = (x - moved[LABELS]) / len(LABELS)
    np.testing.assert_allclose(slopes[0], expected, rtol=1e-5)


@pytest.mark.parametrize("label", [-1, CLASSES])
def test_a_label_that_is_no_class_moves_nothing_and_costs_nothing(inputs, label):
    centers, x = inputs
    labels = np.append(LABELS[:-1], np.int32(label))
    new = memory.update_centers(centers, x, labels)
    expected = memory.update_centers(centers, x[:-1], LABELS[:-1])
    np.testing.assert_array_equal(new, expected)
    value = losses.center(x, centers, labels)
    np.testing.assert_allclose(value, losses.center(x[:-1], centers, LABELS[:-1]))


def test_padding_moves_no_center(inputs):
    centers, x = inputs
    where = np.arange(len(LABELS)) < 5
    dirty = np.where(where[:, None], x, np.nan)
    new = memory.update_centers(centers, dirty, LABELS, where=where)
    expected = memory.update_centers(centers, x[:5], LABELS[:5])
    np.testing.assert_array_equal(new, expected)


def test_a_sharded_batch_moves_the_centers_as_the_whole_does(inputs):
    centers, x = inputs
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    rows, whole = PartitionSpec("data"), PartitionSpec()
    sharded = jax.shard_map(
        functools.partial(memory.update_centers, axis_name="data"),
        mesh=mesh,
        in_specs=(whole, rows, rows),
        out_specs=whole,
    )
    new = jax.jit(sharded)(centers, x, LABELS)
    expected = memory.update_centers(centers, x, LABELS)
    np.testing.assert_allclose(new, expected, rtol=1e-6)


def test_centers_keep_their_dtype(inputs):
    centers, x = (jnp.asarray(v, jnp.bfloat16) for v in inputs)
    assert memory.update_centers(centers, x, LABELS).dtype == jnp.bfloat16
