"""Candidates passed round a ring: the loss of one device, in less memory."""

import functools
import inspect
import re
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.tree_util import Partial

from metricjax import distances, losses, mining, pairs, reductions, rows
from metricjax.reductions import Terms
from tests.conformance import LOSSES
from tests.conformance.row import Row, make_inputs, per_example

DEVICES, OWN, DIM = 8, 3, 5
BATCH = DEVICES * OWN
DATA = PartitionSpec("data")

# Some classes lie on one device, most on several; one has a single row, and rows
# without a label are in no pair.
LABELS = np.array(
    [0, 1, 0, 2, 1, 2, 5, 5, 3, 1, -1, 0, 4, 1, 2, 0, 3, 3, 1, 2, -1, 0, 1, 3], np.int32
)
# Devices 2 and 7 have no real row, others one or two.
WHERE = np.array([1, 1, 0] * 2 + [0, 0, 0] + [1, 1, 1] * 4 + [0, 0, 0], bool)
WEIGHTS = np.linspace(0.5, 2.0, BATCH)


@pytest.fixture(scope="module", autouse=True)
def compiled_here():
    """Programs that XLA reads from the cache for CPUs may send to devices out of order.

    Two permutations that need nothing of each other then meet, and the process aborts.
    """
    name = "jax_persistent_cache_min_compile_time_secs"
    before = jax.config.values[name]
    # What takes less is not kept.
    jax.config.update(name, 1e9)
    yield
    jax.config.update(name, before)


def mesh(*shape: int, names: tuple[str, ...] = ("data",)):
    kinds = (AxisType.Auto,) * len(shape)
    devices = jax.devices()[: int(np.prod(shape))]
    return jax.make_mesh(shape, names, axis_types=kinds, devices=devices)


def spread(function, in_specs, out_specs, over=None):
    """The function on eight devices, each with a part of what is sharded."""
    over = mesh(DEVICES) if over is None else over
    return jax.shard_map(function, mesh=over, in_specs=in_specs, out_specs=out_specs)


def assert_close(found, expected, tolerance=1e-12):
    """Equality of trees, relative to the largest entry of each leaf."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        scale = max(float(np.max(np.abs(b))), 1e-30)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale)


def vectors(seed=0, batch=BATCH):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(batch, DIM)))


def function_of(row: Row):
    """The public loss that a row tests."""
    return row.loss.func if isinstance(row.loss, Partial) else row.loss


def is_first(row: Row) -> bool:
    same = [other for other in LOSSES if function_of(other) is function_of(row)]
    return same[0] is row


# Variants whose fold is another one.
OTHERS = {"ntxent_negatives", "multi_similarity_all_pairs", "triplet_hard_swap"}
FOLDS = [row for row in LOSSES if row.ring and (is_first(row) or row.name in OTHERS)]


def evaluate(row: Row, inputs, labels, **options):
    if row.labels:
        options["labels"] = labels
    return row.loss(**inputs, **options)


# --- every loss -----------------------------------------------------------------------


@pytest.mark.parametrize("row", FOLDS, ids=[row.name for row in FOLDS])
@pytest.mark.usefixtures("x64")
def test_ring_gives_the_value_and_gradient_of_one_device(row: Row):
    split = per_example(row)
    inputs = {name: jnp.asarray(x) for name, x in make_inputs(row, BATCH, DIM).items()}
    for name in split:
        inputs[name] = jnp.where(WHERE[:, None], inputs[name], jnp.nan)
    specs = {name: PartitionSpec(*["data"] * (name in split)) for name in inputs}
    loss = jax.value_and_grad(functools.partial(evaluate, row))

    def inside(inputs, labels, where, weights):
        options = {"axis_name": "data", "ring": True, "block_size": 2}
        return loss(inputs, labels, where=where, weights=weights, **options)

    ring = spread(inside, (specs, DATA, DATA, DATA), (PartitionSpec(), specs))

    @jax.jit
    def both(inputs):
        masks = {"where": WHERE, "weights": WEIGHTS}
        return ring(inputs, LABELS, *masks.values()), loss(inputs, LABELS, **masks)

    found, expected = both(inputs)
    assert float(expected[0]) > 0
    assert_close(found, expected)


def test_losses_without_a_fold_refuse_the_ring_and_those_of_the_table_take_it():
    text = " ".join((rows.__doc__ or "").split())
    table = text.split("`metricjax.losses`:")[1].split("The rest need")[0]
    named = set(re.findall(r"\w+", table))
    for row in LOSSES:
        options = inspect.signature(function_of(row)).parameters.get("options")
        kinds = (Unpack[rows.Options], Unpack[losses.AlignedOptions])
        if options is None or options.annotation not in kinds or not is_first(row):
            continue
        name = function_of(row).__name__
        assert (name in named) == row.ring, name
        if not row.ring:
            inputs = make_inputs(row, BATCH, DIM)
            with pytest.raises(ValueError, match="leave `ring` out"):
                evaluate(row, inputs, LABELS, axis_name="data", ring=True)


# --- other ways to call ---------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_gradient_of_the_ring_taken_outside_is_that_of_one_device():
    names = ("scale", "bias")

    def loss(x, y, scale, bias, **options):
        return losses.siglip(x, y, scale=scale, bias=bias, **options)

    replicated = (PartitionSpec(),) * len(names)
    inside = functools.partial(loss, axis_name="data", ring=True)
    ring = spread(inside, (DATA, DATA, *replicated), PartitionSpec())
    arguments = (vectors(1), vectors(2), jnp.asarray(3.0), jnp.asarray(-1.0))

    @jax.jit
    def both(*arguments):
        return [
            jax.value_and_grad(way, argnums=(0, 1, 2, 3))(*arguments)
            for way in (ring, loss)
        ]

    assert_close(*both(*arguments))


@pytest.mark.usefixtures("x64")
def test_terms_of_each_anchor_take_any_cotangent():
    def loss(x, y, **options):
        options["reduction"] = reductions.per_anchor
        return losses.multi_similarity(x, y, **options)

    inside = functools.partial(loss, axis_name="data", ring=True)
    ring = spread(inside, (DATA, DATA), DATA)

    @jax.jit
    def both(x):
        ways = (lambda x: ring(x, LABELS), lambda x: loss(x, LABELS))
        return [jax.value_and_grad(lambda x, f=f: WEIGHTS @ f(x) ** 2)(x) for f in ways]

    assert_close(*both(vectors(3)))


@pytest.mark.usefixtures("x64")
def test_references_go_round_where_they_are_sharded():
    x, refs = vectors(4), vectors(5, 2 * BATCH)
    ref_labels = np.arange(2 * BATCH, dtype=np.int32) % 5
    ref_where = np.arange(2 * BATCH) % 7 > 0
    calls = [
        losses.supcon,
        losses.n_pair,
        losses.lifted_structure,
        functools.partial(losses.triplet_hard, swap=True),
    ]

    def every(x, labels, refs, ref_labels, ref_where, **options):
        options |= {"ref_labels": ref_labels, "ref_where": ref_where}

        def total(x, refs):
            values = [f(x, labels, ref_embeddings=refs, **options) for f in calls]
            return sum(values), values

        return jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(x, refs)

    inside = functools.partial(every, axis_name="data", ring=True)
    ring = spread(inside, (DATA,) * 5, (PartitionSpec(), DATA))
    arguments = (x, LABELS, refs, ref_labels, ref_where)
    assert_close(*jax.jit(lambda *a: (ring(*a), every(*a)))(*arguments))


@pytest.mark.usefixtures("x64")
def test_masks_in_the_place_of_labels_are_read_where_the_candidates_are():
    masks = pairs.from_labels(LABELS)
    loss = jax.value_and_grad(losses.circle)

    def inside(x, positive, negative):
        masks = pairs.Pairs(positive, negative)
        return loss(x, masks, axis_name="data", ring=True)

    ring = spread(inside, (DATA,) * 3, (PartitionSpec(), DATA))
    both = jax.jit(lambda x, *m: (ring(x, *m), loss(x, pairs.Pairs(*m))))
    assert_close(*both(vectors(6), *masks))


@pytest.mark.usefixtures("x64")
def test_two_mesh_axes_make_one_ring():
    loss, axes = jax.value_and_grad(losses.dcl), ("data", "model")
    by_both = PartitionSpec(axes)
    inside = functools.partial(loss, axis_name=axes, ring=True)
    over = mesh(4, 2, names=axes)
    ring = spread(inside, (by_both, by_both), (PartitionSpec(), by_both), over)
    both = jax.jit(lambda x, y: (ring(x, y), loss(x, y)))
    assert_close(*both(vectors(7), LABELS))


def test_extreme_scales_and_duplicates_are_as_on_one_device():
    # Cosines of 1 and -1 on other devices than the anchor's; equal rows everywhere.
    x = jnp.tile(jnp.eye(4, DIM), (BATCH // 8, 1))
    x = jnp.concatenate([x, -x])
    labels = np.arange(BATCH, dtype=np.int32) % 4
    calls = [
        functools.partial(losses.supcon, temperature=1 / 256),
        functools.partial(losses.dcl, temperature=1 / 256),
        functools.partial(losses.circle, scale=256.0),
        losses.multi_similarity,
        functools.partial(losses.nca, scale=100.0),
        losses.triplet_hard,
    ]

    def every(x, labels, **options):
        return [jax.value_and_grad(f)(1e3 * x, labels, **options) for f in calls]

    inside = functools.partial(every, axis_name="data", ring=True)
    specs = [(PartitionSpec(), DATA)] * len(calls)
    ring = spread(inside, (DATA, DATA), specs)
    found, expected = jax.jit(lambda x, y: (ring(x, y), every(x, y)))(x, labels)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found))
    assert_close([f[0] for f in found], [e[0] for e in expected], 1e-5)
    for (_, a), (_, b) in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6 + 1e-5 * float(jnp.abs(b).max()))


# --- what is compiled -----------------------------------------------------------------


def compiled(devices: int, batch: int, **options):
    """SupCon with its gradient, not run."""
    over = mesh(devices)
    inside = functools.partial(
        jax.value_and_grad(losses.supcon), axis_name="data", block_size=16, **options
    )
    run = spread(inside, (DATA, DATA), (PartitionSpec(), DATA), over)
    sharding = NamedSharding(over, DATA)
    shapes = [
        jax.ShapeDtypeStruct((batch, 64), jnp.float32, sharding=sharding),
        jax.ShapeDtypeStruct((batch,), jnp.int32, sharding=sharding),
    ]
    return jax.jit(run).lower(*shapes).compile()


def temporary(program) -> int:
    """Bytes of temporary memory of one device."""
    memory = program.memory_analysis()
    assert memory is not None
    return memory.temp_size_in_bytes


def test_nothing_is_gathered_and_memory_falls_with_the_number_of_devices():
    batch = 8192
    whole = compiled(8, batch)
    parts = {devices: compiled(devices, batch, ring=True) for devices in (2, 8)}
    assert "all-gather" in (whole.as_text() or "")
    for program in parts.values():
        assert "all-gather" not in (program.as_text() or "")
        assert "collective-permute" in (program.as_text() or "")
    memory = {devices: temporary(program) for devices, program in parts.items()}
    assert memory[8] < memory[2] / 2
    assert memory[8] < temporary(whole) / 2


# --- a fold of one's own --------------------------------------------------------------


def reach(rows, positive, negative, margin):
    """The farthest positive, and a number of at least one, which a merge relies on."""
    del margin
    far = jnp.max(jnp.where(positive, rows, 0.0), axis=1)
    return far, jnp.sqrt(1.0 + jnp.sum(jnp.where(negative, rows, 0.0), axis=1))


def merge_reach(one, other):
    squares = one[1] ** 2 + other[1] ** 2
    return jnp.maximum(one[0], other[0]), jnp.sqrt(squares - 1.0)


def beyond_the_margin(state, margin):
    far, length = state
    some = (far > 0).astype(far.dtype)
    return Terms(some * (jnp.maximum(far - margin, 0.0) + length), some, some)


@pytest.mark.usefixtures("x64")
def test_a_fold_of_your_own_is_one_loss_on_the_ring_gathered_and_alone():
    row = rows.Fold(reach, beyond_the_margin, merge_reach)

    def loss(x, labels, **options):
        return rows.apply(
            row,
            x,
            labels,
            measure=distances.euclidean,
            reduction=reductions.mean,
            per_anchor=jnp.full(x.shape[:1], 0.5),
            **options,
        )

    def sharded(**options):
        inside = jax.value_and_grad(
            functools.partial(loss, axis_name="data", **options)
        )
        return spread(inside, (DATA, DATA), (PartitionSpec(), DATA))

    ways = [sharded(ring=True, block_size=2), sharded(), jax.value_and_grad(loss)]
    ring, gathered, alone = jax.jit(lambda *a: [way(*a) for way in ways])(
        vectors(8), LABELS
    )
    assert_close(ring, alone)
    assert_close(gathered, alone)


# --- refusals -------------------------------------------------------------------------


def test_the_ring_is_refused_where_it_cannot_be():
    x = jnp.zeros((BATCH, DIM))
    ring = {"ring": True, "axis_name": "data"}
    with pytest.raises(ValueError, match="Expected `axis_name` with `ring`"):
        losses.supcon(x, LABELS, ring=True)
    with pytest.raises(ValueError, match="Expected `axis_name` with `ring`"):
        losses.clip(x, x, ring=True)
    with pytest.raises(ValueError, match="no `pair_miner` with `ring`"):
        losses.supcon(x, LABELS, pair_miner=mining.multi_similarity, **ring)
    with pytest.raises(ValueError, match="leave `ring` out"):
        losses.triplet(x, LABELS, miner=mining.easy, **ring)
    with pytest.raises(ValueError, match="leave `ring` out"):
        losses.margin_based(x, LABELS, miner=mining.all, **ring)


def test_candidates_that_every_device_has_are_refused():
    def loss(x, labels, refs, ref_labels):
        options = {"ref_embeddings": refs, "ref_labels": ref_labels}
        return losses.supcon(x, labels, axis_name="data", ring=True, **options)

    everywhere = PartitionSpec()
    run = spread(loss, (DATA, DATA, everywhere, everywhere), everywhere)
    x = jnp.ones((BATCH, DIM))
    with pytest.raises(ValueError, match="same ones on all devices"):
        jax.eval_shape(run, x, LABELS, x, LABELS)
    masks = [jnp.zeros((BATCH, BATCH - 1), bool)] * 2

    def with_masks(x, *masks):
        return losses.supcon(x, pairs.Pairs(*masks), axis_name="data", ring=True)

    with pytest.raises(ValueError, match="labels.positive"):
        jax.eval_shape(spread(with_masks, (DATA,) * 3, everywhere), x, *masks)


def test_chosen_rows_come_from_wherever_they_are():
    x = jnp.arange(BATCH, dtype=jnp.float32)[:, None] + 1.0
    places = jnp.asarray(np.random.default_rng(0).permutation(BATCH)[:, None])
    inside = functools.partial(rows.take, axis_name="data", ring=True)
    found = jax.jit(spread(inside, (DATA, DATA), DATA))(x, places)
    np.testing.assert_array_equal(found[..., 0], places + 1.0)
    np.testing.assert_array_equal(found, rows.take(x, places))
