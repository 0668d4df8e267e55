"""States of the adaptive class losses: the same on one device and on many."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from metricjax import memory
from tests.oracles import losses_classes as oracles

LABELS = np.array([0, 1, 2, 3, 0, 1, -1, 3], np.int32)
WHERE = np.array([1, 1, 1, 1, 1, 0, 1, 1], bool)
USED = WHERE & (LABELS >= 0)


@pytest.fixture
def batch(rng):
    x = 5.0 * rng.normal(size=(8, 5))
    return x, rng.normal(size=(4, 5))


def single(*arrays):
    return [jnp.asarray(x, jnp.float32) for x in arrays]


def test_norm_statistics_move_towards_those_of_the_batch(batch):
    (x,) = single(batch[0])
    x = x.at[5].set(jnp.nan)
    new = memory.update_norm_statistics(
        memory.init_norm_statistics(mean=2.0, std=3.0), x, rate=0.25, where=WHERE
    )
    norms = np.linalg.norm(batch[0][WHERE], axis=1)
    assert float(new.mean) == pytest.approx(0.25 * norms.mean() + 1.5, rel=1e-5)
    assert float(new.std) == pytest.approx(0.25 * norms.std(ddof=1) + 2.25, rel=1e-5)


def test_norm_statistics_of_too_few_rows_stay():
    old = memory.init_norm_statistics()
    none = memory.update_norm_statistics(
        old, jnp.ones((2, 3)), where=jnp.zeros(2, bool)
    )
    assert none == old
    one = memory.update_norm_statistics(old, jnp.ones((1, 3)), rate=1.0)
    assert float(one.mean) == pytest.approx(3.0**0.5)
    assert float(one.std) == 100.0


def test_curriculum_moves_towards_the_mean_target_cosine(batch):
    x, w = single(*batch)
    new = memory.update_curriculum(
        jnp.float32(0.5), x, w, LABELS, where=WHERE, rate=0.1
    )
    cosines = [
        oracles.cosine(row, batch[1][y])
        for row, y, used in zip(batch[0], LABELS, USED, strict=True)
        if used
    ]
    assert float(new) == pytest.approx(0.1 * np.mean(cosines) + 0.45, rel=1e-5)
    same = memory.update_curriculum(0.5, x, w, np.full(8, -1, np.int32))
    assert float(same) == 0.5


@pytest.mark.parametrize("subcenters", [1, 2])
def test_adacos_scale_equals_its_loop(batch, rng, subcenters: int):
    x, w = batch[0], rng.normal(size=(4, subcenters, 5))
    (embeddings, weights), options = single(x, w), {"where": WHERE, "block_size": 3}
    new = memory.update_adacos_scale(3.0, embeddings, weights, LABELS, **options)
    expected = oracles.adacos_scale(3.0, x[USED], w, LABELS[USED])
    assert float(new) == pytest.approx(expected, rel=1e-5)


def test_adacos_scale_does_not_overflow_and_stays_without_examples(batch):
    x, w = single(*batch)
    near = w[LABELS]
    assert np.isfinite(memory.update_adacos_scale(500.0, near, w, LABELS))
    same = memory.update_adacos_scale(3.0, x, w, np.full(8, -1, np.int32))
    assert float(same) == 3.0
    with pytest.raises(ValueError, match="at least 3 classes"):
        memory.init_adacos_scale(2)


def test_states_are_those_of_the_whole_batch_on_every_device(batch):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))

    def update(x, w, labels, where, **axis):
        options = {"where": where, **axis}
        return (
            memory.update_norm_statistics(memory.init_norm_statistics(), x, **options),
            memory.update_curriculum(0.5, x, w, labels, **options),
            memory.update_adacos_scale(3.0, x, w, labels, **options),
        )

    split, whole = PartitionSpec("data"), PartitionSpec()
    sharded = jax.shard_map(
        functools.partial(update, axis_name="data"),
        mesh=mesh,
        in_specs=(split, whole, split, split),
        out_specs=whole,
    )
    arguments = (*single(*batch), LABELS, WHERE)
    found, expected = jax.jit(lambda *a: (sharded(*a), update(*a)))(*arguments)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected
    )


def test_no_gradient_flows_to_a_state(batch):
    x, w = single(*batch)

    def total(x, w):
        statistics = memory.update_norm_statistics(memory.init_norm_statistics(), x)
        t = memory.update_curriculum(0.5, x, w, LABELS)
        scale = memory.update_adacos_scale(3.0, x, w, LABELS)
        return statistics.mean + statistics.std + t + scale

    for gradient in jax.jit(jax.grad(total, argnums=(0, 1)))(x, w):
        np.testing.assert_array_equal(gradient, 0.0)
