"""GradCache: the gradient of the whole batch, from one chunk at a time."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from metricjax import losses, transforms
from metricjax.training.state import init
from metricjax.training.step import make_step, supervised

P = PartitionSpec
BATCH, INPUT, HIDDEN, DIM = 14, 6, 16, 4
LABELS = np.arange(BATCH, dtype=np.int32) % 4
KEY = jax.random.key(5)

both_ways = pytest.mark.parametrize("unroll", [True, False], ids=["in a row", "loop"])


@pytest.fixture
def params(rng):
    first, second = rng.normal(size=(INPUT, HIDDEN)), rng.normal(size=(HIDDEN, DIM))
    return {"first": jnp.float32(first), "second": jnp.float32(second)}


@pytest.fixture
def images(rng):
    return jnp.asarray(rng.normal(size=(BATCH, INPUT)), jnp.float32)


def dropout(params, state, images, *, train, key=None):
    """An encoder with layer normalisation and dropout."""
    hidden = images @ params["first"]
    hidden = hidden - hidden.mean(axis=1, keepdims=True)
    hidden = jnp.tanh(hidden / jnp.sqrt(hidden.var(axis=1, keepdims=True) + 1e-5))
    if train and key is not None:
        hidden = hidden * jax.random.bernoulli(key, 0.7, hidden.shape)
    return hidden @ params["second"], state


def batch_norm(params, state, images, *, train, key=None):
    """An encoder that normalises by its batch and keeps a running mean."""
    hidden = images @ params["first"]
    mean = hidden.mean(axis=0) if train else state["mean"]
    hidden = (hidden - mean) / jnp.sqrt(jnp.square(hidden - mean).mean(axis=0) + 1e-5)
    if train:
        state = {"mean": 0.9 * state["mean"] + 0.1 * mean}
    return jnp.tanh(hidden) @ params["second"], state


def by_hand(apply, chunk):
    """The same chunks and keys, with all activations kept."""

    def direct(params, state, images, *, train, key=None):
        batch = images.shape[0]
        count = batch // chunk
        groups = [np.arange(i, count * chunk, count) for i in range(count)]
        groups.append(np.arange(count * chunk, batch))
        embeddings = jnp.zeros((batch, DIM))
        for index, rows in enumerate(groups):
            if not len(rows):
                continue
            own = None if key is None else jax.random.fold_in(key, index)
            some, state = apply(params, state, images[rows], train=train, key=own)
            embeddings = embeddings.at[rows].set(some)
        return embeddings, state

    return direct


def gradients(apply, state=None, *, key=None):
    """Compiled `(params, images) -> ((loss, state), gradients of both)`."""

    def value(params, images):
        before = {} if state is None else state
        embeddings, after = apply(params, before, images, train=True, key=key)
        return losses.supcon(embeddings, LABELS), after

    return jax.jit(jax.value_and_grad(value, argnums=(0, 1), has_aux=True))


def assert_close(found, expected, tolerance=1e-5):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        scale = float(jnp.max(jnp.abs(b)))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale)


# --- the same gradient ----------------------------------------------------------------


@both_ways
@pytest.mark.parametrize("chunk", [7, 4, 50])
def test_gradients_are_those_of_the_whole_batch(params, images, chunk, unroll):
    cached = transforms.grad_cache(dropout, chunk=chunk, unroll=unroll)
    found = gradients(cached)(params, images)
    assert_close(found, gradients(dropout)(params, images))


@both_ways
@pytest.mark.parametrize("chunk", [7, 4])
def test_chance_is_the_same_in_both_passes(params, images, chunk, unroll):
    cached = transforms.grad_cache(dropout, chunk=chunk, unroll=unroll)
    found = gradients(cached, key=KEY)(params, images)
    expected = gradients(by_hand(dropout, chunk), key=KEY)(params, images)
    assert_close(found, expected)
    # Not without chance, and not with the same for every chunk.
    assert abs(float(found[0][0] - gradients(cached)(params, images)[0][0])) > 1e-3
    same = jnp.broadcast_to(images[:1], images.shape)
    embeddings, _ = cached(params, {}, same, train=True, key=KEY)
    assert len({tuple(row) for row in np.asarray(embeddings).tolist()}) == BATCH


@both_ways
def test_batch_normalisation_is_that_of_the_chunks(params, images, unroll):
    state = {"mean": jnp.ones(HIDDEN)}
    cached = transforms.grad_cache(batch_norm, chunk=4, unroll=unroll)
    found = gradients(cached, state)(params, images)
    expected = gradients(by_hand(batch_norm, 4), state)(params, images)
    assert_close(found, expected)
    whole = gradients(batch_norm, state)(params, images)
    assert abs(float(found[0][0] - whole[0][0])) > 1e-2


def test_images_may_be_integers_and_trees(params, rng):
    images = rng.integers(0, 255, (BATCH, INPUT)).astype(np.uint8)

    def apply(params, state, images, *, train, key=None):
        a, b = (x.astype(jnp.float32) / 255.0 for x in images)
        return dropout(params, state, a - b[:, ::-1], train=train, key=key)

    def value(apply, params):
        embeddings, _ = apply(params, {}, (images, images + 1), train=True)
        return losses.supcon(embeddings, LABELS)

    expected = jax.jit(jax.grad(partial(value, apply)))(params)
    for unroll in (True, False):
        cached = transforms.grad_cache(apply, chunk=4, unroll=unroll)
        assert_close(jax.jit(jax.grad(partial(value, cached)))(params), expected)


def test_a_training_step_takes_it_in_the_place_of_the_encoder(params, images):
    def after(apply):
        loss = supervised(apply, lambda e, p, y: losses.supcon(e, y, reduction=None))
        optimizer = optax.sgd(0.1)
        # The step takes the buffers of its state.
        own = jax.tree.map(jnp.copy, {"encoder": params})
        state = init(jax.random.key(5), own, optimizer=optimizer)
        return make_step(loss, optimizer)(state, (images, LABELS))

    state, metrics = after(transforms.grad_cache(dropout_free, chunk=4))
    expected, expected_metrics = after(dropout_free)
    assert_close(state.params, expected.params)
    assert_close(metrics, expected_metrics)


def dropout_free(params, state, images, *, train, key=None):
    return dropout(params, state, images, train=train)


@pytest.mark.parametrize("chunk", [0, 2.0, True])
def test_chunks_must_be_positive_integers(chunk):
    with pytest.raises(ValueError, match="`chunk`"):
        transforms.grad_cache(dropout, chunk=chunk)


# --- memory -------------------------------------------------------------------------


@both_ways
def test_memory_falls_with_the_chunk(unroll):
    sizes = ((8, 256), (256, 256), (256, 256), (256, 8))
    params = [jax.ShapeDtypeStruct(size, jnp.float32) for size in sizes]
    images = jax.ShapeDtypeStruct((1024, 8), jnp.float32)

    def deep(params, state, images, *, train, key=None):
        for weights in params:
            images = jnp.tanh(images @ weights)
        return images, state

    def temporary(apply):
        def value(params, images):
            return jnp.sum(apply(params, {}, images, train=True)[0] ** 2)

        compiled = jax.jit(jax.grad(value)).lower(params, images).compile()
        memory = compiled.memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    cached = partial(transforms.grad_cache, deep, unroll=unroll)
    whole, half, eighth = (
        temporary(deep),
        *(temporary(cached(chunk=chunk)) for chunk in (512, 128)),
    )
    assert eighth < half < whole
    assert eighth < whole / 2


# --- many devices ---------------------------------------------------------------------


def mesh():
    return jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))


@both_ways
def test_a_sharded_batch_is_cut_where_it_lies(params, images, unroll):
    """Each device encodes its part of every chunk: no image is sent."""
    images, rows = images[:8], NamedSharding(mesh(), P("data"))
    whole = NamedSharding(mesh(), P())

    def value(apply, params, images):
        embeddings, _ = apply(params, {}, images, train=True)
        return jnp.sum(jnp.sin(embeddings))

    cached = transforms.grad_cache(dropout, chunk=4, unroll=unroll)
    run = jax.jit(jax.grad(partial(value, cached)), in_shardings=(whole, rows))
    found = run(params, images)
    assert_close(found, jax.jit(jax.grad(partial(value, dropout)))(params, images))
    text = run.lower(params, images).compile().as_text() or ""
    assert re.search("all-reduce", text)
    assert not re.search("all-gather|all-to-all|collective-permute", text)


@both_ways
@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
def test_gradients_in_shard_map_are_those_of_the_batch(params, images, inside, unroll):
    images, labels = images[:12], LABELS[:12]

    def value(apply, axis_name, params, images, labels):
        embeddings, _ = apply(params, {}, images, train=True)
        return losses.supcon(embeddings, labels, axis_name=axis_name)

    expected = jax.jit(jax.grad(partial(value, dropout, None)))(params, images, labels)
    cached = transforms.grad_cache(dropout, chunk=2, unroll=unroll)
    local = partial(value, cached, "data")
    shard = jax.shard_map(
        jax.grad(local) if inside else local,
        mesh=mesh(),
        in_specs=(P(), P("data"), P("data")),
        out_specs=P(),
    )
    run = jax.jit(shard if inside else jax.grad(shard))
    assert_close(run(params, images, labels), expected)


def test_a_coarse_encoder_rounds_on_the_way_in_and_keeps_its_state_fine(rng, key):
    params = jnp.asarray(rng.normal(size=(6, 3)), jnp.float32)
    images = rng.random((4, 6), np.float32)
    state = {"mean": jnp.full(3, 1.001), "calls": jnp.zeros((), jnp.int32)}

    def apply(params, state, images, *, train, key=None):
        assert params.dtype == images.dtype == jnp.bfloat16
        assert state["mean"].dtype == jnp.float32
        x = jnp.matmul(images, params, preferred_element_type=jnp.float32)
        mean = 0.999 * state["mean"] + 0.001 * jnp.mean(x, 0)
        return x, {"mean": mean, "calls": state["calls"] + 1}

    coarse = transforms.compute_in(apply, jnp.bfloat16)
    x, after = coarse(params, state, images, train=True, key=key)
    rounded = [np.asarray(a).astype(jnp.bfloat16) for a in (images, params)]
    product = np.matmul(*(a.astype(np.float64) for a in rounded))
    np.testing.assert_allclose(x, product, rtol=1e-5, atol=1e-6)
    mean = 0.999 * 1.001 + 0.001 * product.mean(0)
    np.testing.assert_allclose(after["mean"], mean, rtol=1e-6)
    assert (after["calls"], after["mean"].dtype) == (1, jnp.float32)
    slopes = jax.grad(lambda p: jnp.sum(coarse(p, state, images, train=True)[0]))(
        params
    )
    expected = np.repeat(rounded[0].astype(np.float64).sum(0)[:, None], 3, 1)
    assert slopes.dtype == jnp.float32
    np.testing.assert_allclose(slopes, expected, rtol=2**-8)


def test_an_encoder_computes_in_a_floating_dtype_only():
    with pytest.raises(TypeError, match="Expected `dtype` to be floating, got int32"):
        transforms.compute_in(dropout, jnp.int32)
