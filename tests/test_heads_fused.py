"""Class weights updated block by block, against optax on their whole gradient."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

from metricjax import heads, losses, margins, reductions
from tests.oracles import losses_classes as oracles

ARCFACE = Partial(margins.arcface, margin=0.5)
BATCH, CLASSES, DIM = 7, 53, 6
# One label twice, both ends, and two that are no class.
LABELS = jnp.array([0, 52, 5, 5, -1, 53, 17])


def inputs(dtype=jnp.float64, subcenters=()):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(BATCH, DIM)), dtype)
    return x, jnp.asarray(rng.normal(size=(CLASSES, *subcenters, DIM)), dtype)


def whole(tx, x, w, state, labels, **settings):
    """The same step with the gradient of all class weights."""

    def loss(x, w):
        return losses.margin_softmax(x, w, labels, **settings)

    value, (dx, dw) = jax.value_and_grad(loss, argnums=(0, 1))(x, w)
    updates, state = tx.update(dw, state, w)
    w = jnp.asarray(optax.apply_updates(w, updates))
    return heads.FusedUpdate(value, dx, w, state)


def assert_same_steps(
    tx, x, w, labels, tolerance, *, steps=3, block_size: int | None = 8, **kwargs
):
    ours = theirs = heads.FusedUpdate(jnp.zeros(()), x, w, tx.init(w))
    fused = partial(heads.fused_update, tx, block_size=block_size, **kwargs)
    fused, plain = jax.jit(fused), jax.jit(partial(whole, tx, **kwargs))
    for _ in range(steps):
        ours = fused(x, ours.class_weights, ours.state, labels)
        theirs = plain(x, theirs.class_weights, theirs.state, labels)
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        for mine, other in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
            assert mine.dtype == other.dtype
            np.testing.assert_allclose(mine, other, rtol=tolerance, atol=tolerance)
    assert np.max(np.abs(ours.class_weights - w)) > 1e-4


OPTIMIZERS = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": optax.adam(1e-2),
    "adamw": optax.adamw(optax.cosine_decay_schedule(1e-2, 5), weight_decay=0.1),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_equal_optax_on_the_whole_gradient_in_float64(name):
    x, w = inputs()
    assert_same_steps(OPTIMIZERS[name], x, w, LABELS, 1e-12, margin=ARCFACE)


@pytest.mark.parametrize("name", ["momentum", "adamw"])
def test_steps_equal_optax_on_the_whole_gradient_in_float32(name):
    x, w = inputs(jnp.float32)
    tx = OPTIMIZERS[name]
    assert_same_steps(tx, x, w, LABELS, 1e-6, margin=ARCFACE, scale=16.0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("subcenters", [(), (3,)])
def test_every_option_of_the_loss_is_that_of_the_loss(subcenters):
    x, w = inputs(subcenters=subcenters)
    settings: dict[str, Any] = {
        "margin": Partial(margins.cosface, margin=jnp.linspace(0.1, 0.4, BATCH)),
        "others": margins.mv_softmax_others,
        "scale": jnp.linspace(5.0, 20.0, BATCH),
        "label_smoothing": 0.1,
        "where": jnp.arange(BATCH) != 2,
        "weights": jnp.linspace(0.5, 2.0, BATCH),
        "reduction": reductions.mean_active,
    }
    tx = optax.adam(1e-2)
    assert_same_steps(tx, x, w, LABELS, 1e-11, steps=2, **settings)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("block_size", [1, 53, 1000, None])
def test_the_size_of_the_blocks_changes_nothing(block_size):
    x, w = inputs()
    tx, margin = optax.sgd(0.1), margins.cosface
    assert_same_steps(tx, x, w, LABELS, 1e-12, block_size=block_size, margin=margin)


@pytest.mark.usefixtures("x64")
def test_the_loss_equals_loops_and_a_step_lowers_it():
    x, w = inputs()
    tx = optax.sgd(0.1)
    margin = Partial(margins.cosface, margin=0.2)
    step = heads.fused_update(tx, x, w, tx.init(w), LABELS, margin=margin, scale=8.0)
    adjust = oracles.margin(lambda c, _: c - 0.2)
    before, after, y = np.asarray(w), np.asarray(step.class_weights), np.asarray(LABELS)
    expected = oracles.softmax(np.asarray(x), before, y, adjust=adjust, scale=8.0)
    assert float(step.loss) == pytest.approx(expected, rel=1e-10)
    after = oracles.softmax(np.asarray(x), after, y, adjust=adjust, scale=8.0)
    assert after < expected - 1e-3


def test_padding_and_labels_beyond_the_classes_get_no_gradient():
    x, w = inputs(jnp.float32)
    x = x.at[3].set(jnp.nan)
    where = jnp.arange(BATCH) != 3
    tx = optax.sgd(0.1)
    step = heads.fused_update(
        tx, x, w, tx.init(w), LABELS, margin=ARCFACE, where=where, block_size=8
    )
    assert not np.any(step.gradient[jnp.array([3, 4, 5])])
    assert np.all(np.any(step.gradient[jnp.array([0, 1, 2, 6])], axis=1))
    assert np.all(np.isfinite(step.class_weights))


def test_no_known_label_leaves_the_weights_as_they_are():
    x, w = inputs(jnp.float32)
    tx = optax.sgd(0.1)
    labels = jnp.full(BATCH, -1)
    step = heads.fused_update(tx, x, w, tx.init(w), labels, margin=ARCFACE)
    assert float(step.loss) == 0.0
    np.testing.assert_array_equal(step.class_weights, w)


def test_bfloat16_weights_stay_so_and_the_loss_is_float32():
    x, w = inputs(jnp.bfloat16)
    tx = optax.adam(1e-2)
    step = heads.fused_update(tx, x, w, tx.init(w), LABELS, margin=ARCFACE)
    assert step.loss.dtype == jnp.float32
    assert step.gradient.dtype == step.class_weights.dtype == jnp.bfloat16
    assert np.any(step.class_weights != w)


ACCEPTED = {
    "clip": optax.chain(optax.clip(1.0), optax.rmsprop(0.1)),
    "lion": optax.lion(1e-2),
    "injected": optax.inject_hyperparams(optax.adamw)(1e-2),
    "masked": optax.masked(optax.add_decayed_weights(0.1), True),
    "every_second": optax.MultiSteps(optax.adam(1e-2), 2).gradient_transformation(),
}
REFUSED = {
    "adafactor": optax.adafactor(0.1, min_dim_size_to_factor=4),
    "all_finite": optax.apply_if_finite(optax.sgd(0.1), 3),
    "block_rms": optax.chain(optax.clip_by_block_rms(1.0), optax.sgd(0.1)),
    "clip": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)),
    "clip_late": optax.chain(optax.clip_by_global_norm(1e9), optax.sgd(0.1)),
    "lamb": optax.lamb(0.1),
    "lars": optax.lars(0.1),
    "noise": optax.chain(optax.add_noise(0.1, 0.5, key=0), optax.sgd(0.1)),
    "prodigy": optax.contrib.prodigy(),
    "sm3": optax.sm3(0.1),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_optimisers_that_treat_rows_alone_are_accepted(name):
    x, w = inputs(jnp.float32)
    tx = ACCEPTED[name]
    heads.fused_update(tx, x, w, tx.init(w), LABELS, margin=ARCFACE, block_size=20)


@pytest.mark.parametrize("name", REFUSED)
def test_optimisers_that_look_at_the_whole_gradient_are_refused(name):
    x, w = inputs(jnp.float32)
    tx = REFUSED[name]
    with pytest.raises(ValueError, match=r"Expected an optimiser.*elementwise"):
        heads.fused_update(tx, x, w, tx.init(w), LABELS, margin=ARCFACE)


def test_a_state_of_another_optimiser_or_size_is_refused():
    x, w = inputs(jnp.float32)
    adam, sgd = optax.adam(0.1), optax.sgd(0.1)
    for state in (sgd.init(w), adam.init(w[:9])):
        with pytest.raises(ValueError, match=r"optimizer\.init\(class_weights\)"):
            heads.fused_update(adam, x, w, state, LABELS, margin=ARCFACE)


def test_traced_settings_of_the_optimiser_are_refused():
    x, w = inputs(jnp.float32)

    @jax.jit
    def step(rate):
        tx = optax.sgd(rate)
        return heads.fused_update(tx, x, w, tx.init(w), LABELS, margin=ARCFACE)

    with pytest.raises(ValueError, match="inject_hyperparams"):
        step(0.1)


def test_bad_shapes_are_refused():
    x, w = inputs(jnp.float32)
    tx = optax.sgd(0.1)
    with pytest.raises(ValueError, match="block_size"):
        heads.fused_update(tx, x, w, tx.init(w), LABELS, margin=ARCFACE, block_size=0)
    with pytest.raises(ValueError, match="last axis"):
        heads.fused_update(tx, x[:, :3], w, tx.init(w), LABELS, margin=ARCFACE)
    with pytest.raises(ValueError, match="one weight for each example"):
        heads.fused_update(
            tx, x, w, tx.init(w), LABELS, margin=ARCFACE, weights=jnp.ones(3)
        )


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_with_donated_weights_no_array_of_their_size_is_made(name):
    # Not a multiple of the block, so that the last one reaches back.
    tx, batch, classes, dim = OPTIMIZERS[name], 256, 50_021, 128
    w = jax.ShapeDtypeStruct((classes, dim), jnp.float32)
    x = jax.ShapeDtypeStruct((batch, dim), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)

    def step(w, state, x, labels):
        return heads.fused_update(tx, x, w, state, labels, margin=ARCFACE)

    state = jax.eval_shape(tx.init, w)
    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(w, state, x, labels)
    memory = lowered.compile().memory_analysis()
    size = 4 * classes * dim
    assert memory is not None
    assert memory.temp_size_in_bytes < size / 4
    copies = len(jax.tree.leaves(state)) + 1 - (name == "adam")
    assert memory.alias_size_in_bytes >= copies * size


def test_eager_steps_trace_the_loops_once():
    x, w = inputs(jnp.float32)
    tx, traces = optax.sgd(0.1), []

    def margin(cosine):
        traces.append(None)
        return cosine - 0.1

    state = tx.init(w)
    for _ in range(3):
        step = heads.fused_update(tx, x, w, state, LABELS, margin=margin)
        w, state = step.class_weights, step.state
    assert len(traces) == 1
