import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from metricjax import encoders, losses
from metricjax.reductions import Terms
from metricjax.training import state as states
from metricjax.training import step as steps


def quadratic(params, model_state, loss_state, batch, key):
    """Two parts, so that they can have different rules; the key is recorded."""
    loss = jnp.sum((params["encoder"] - batch) ** 2) + jnp.sum(params["head"] ** 2)
    draw = jax.random.uniform(key)
    loss_state = {"calls": loss_state["calls"] + 1}
    return loss, steps.Outputs({"draw": draw}, loss_state, {"draw": draw})


def start(optimizer):
    params = {"encoder": jnp.array([1.0, 2.0]), "head": jnp.array([3.0])}
    return states.init(
        jax.random.key(5),
        params,
        optimizer=optimizer,
        model_state={"draw": jnp.zeros(())},
        loss_state={"calls": jnp.zeros((), jnp.int32)},
    )


def test_a_step_is_gradient_descent_written_out():
    optimizer = optax.sgd(0.1)
    step = steps.make_step(quadratic, optimizer)
    state, metrics = step(start(optimizer), jnp.array([0.5, 0.5]))
    np.testing.assert_allclose(state.params["encoder"], [0.9, 1.7], rtol=1e-6)
    np.testing.assert_allclose(state.params["head"], [2.4], rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], 0.25 + 2.25 + 9.0, rtol=1e-6)
    norm = np.sqrt(1.0 + 9.0 + 36.0)
    np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-6)
    assert int(state.step) == 1
    assert int(state.loss_state["calls"]) == 1


def test_the_key_of_a_step_depends_on_the_step_alone():
    optimizer = optax.sgd(0.0)
    step = steps.make_step(quadratic, optimizer)
    state, draws = start(optimizer), []
    for _ in range(3):
        state, metrics = step(state, jnp.zeros(2))
        draws.append(float(metrics["draw"]))
    expected = [
        float(jax.random.uniform(jax.random.fold_in(jax.random.key(5), t)))
        for t in range(3)
    ]
    assert draws == expected
    assert len(set(draws)) == 3


def test_parts_of_the_parameters_may_have_their_own_rules():
    optimizer = optax.multi_transform(
        {"slow": optax.sgd(0.1), "fast": optax.adam(0.5), "still": optax.set_to_zero()},
        {"encoder": "still", "head": "fast"},
    )
    step = steps.make_step(quadratic, optimizer)
    state, _ = step(start(optimizer), jnp.zeros(2))
    np.testing.assert_array_equal(state.params["encoder"], [1.0, 2.0])
    np.testing.assert_allclose(state.params["head"], [2.5], rtol=1e-5)


def test_a_step_is_traced_once():
    traces = []

    def counted(*arguments):
        traces.append(1)
        return quadratic(*arguments)

    optimizer = optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 1.0, 2, 9))
    step = steps.make_step(counted, optimizer)
    state = start(optimizer)
    for t in range(4):
        state, _ = step(state, np.full(2, t, np.float32))
    assert len(traces) == 1


def test_the_state_given_to_a_step_is_donated():
    optimizer = optax.sgd(0.1)
    step = steps.make_step(quadratic, optimizer)
    before = start(optimizer)
    step(before, jnp.zeros(2))
    assert before.params["encoder"].is_deleted()


def embed(params, state, images, *, train, key=None):
    seen = state["seen"] + images.shape[0] if train else state["seen"]
    return images.reshape(images.shape[0], -1) @ params, {"seen": seen}


def test_a_supervised_loss_is_the_library_loss_of_the_prepared_images(rng, key):
    images = rng.integers(0, 256, (8, 2, 2, 1), dtype=np.uint8)
    labels = np.repeat(np.arange(4), 2).astype(np.int32)
    params = {
        "encoder": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32),
        "head": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32),
    }

    def loss(embeddings, params, labels):
        return losses.arcface(embeddings, params["head"], labels, reduction=None)

    def prepare(key, images, labels):
        return 1.0 - images, 3 - labels

    function = steps.supervised(embed, loss, prepare=prepare)
    state = {"seen": jnp.zeros((), jnp.int32)}
    value, outputs = function(params, state, {}, (images, labels), key)
    embeddings = jnp.reshape(1.0 - images / 255.0, (8, 4)) @ params["encoder"]
    expected = losses.arcface(embeddings, params["head"], 3 - labels)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert int(outputs.model_state["seen"]) == 8
    assert outputs.loss_state == {}


@pytest.mark.parametrize(("count", "share"), [(4.0, 0.5), (0.0, 0.0)])
def test_the_active_share_is_logged_and_defined_without_terms(count, share, key):
    def loss(embeddings, params, labels):
        del embeddings, params, labels
        counts = jnp.array([count, count])
        return Terms(counts, counts, counts / 2)

    function = steps.supervised(embed, loss)
    state = {"seen": jnp.zeros((), jnp.int32)}
    batch = (jnp.zeros((2, 2, 2, 1)), jnp.zeros(2, jnp.int32))
    _, outputs = function({"encoder": jnp.ones((4, 3))}, state, {}, batch, key)
    assert float(outputs.metrics["active"]) == share


def test_a_batch_sharded_over_devices_gives_the_step_of_one_device(rng):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    apply, init = encoders.deferred(Normed)
    optimizer = optax.sgd(0.1)

    def loss(embeddings, params, labels):
        return losses.arcface(embeddings, params["head"], labels, reduction=None)

    step = steps.make_step(steps.supervised(apply, loss), optimizer)
    images = rng.integers(0, 256, (16, 2, 2, 1), dtype=np.uint8)
    batch = (images, np.arange(16, dtype=np.int32) % 4)
    head = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)
    results = []
    for places in (None, (whole, rows)):
        params, model_state = init(jax.random.key(0))
        state = states.init(
            jax.random.key(1),
            {"encoder": params, "head": jnp.array(head)},
            optimizer=optimizer,
            model_state=model_state,
        )
        placed = batch
        if places is not None:
            state = jax.device_put(state, places[0])
            placed = jax.device_put(batch, places[1])
        state, metrics = step(state, placed)
        results.append(((state.params, state.model_state), metrics))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), *results
    )


class Normed(nnx.Module):
    """A layer with batch norm, whose statistics are those of the whole batch."""

    def __init__(self, rngs):
        self.layer = nnx.Linear(4, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)

    def __call__(self, images):
        return self.norm(self.layer(images.reshape(images.shape[0], -1)))
