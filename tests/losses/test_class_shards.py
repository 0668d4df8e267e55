"""More classes than one device has: sharded or padded."""

import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from jax.tree_util import Partial

from metricjax import losses, margins, memory, numerics, reductions
from tests import compiled
from tests.losses.shards import LAYOUTS, assert_close, mesh_of, pad
from tests.oracles import losses as oracles

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


def terms(loss, *arguments, **options) -> reductions.Terms:
    return compiled.call(loss, *arguments, reduction=None, **options)


def sharded(loss, layout, *, inside, extra=()):
    """`(x, w, log_weights, labels, *extra) -> value and gradients` on eight devices."""
    sizes, axis_name = LAYOUTS[layout]
    rows, classes = P(axis_name), P("classes")
    specs = (rows, classes, classes, rows, *extra)

    def value(x, w, log_weights, labels, *more):
        return loss(
            x,
            w,
            labels,
            *more,
            class_log_weights=log_weights,
            axis_name=axis_name,
            class_axis="classes",
        )

    wanted = (0, 1, *range(4, 4 + len(extra)))
    gradient = partial(jax.value_and_grad, argnums=wanted)
    out = (P(), (rows, classes, *extra)) if inside else P()
    shard = jax.shard_map(
        gradient(value) if inside else value,
        mesh=mesh_of(**sizes),
        in_specs=specs,
        out_specs=out,
    )
    return jax.jit(shard if inside else gradient(shard))


def learned(x, w, labels, margin, **options):
    """Every part of a margin softmax at once, with a learned margin."""
    return losses.mv_softmax(
        x,
        w,
        labels,
        margin=Partial(margins.arcface, margin=margin),
        label_smoothing=0.1,
        scale=8.0,
        block_size=1,
        **options,
    )


on_one = jax.jit(jax.value_and_grad(learned, argnums=(0, 1, 3)))


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_on_eight_devices_are_those_on_one(batch, labels, layout, inside):
    x, w = batch
    w = jnp.stack([w, w[::-1]], axis=1)
    margin = jnp.float32(0.3)
    value, (dx, dw, dm) = on_one(x, w, labels, margin)
    run = sharded(learned, layout, inside=inside, extra=(P(),))
    found, (fx, fw, fm) = run(x, *pad(w), labels, margin)
    np.testing.assert_allclose(found, value, rtol=1e-6)
    assert_close((fx, fw[:CLASSES], fm), (dx, dw, dm))
    np.testing.assert_array_equal(fw[CLASSES:], 0.0)


@pytest.mark.parametrize("layout", ["batch and classes on one axis"])
@pytest.mark.parametrize(
    "loss",
    [
        partial(losses.l_softmax, margin=2.0),
        partial(losses.elastic_arcface, KEY, plus=True, scale=8.0),
        partial(losses.magface, low_norm=0.5, high_norm=3.0, scale=8.0),
        losses.proxy_nca_pp,
    ],
    ids=["l_softmax", "elastic_arcface", "magface", "proxy_nca_pp"],
)
def test_losses_with_numbers_of_examples_or_classes(batch, labels, loss, layout):
    x, w = batch
    expected = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(x, w, labels)
    value, (dx, dw) = sharded(loss, layout, inside=True)(x, *pad(w), labels)
    assert_close((value, (dx, dw[:CLASSES])), expected)


def test_terms_of_each_example_stay_on_its_device(batch, labels):
    x, w = batch
    loss = partial(terms, losses.cosface, scale=4.0)
    weights = jnp.linspace(0.5, 2.0, BATCH)

    def local(x, w, labels, weights):
        both = partial(loss, axis_name="classes", class_axis="classes")
        return both(x, w, labels, weights=weights)

    shard = jax.shard_map(
        local, mesh=mesh_of(classes=2), in_specs=P("classes"), out_specs=P("classes")
    )
    found = jax.jit(shard)(x, w, labels, weights)
    expected = jax.jit(loss)(x, w, labels, weights=weights)
    assert found.total.shape == (BATCH,)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6)


def test_the_scale_of_adacos_counts_the_classes_of_all_devices(batch):
    x, w = batch
    labels = jnp.arange(BATCH, dtype=jnp.int32) % CLASSES
    shard = jax.shard_map(
        partial(losses.adacos, class_axis="classes"),
        mesh=mesh_of(classes=2),
        in_specs=(P(), P("classes"), P()),
        out_specs=P(),
    )
    expected = jax.jit(losses.adacos)(x, w, labels)
    np.testing.assert_allclose(jax.jit(shard)(x, w, labels), expected, rtol=1e-6)


def moved(x, w, labels, **axes):
    curriculum = memory.update_curriculum(0.2, x, w, labels, rate=0.5, **axes)
    scale = memory.update_adacos_scale(5.0, x, w, labels, block_size=3, **axes)
    return curriculum, scale


moved_on_one = jax.jit(moved)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_states_move_as_on_one_device(batch, labels, layout):
    x, w = batch
    w = jnp.concatenate([w, w[:6] + 1.0])
    sizes, axis_name = LAYOUTS[layout]
    shard = jax.shard_map(
        partial(moved, axis_name=axis_name, class_axis="classes"),
        mesh=mesh_of(**sizes),
        in_specs=(P(axis_name), P("classes"), P(axis_name)),
        out_specs=P(),
    )
    found, expected = jax.jit(shard)(x, w, labels), moved_on_one(x, w, labels)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


# --- what is sent, and what is held -------------------------------------------------


def program(layout, batch, classes, dim):
    shapes = [(batch, dim), (classes, dim), (classes,)]
    arguments = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    loss = partial(losses.arcface, block_size=64)
    run = sharded(loss, layout, inside=True)
    return run.lower(*arguments, labels).compile()


def sizes_of(text, operation):
    """Numbers of elements of the results of a collective, over a program."""
    results = re.findall(rf"= (.*?) {operation}(?:-start)?\(", text)
    shapes = re.findall(r"\w+\[([\d,]*)\]", " ".join(results))
    return [math.prod(int(n) for n in shape.split(",") if n) for shape in shapes]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_neither_logits_nor_class_weights_are_gathered(layout):
    batch, classes, dim = 32, 2048, 16
    text = program(layout, batch, classes, dim).as_text() or ""
    gathered = sizes_of(text, "all-gather")
    shares_axis = "classes" in (LAYOUTS[layout][1] or ())
    assert bool(gathered) == shares_axis
    assert max(gathered, default=0) <= batch * dim
    # A gradient of weights that are alike on several devices is summed over these.
    shard = classes // LAYOUTS[layout][0]["classes"] * dim
    assert max(sizes_of(text, "all-reduce")) <= max(shard, batch * dim)
    assert not sizes_of(text, "all-to-all")
    # The loops over blocks of classes, forth and back, send nothing.
    names = set(re.findall(r"body=%?([\w.-]+)", text))
    bodies = [
        re.split(r"\n}", part)[0]
        for name in names
        for part in re.findall(rf"^%?{re.escape(name)} .*", text, re.M | re.S)
    ]
    assert len(bodies) >= 2
    for body in bodies:
        assert not re.search(r"all-(reduce|gather)|reduce-scatter", body)


def test_memory_of_a_device_falls_with_the_number_of_devices():
    def bytes_of(devices):
        shard = jax.shard_map(
            jax.value_and_grad(
                partial(losses.arcface, block_size=64, class_axis="classes"),
                argnums=(0, 1),
            ),
            mesh=mesh_of(classes=devices),
            in_specs=(P(), P("classes"), P()),
            out_specs=(P(), (P(), P("classes"))),
        )
        x = jax.ShapeDtypeStruct((8, 16), jnp.float32)
        w = jax.ShapeDtypeStruct((8192, 16), jnp.float32)
        y = jax.ShapeDtypeStruct((8,), jnp.int32)
        memory = jax.jit(shard).lower(x, w, y).compile().memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes + memory.argument_size_in_bytes

    assert bytes_of(8) < bytes_of(2) / 3


# --- rows that stand for several classes, or for none -------------------------------


@pytest.mark.usefixtures("x64")
def test_a_row_stands_for_as_many_classes_as_its_weight_says(rng):
    x, w = rng.normal(size=(6, DIM)), rng.normal(size=(4, DIM))
    labels = np.array([0, 1, 0, 1, 1, 0])
    # Rows 2 and 3 stand for three classes and for one.
    repeated = np.concatenate([w, w[2:3], w[2:3]])
    log_weights = np.log([1.0, 1.0, 3.0, 1.0])
    for block_size in (1, 3):
        loss = partial(
            losses.cosface,
            class_log_weights=log_weights,
            label_smoothing=0.1,
            scale=6.0,
            block_size=block_size,
        )
        found = jax.jit(loss)(x, w, labels)
        expected = oracles.margin_softmax(
            x,
            repeated,
            labels,
            target=lambda c: c - 0.35,
            scale=6.0,
            label_smoothing=0.1,
        )
        assert float(found) == pytest.approx(expected, rel=1e-12)


def test_a_label_of_padding_is_no_class(batch):
    x, w = batch
    w, log_weights = pad(w)
    labels = jnp.full(BATCH, CLASSES + 1)
    found = terms(losses.arcface, x, w, labels, class_log_weights=log_weights)
    np.testing.assert_array_equal(jnp.stack(found), 0.0)


def test_l_softmax_goes_through_blocks_of_classes(batch, labels):
    x, w = batch
    expected = jax.jit(losses.l_softmax)(x, w, labels)
    found = jax.jit(partial(losses.l_softmax, block_size=3))(x, w, labels)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_class_log_weights_must_be_one_for_each_class(batch, labels):
    x, w = batch
    with pytest.raises(ValueError, match=r"`class_log_weights` of shape \[10\]"):
        losses.arcface(x, w, labels, class_log_weights=jnp.zeros(9))


def test_a_filtered_class_changes_nothing_and_is_not_moved():
    x, w = jnp.array([[1.0, 0.0]]), jnp.array([[1.0, 0.1], [0.9, 0.1], [0.0, 1.0]])
    others = Partial(margins.filtered_others, threshold=0.4)
    loss = partial(losses.margin_softmax, margin=margins.cosface, scale=16.0)
    labels = jnp.array([0])
    filtered = jax.jit(jax.value_and_grad(lambda w: loss(x, w, labels, others=others)))
    value, slope = filtered(w)
    without = jax.jit(loss)(x, w[jnp.array([0, 2])], labels)
    np.testing.assert_allclose(value, without, atol=1e-6)
    np.testing.assert_array_equal(slope[1], 0.0)
    # What is done to the rest is done before.
    both = margins.filtered_others(
        jnp.array([[0.5, 0.3]]), jnp.array([[0.2]]), others=margins.mv_softmax_others
    )
    np.testing.assert_allclose(both, [[-1.0, 0.56]], rtol=1e-6)
    assert numerics.promote(both).dtype == jnp.float32


def test_class_weights_are_not_copied_where_blocks_leave_no_rest():
    """Beside weights and gradient there are blocks of logits, at any number of them."""
    shapes = (64, 16), (120_000, 16)
    x, w = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    labels = jax.ShapeDtypeStruct((64,), jnp.int32)
    loss = jax.jit(jax.value_and_grad(losses.arcface, argnums=(0, 1)))
    memory = loss.lower(x, w, labels).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 120_000 * 16 * 4 / 2
