"""A sample of the classes in place of all: Partial FC."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from metricjax import heads, losses, reductions
from tests import compiled
from tests.losses.shards import LAYOUTS, assert_close, mesh_of, pad

P = PartitionSpec
BATCH, DIM, CLASSES = 16, 5, 10
KEY = jax.random.key(3)


@pytest.fixture
def labels(rng):
    """Two examples have no class."""
    labels = rng.integers(0, CLASSES, BATCH).astype(np.int32)
    labels[[3, 9]] = -1, CLASSES
    return labels


@pytest.fixture
def batch(rng):
    x = jnp.asarray(rng.normal(size=(BATCH, DIM)), jnp.float32)
    return x, jnp.asarray(rng.normal(size=(CLASSES, DIM)), jnp.float32)


def test_a_sample_of_all_classes_gives_the_full_loss(batch, labels):
    x, w = batch
    loss = partial(losses.arcface, scale=8.0)

    @jax.jit
    @jax.value_and_grad
    def sampled(w):
        sample = heads.sample_classes(KEY, labels, classes=CLASSES, count=CLASSES)
        chosen = sample.log_weights
        return loss(x, w[sample.index], sample.labels, class_log_weights=chosen)

    expected = jax.jit(jax.value_and_grad(lambda w: loss(x, w, labels)))(w)
    assert_close(sampled(w), expected)


def test_classes_of_the_batch_are_always_chosen_and_others_by_chance():
    labels = jnp.array([7, 2, 7, -1, 100, 99])
    draw = partial(heads.sample_classes, classes=100, count=20)
    samples = jax.jit(jax.vmap(draw, (0, None)))(jax.random.split(KEY, 400), labels)
    np.testing.assert_array_equal(np.diff(samples.index) > 0, True)
    known = np.array([0, 1, 2, 5])
    found = np.take_along_axis(
        np.asarray(samples.index), np.asarray(samples.labels)[:, known], axis=1
    )
    np.testing.assert_array_equal(found, np.broadcast_to(labels[known], found.shape))
    np.testing.assert_array_equal(samples.labels[:, [3, 4]], -1)
    times = np.bincount(np.ravel(samples.index), minlength=100)
    others = np.delete(times, [2, 7, 99])
    assert times[[2, 7, 99]].tolist() == [400] * 3
    # 17 of 97 others in each of 400 draws, five deviations of a binomial.
    expected = 400 * 17 / 97
    assert np.max(np.abs(others - expected)) < 5 * np.sqrt(expected * (1 - 17 / 97))


def test_the_corrected_sum_of_exponentials_is_right_on_average(rng):
    x = jnp.asarray(rng.normal(size=(4, DIM)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(200, DIM)), jnp.float32)
    labels = jnp.arange(4, dtype=jnp.int32)

    def loss(w, labels, **options):
        return losses.normface(
            x, w, labels, scale=2.0, reduction=reductions.per_anchor, **options
        )

    @jax.jit
    @jax.vmap
    def sampled(key):
        sample = heads.sample_classes(key, labels, classes=200, count=20)
        chosen = w[sample.index]
        corrected = loss(chosen, sample.labels, class_log_weights=sample.log_weights)
        return loss(chosen, sample.labels), corrected

    plain, corrected = sampled(jax.random.split(KEY, 4000))
    full = jax.jit(loss)(w, labels)
    # exp(loss) is the sum of exponentials over that of the target.
    means = np.mean(np.exp(corrected), axis=0)
    np.testing.assert_allclose(means, np.exp(full), rtol=0.01)
    assert np.all(np.mean(plain, axis=0) < np.asarray(full) - 1.0)
    bias = np.mean(corrected, axis=0) - np.asarray(full)
    assert np.all((bias > -0.05) & (bias < 0.0))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_device_samples_its_own_classes(batch, labels, layout):
    """With all real rows chosen the loss is the full one; padding comes last."""
    x, w = batch
    devices, axis_name = LAYOUTS[layout]

    def value(x, w, log_weights, labels):
        rows = w.shape[0]
        sample = heads.sample_classes(
            KEY,
            labels,
            classes=rows,
            count=min(rows, BATCH),
            class_where=log_weights == 0.0,
            axis_name=axis_name,
            class_axis="classes",
        )
        loss = losses.arcface(
            x,
            w[sample.index],
            sample.labels,
            class_log_weights=sample.log_weights,
            scale=8.0,
            axis_name=axis_name,
            class_axis="classes",
        )
        return loss, sample.index

    rows, classes = P(axis_name), P("classes")
    run = jax.shard_map(
        value,
        mesh=mesh_of(**devices),
        in_specs=(rows, classes, classes, rows),
        out_specs=(P(), classes),
    )
    wide, log_weights = pad(w, 8)
    found, index = jax.jit(run)(x, wide, log_weights, labels)
    expected = compiled.call(losses.arcface, x, w, labels, scale=8.0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert index.shape == (wide.shape[0],)


def test_a_small_sample_on_each_device_keeps_the_classes_of_the_batch():
    labels = np.array([0, 31, 32, 63, 63, 100, -1, 5], np.int32)
    count, shards = 8, 4

    def choose(labels):
        sample = heads.sample_classes(
            KEY, labels, classes=32, count=count, axis_name="data", class_axis="classes"
        )
        return tuple(sample)

    run = jax.shard_map(
        choose,
        mesh=mesh_of(data=2, classes=shards),
        in_specs=P("data"),
        out_specs=(P("classes"), P("data"), P("classes")),
    )
    sample = heads.ClassSample(*jax.jit(run)(labels))
    classes = np.asarray(sample.index) + 32 * np.repeat(np.arange(shards), count)
    known = labels >= 0
    np.testing.assert_array_equal(classes[sample.labels[known]], labels[known])
    assert np.all(np.asarray(sample.labels)[~known] == -1)
    assert len(set(classes.tolist())) == count * shards
    parts = np.asarray(sample.index).reshape(shards, count).tolist()
    assert len({tuple(part) for part in parts}) == shards
    # Of the first device the batch has 0, 5 and 31; 5 chosen stand for the other 29.
    first = np.asarray(sample.log_weights)[:count]
    np.testing.assert_allclose(np.sort(np.exp(first)), [1.0] * 3 + [29 / 5] * 5)


def test_a_sample_that_may_not_hold_the_batch_is_refused():
    draw = partial(heads.sample_classes, KEY, jnp.arange(8), classes=20)
    with pytest.raises(ValueError, match="between 8 and 20, got 7"):
        draw(count=7)
    with pytest.raises(ValueError, match="between 8 and 20, got 21"):
        draw(count=21)
    small = heads.sample_classes(KEY, jnp.arange(8), classes=5, count=5)
    np.testing.assert_array_equal(small.labels, [0, 1, 2, 3, 4, -1, -1, -1])


def test_padding_of_the_batch_is_no_class_of_the_batch():
    labels = jnp.array([4, 6])
    where = jnp.array([True, False])
    draw = partial(heads.sample_classes, classes=50, count=2)
    sample = compiled.call(draw, KEY, labels, where=where)
    assert 4 in sample.index
    np.testing.assert_array_equal(sample.labels[1], -1)
