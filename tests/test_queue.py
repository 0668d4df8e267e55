"""The queue of embeddings, against a list of all that was pushed; the teacher."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from metricjax import distances, losses, memory, pairs, reductions

P = PartitionSpec
DIM = 3


def mesh():
    return jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))


def draw(rng, batch, start=0):
    """Embeddings, labels and ids of a batch."""
    x = rng.normal(size=(batch, DIM)).astype(np.float32)
    labels = rng.integers(0, 3, batch).astype(np.int32)
    return x, labels, np.arange(start, start + batch, dtype=np.int32)


def rows_of(*arrays):
    return list(zip(*arrays, strict=True))


def assert_holds(queue, history, size):
    """The queue holds the last rows of the history, in the order of a ring."""
    last = history[-size:]
    first = len(history) - len(last)
    used = np.zeros(size, bool)
    for step, (x, label, item) in enumerate(last, start=first):
        row = step % size
        used[row] = True
        np.testing.assert_array_equal(queue.embeddings[row], x)
        assert (queue.labels[row], queue.ids[row]) == (label, item)
    np.testing.assert_array_equal(queue.where, used)
    assert int(queue.next) == len(history) % size


@pytest.mark.parametrize(("size", "batch"), [(10, 4), (8, 4), (5, 12), (6, 6)])
def test_the_queue_holds_the_last_of_a_history(rng, size, batch):
    queue, history, seen = memory.init_queue(size, DIM), [], 0
    push = jax.jit(memory.push)
    for _ in range(7):
        x, labels, ids = draw(rng, batch, seen)
        where = rng.random(batch) < 0.7
        seen += batch
        dirty = np.where(where[:, None], x, np.nan)
        queue = push(queue, dirty, labels, ids, where=where)
        history += rows_of(x[where], labels[where], ids[where])
        assert_holds(queue, history, size)


def test_a_batch_of_padding_changes_nothing(rng):
    queue = memory.push(memory.init_queue(4, DIM), *draw(rng, 3))
    same = memory.push(queue, *draw(rng, 2), where=np.zeros(2, bool))
    for a, b in zip(same, queue, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("manual", [True, False], ids=["shard_map", "jit"])
def test_a_sharded_batch_is_pushed_as_the_whole(rng, manual):
    size, batch = 12, 8
    rows, whole = P("data"), P()
    queue, history = memory.init_queue(size, DIM), []

    def push(queue, x, labels, ids, where):
        axis_name = "data" if manual else None
        return memory.push(queue, x, labels, ids, where=where, axis_name=axis_name)

    if manual:
        specs = (whole, rows, rows, rows, rows)
        push = jax.shard_map(push, mesh=mesh(), in_specs=specs, out_specs=whole)
    else:
        split = [jax.device_put(v, NamedSharding(mesh(), rows)) for v in queue[:4]]
        queue = memory.Queue(*split, next=queue.next)
    push = jax.jit(push)
    for step in range(4):
        x, labels, ids = draw(rng, batch, step * batch)
        where = rng.random(batch) < 0.8
        inputs = jax.device_put((x, labels, ids, where), NamedSharding(mesh(), rows))
        queue = push(queue, *inputs)
        history += rows_of(x[where], labels[where], ids[where])
        assert_holds(queue, history, size)


# --- as candidates of a loss ----------------------------------------------------------


def test_a_queue_that_holds_the_batch_excludes_each_example_itself(rng):
    size, batch = 12, 4
    queue, history = memory.init_queue(size, DIM), []

    @jax.jit
    def loss(queue, x, labels, ids):
        return losses.contrastive(
            x, labels, ids=ids, reduction=None, **memory.references(queue)
        )

    for step in range(5):
        x, labels, _ = draw(rng, batch)
        # The data set has ten items, which come back.
        ids = (np.arange(batch, dtype=np.int32) + batch * step) % 10
        queue = memory.push(queue, x, labels, ids)
        history = (history + rows_of(x, labels, ids))[-size:]
        others, other_labels, other_ids = map(np.stack, zip(*history, strict=True))
        # The same from masks of pairs made by hand, of the rows alone that are there.
        positive, negative = (np.zeros((batch, len(history)), bool) for _ in range(2))
        for i in range(batch):
            for j in range(len(history)):
                if ids[i] != other_ids[j]:
                    same = labels[i] == other_labels[j]
                    (positive if same else negative)[i, j] = True
        masks = pairs.Pairs(jnp.asarray(positive), jnp.asarray(negative))
        expected = losses.contrastive(x, masks, ref_embeddings=others, reduction=None)
        found = loss(queue, x, labels, ids)
        assert isinstance(expected, reductions.Terms)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-6)


def test_an_empty_queue_costs_nothing_and_moves_nothing(rng):
    x, labels, ids = draw(rng, 4)
    queue = memory.init_queue(6, DIM)
    loss = partial(losses.triplet_all, ids=ids, **memory.references(queue))
    value, slope = jax.jit(jax.value_and_grad(loss))(x, labels)
    assert float(value) == 0.0
    np.testing.assert_array_equal(slope, 0.0)


def test_no_gradient_flows_into_the_queue(rng):
    x, labels, ids = draw(rng, 4)
    empty = memory.init_queue(6, DIM)

    def loss(x):
        return jnp.sum(memory.push(empty, x, labels, ids).embeddings ** 2)

    np.testing.assert_array_equal(jax.grad(loss)(jnp.asarray(x)), 0.0)


@pytest.mark.usefixtures("x64")
def test_moco_contrasts_a_query_with_its_key_and_those_of_others(rng):
    batch, temperature = 4, 0.2
    queue = memory.init_queue(8, DIM, dtype=jnp.float64)
    keys = []
    for step in range(3):
        ids = np.arange(batch) + batch * step
        x, key = rng.normal(size=(2, batch, DIM))
        keys = (keys + list(key))[-8:]
        queue = memory.push(queue, key, ids, ids)
        found = losses.ntxent(
            x,
            ids,
            temperature=temperature,
            ref_embeddings=queue.embeddings,
            ref_labels=queue.labels,
            ref_where=queue.where,
        )
        costs = []
        for i in range(batch):
            others = [
                x[i] @ k / np.linalg.norm(x[i]) / np.linalg.norm(k) / temperature
                for k in keys
            ]
            own = others[len(keys) - batch + i]
            costs.append(np.log(np.sum(np.exp(others))) - own)
        assert float(found) == pytest.approx(np.mean(costs), rel=1e-10)


def test_a_queue_keeps_its_dtype_and_distances_are_float32(rng):
    x, labels, ids = draw(rng, 4)
    queue = memory.push(memory.init_queue(4, DIM, dtype=jnp.bfloat16), x, labels, ids)
    assert queue.embeddings.dtype == jnp.bfloat16
    assert distances.euclidean(x, queue.embeddings).dtype == jnp.float32


def test_bad_batches_are_refused_with_a_cure(rng):
    queue = memory.init_queue(4, DIM)
    x, labels, ids = draw(rng, 2)
    with pytest.raises(ValueError, match="same last axis"):
        memory.push(queue, x[:, :2], labels, ids)
    with pytest.raises(ValueError, match=r"`ids` of shape \[2\]"):
        memory.push(queue, x, labels, ids[:1])
    with pytest.raises(TypeError, match="dtype bool"):
        memory.push(queue, x, labels, ids, where=np.ones(2))
    with pytest.raises(ValueError, match="`size`"):
        memory.init_queue(0, DIM)


# --- the teacher ----------------------------------------------------------------------


def test_the_teacher_is_the_mean_of_its_past_weighted_by_powers(rng):
    teacher = {"w": rng.normal(size=3).astype(np.float32), "count": np.int32(0)}
    students = rng.normal(size=(20, 3)).astype(np.float32)
    expected = 0.9**20 * teacher["w"].astype(np.float64)
    step = jax.jit(partial(memory.ema, decay=0.9))
    for index, student in enumerate(students):
        teacher = step(teacher, {"w": student, "count": np.int32(index)})
        expected = expected + 0.1 * 0.9 ** (19 - index) * student
    np.testing.assert_allclose(teacher["w"], expected, rtol=1e-5)
    assert int(teacher["count"]) == 19


def test_the_teacher_keeps_its_dtype_and_structure(rng):
    teacher = {"w": jnp.ones(2, jnp.float32)}
    student = {"w": jnp.zeros(2, jnp.bfloat16)}
    assert memory.ema(teacher, student)["w"].dtype == jnp.float32
    slope = jax.grad(lambda s: memory.ema(teacher, {"w": s})["w"].sum())(jnp.ones(2))
    np.testing.assert_array_equal(slope, 0.0)
    with pytest.raises(ValueError, match="[Mm]ismatch|structure"):
        memory.ema(teacher, {"v": student["w"]})
