"""Every loss of the table keeps the same promises."""

import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from metricjax import distances, losses, pairs, reductions, rows
from tests.conformance import LOSSES
from tests.conformance.row import Row, make_inputs, per_example

BATCH, DIM, PADS = 12, 5, 2
LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 1, 0], np.int32)


def function_of(row: Row):
    """The public loss that a row tests."""
    return row.loss.func if isinstance(row.loss, Partial) else row.loss


def is_first(row: Row) -> bool:
    """Whether no row above is a variant of the same loss."""
    same = [other for other in LOSSES if function_of(other) is function_of(row)]
    return same[0] is row


def losses_that(condition):
    """One test for each such row."""
    chosen = [row for row in LOSSES if condition(row)]
    return pytest.mark.parametrize("row", chosen, ids=[row.name for row in chosen])


# What depends on the formula is tested on every variant of a loss; what depends on how
# it goes through the engine, once for each loss.
every_variant = losses_that(lambda row: True)
every_loss = losses_that(is_first)
SHARDED = [row for row in LOSSES if is_first(row) and row.sharded]
pair_losses = losses_that(lambda row: is_first(row) and row.refs)
lean_losses = losses_that(lambda row: is_first(row) and row.linear_memory)


def evaluate(row: Row, inputs, labels, **options):
    if row.labels:
        options["labels"] = labels
    return row.loss(**inputs, **options)


def on_inputs(row: Row, **options):
    """The loss as a function of its inputs (and labels, if not among the options)."""
    return functools.partial(evaluate, row, **options)


def single(row: Row, seed: int = 4):
    """Inputs in float32."""
    inputs = make_inputs(row, BATCH, DIM, seed)
    return {name: jnp.asarray(x, jnp.float32) for name, x in inputs.items()}


@functools.cache
def reference(name: str):
    """Value and gradient of a row on `single` inputs, compiled once for all tests."""
    row = next(row for row in LOSSES if row.name == name)
    return jax.jit(jax.value_and_grad(on_inputs(row)))(single(row), LABELS)


def assert_same(row: Row, value, gradient):
    """Equality with the reference."""
    expected, slopes = reference(row.name)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert_close(gradient, slopes, 1e-5)


def assert_close(found, expected, tolerance):
    """Equality of trees of gradients, relative to the largest entry of each."""
    for name, x in expected.items():
        scale = float(jnp.max(jnp.abs(x)))
        np.testing.assert_allclose(
            found[name], x, atol=tolerance * scale, rtol=0, err_msg=name
        )


def padded(row: Row, seed: int = 0, filler: float = 7.0):
    """Inputs of `BATCH` real rows and `PADS` rows of padding."""
    inputs = make_inputs(row, BATCH, DIM, seed)
    for name in per_example(row):
        pads = np.full((PADS, *inputs[name].shape[1:]), filler)
        inputs[name] = np.concatenate([inputs[name], pads])
    return inputs


# --- right ----------------------------------------------------------------------------


@every_variant
@pytest.mark.usefixtures("x64")
def test_value_and_gradient_equal_the_oracle_in_float64(row: Row):
    inputs = make_inputs(row, BATCH, DIM, seed=1)
    loss = jax.jit(jax.value_and_grad(on_inputs(row)))
    value, gradient = loss(inputs, LABELS)
    assert float(value) == pytest.approx(row.oracle(**inputs, labels=LABELS), rel=1e-10)
    # Directional derivatives of the oracle by central differences.
    oracle = row.oracle if row.frozen is None else row.frozen(**inputs, labels=LABELS)
    rng = np.random.default_rng(2)
    for _ in range(3):
        step = {name: rng.normal(size=x.shape) for name, x in inputs.items()}
        ends = [
            oracle(
                **{name: x + sign * 1e-5 * step[name] for name, x in inputs.items()},
                labels=LABELS,
            )
            for sign in (1, -1)
        ]
        slope = sum(float(jnp.vdot(gradient[name], step[name])) for name in inputs)
        assert slope == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6, abs=1e-7)


@every_loss
def test_eager_equals_compiled_equals_the_oracle_in_float32(row: Row):
    inputs = single(row)
    value = evaluate(row, inputs, jnp.asarray(LABELS))
    assert value.dtype == jnp.float32
    assert value.shape == ()
    exact = {name: np.asarray(x, np.float64) for name, x in inputs.items()}
    assert float(value) == pytest.approx(row.oracle(**exact, labels=LABELS), rel=2e-5)
    np.testing.assert_allclose(value, reference(row.name)[0], rtol=1e-6)


@every_loss
def test_sums_in_blocks_equal_reduced_terms(row: Row):
    default = _default_reduction(row)
    call = functools.partial(evaluate, row, weights=jnp.linspace(0.5, 2.0, BATCH))
    options = {"block_size": 5} if row.blocks else {}

    @jax.jit
    def two_ways(inputs):
        ways = [
            lambda x: call(x, LABELS, **options),
            lambda x: rows.reduce(call(x, LABELS, reduction=None), default),
        ]
        return [jax.value_and_grad(way)(inputs) for way in ways]

    (expected, slopes), (value, gradient) = two_ways(single(row))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert_close(gradient, slopes, 2e-5)


def _default_reduction(row: Row):
    function, keywords = row.loss, {}
    if isinstance(function, Partial):
        function, keywords = function.func, function.keywords
    return (
        keywords.get("reduction")
        or inspect.signature(function).parameters["reduction"].default
    )


# --- finite ---------------------------------------------------------------------------


def cases(row: Row):
    """Name -> (inputs, labels, where): edges of the domain, one shape."""
    base, size = padded(row), BATCH + PADS
    labels = np.concatenate([LABELS, np.zeros(PADS, np.int32)])
    where = np.arange(size) < BATCH
    whole = np.ones(size, bool)
    names = per_example(row)
    vectors = [name for name, x in base.items() if x.ndim > 1]

    def change(function, names=vectors):
        return base | {name: function(base[name]) for name in names}

    def every_row(x):
        return np.broadcast_to(x[:1], x.shape)

    def column(values, x):
        """`[rows]` in the shape that broadcasts with `x [rows, ...]`."""
        return values[: len(x)].reshape(-1, *[1] * (x.ndim - 1))

    alternate = np.where(np.arange(size) % 2, 1.0, -1.0)
    order = np.random.default_rng(5).permutation(size)
    nan = change(lambda x: np.where(column(where, x), x, np.nan), names)
    return {
        "base": (base, labels, where),
        "permuted": (change(lambda x: x[order], names), labels[order], where[order]),
        "padding is NaN": (nan, labels, where),
        "nothing is real": (base, labels, ~whole),
        "one class": (base, 0 * labels, whole),
        "all labels differ": (base, np.arange(size, dtype=np.int32), whole),
        "no label": (base, labels * 0 - 1, whole),
        "duplicates": (change(every_row), labels, whole),
        "antipodes": (
            change(lambda x: every_row(x) * column(alternate, x)),
            labels,
            whole,
        ),
        "zero vectors": (change(np.zeros_like), labels, whole),
        "one zero vector": (
            change(lambda x: x * column(np.arange(size) > 0, x), names),
            labels,
            whole,
        ),
        "large": (change(lambda x: 1e4 * x), labels, whole),
        "tiny": (change(lambda x: 1e-4 * x), labels, whole),
    }


@every_variant
def test_edges_are_finite_and_padding_changes_nothing(row: Row):
    named = cases(row)
    inputs, labels, where = jax.tree.map(
        lambda *xs: jnp.stack([jnp.asarray(x) for x in xs]), *named.values()
    )
    inputs = {name: x.astype(jnp.float32) for name, x in inputs.items()}

    def one(inputs, labels, where):
        return jax.value_and_grad(evaluate, argnums=1)(row, inputs, labels, where=where)

    values, gradients = jax.jit(jax.vmap(one))(inputs, labels, where)
    for index, name in enumerate(named):
        assert np.isfinite(values[index]), name
        for input_name, gradient in gradients.items():
            assert np.all(np.isfinite(gradient[index])), (name, input_name)
    index = {name: i for i, name in enumerate(named)}
    clean = make_inputs(row, BATCH, DIM)
    expected = row.oracle(**clean, labels=LABELS)
    for name in ("base", "permuted", "padding is NaN"):
        assert float(values[index[name]]) == pytest.approx(expected, rel=2e-5), name
    for name in ("nothing is real", *["no label"] * row.labels):
        assert float(values[index[name]]) == 0.0, name
        assert all(np.all(g[index[name]] == 0) for g in gradients.values()), name
    pads = gradients[per_example(row)[0]][index["padding is NaN"]][BATCH:]
    np.testing.assert_array_equal(pads, 0.0)


def check_low_precision(row: Row, dtype):
    inputs = make_inputs(row, BATCH, DIM, seed=6)
    low = {name: jnp.asarray(x, dtype) for name, x in inputs.items()}
    value, gradient = jax.jit(jax.value_and_grad(on_inputs(row)))(low, LABELS)
    exact = {name: np.asarray(x, np.float64) for name, x in low.items()}
    assert value.dtype == jnp.float32
    assert float(value) == pytest.approx(row.oracle(**exact, labels=LABELS), rel=2e-5)
    for name, x in gradient.items():
        assert x.dtype == dtype, name
        assert np.all(np.isfinite(np.asarray(x, np.float32))), name


# These still promote a dtype or a rank somewhere, as jax allows by default.
PROMOTING = {
    "clip",
    "curricularface",
    "margin_sigmoid",
    "pnp_dq",
    "pnp_ib",
    "recall_surrogate",
    "siamese_pairs",
    "siglip",
    "smooth_ap",
    "sphereface2",
    "uniface",
}


@every_loss
def test_bfloat16_inputs_give_a_float32_loss(row: Row, request):
    if row.name not in PROMOTING:
        request.getfixturevalue("strict")
    check_low_precision(row, jnp.bfloat16)


@pytest.mark.full
@every_loss
def test_float16_inputs_give_a_float32_loss(row: Row):
    check_low_precision(row, jnp.float16)


# --- memory and compilation -----------------------------------------------------------


@lean_losses
def test_no_array_of_batch_squared_exists(row: Row):
    batch = 2048
    shapes = {
        name: jax.ShapeDtypeStruct(x.shape, jnp.float32)
        for name, x in make_inputs(row, batch, DIM).items()
    }
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    options = {"block_size": 16} if row.blocks else {}
    loss = jax.jit(jax.value_and_grad(on_inputs(row, **options)))
    memory = loss.lower(shapes, labels).compile().memory_analysis()
    assert memory is not None
    # Half of one [batch, batch] array of float32.
    assert memory.temp_size_in_bytes < batch * batch * 4 / 2


# --- candidates -----------------------------------------------------------------------


@pair_losses
def test_references_that_are_the_batch_change_nothing(row: Row):
    ids = jnp.arange(BATCH) + 5

    @jax.jit
    @jax.value_and_grad
    def with_refs(inputs):
        return evaluate(
            row,
            inputs,
            LABELS,
            ids=ids,
            ref_embeddings=inputs["embeddings"],
            ref_labels=LABELS,
            ref_ids=ids,
        )

    assert_same(row, *with_refs(single(row)))


@pair_losses
def test_masks_made_of_labels_equal_labels(row: Row):
    masks = pairs.from_labels(jnp.asarray(LABELS))
    value = jax.jit(on_inputs(row))(single(row), masks)
    np.testing.assert_allclose(value, reference(row.name)[0], rtol=1e-6)


# --- bad input ------------------------------------------------------------------------


@every_loss
def test_bad_input_is_refused_with_a_cure(row: Row):
    inputs, labels = single(row), jnp.asarray(LABELS)

    def refuses(error, words, inputs=inputs, labels=labels, **options):
        with pytest.raises(error, match=re.escape(words)):
            evaluate(row, inputs, labels, **options)

    if row.labels:
        refuses(ValueError, "not one-hot", labels=jnp.eye(BATCH, dtype=jnp.int32))
        refuses(ValueError, f"[{BATCH}]", labels=labels[:-1])
        refuses(TypeError, "integer dtype", labels=labels.astype(jnp.float32))
    name = per_example(row)[0]
    flat = inputs | {name: inputs[name][0]}
    refuses(ValueError, f"`{name}` of shape [", inputs=flat)
    integers = inputs | {name: inputs[name].astype(jnp.int32)}
    refuses(TypeError, "floating", inputs=integers)
    refuses(TypeError, "dtype bool", where=jnp.ones(BATCH))
    refuses(ValueError, f"[{BATCH}]", where=jnp.ones(BATCH + 1, bool))
    refuses(ValueError, f"[{BATCH}]", weights=jnp.ones(BATCH + 1))
    if row.blocks:
        refuses(ValueError, "at least 1", block_size=0)
    refuses(TypeError, "unexpected keyword", wheer=jnp.ones(BATCH, bool))


def test_an_eager_call_compiles_once_whatever_its_hyperparameters():
    traced = []

    def row(rows, positive, negative, *, margin):
        traced.append(margin)
        total = jnp.sum(jnp.where(positive, rows + margin, 0.0), axis=1)
        return reductions.Terms(total, jnp.ones_like(total), jnp.ones_like(total))

    x = jnp.asarray(make_inputs(LOSSES[0], BATCH, DIM)["embeddings"], jnp.float32)
    for margin in (0.1, 0.2, jnp.float32(0.3), jnp.float32(0.4)):
        rows.sums(Partial(row, margin=margin), x, LABELS, measure=distances.euclidean)
    # Twice: a Python float and an array differ in their weak type.
    assert len(traced) == 2


def test_every_public_loss_has_a_row():
    tested = {function_of(row).__name__ for row in LOSSES}
    public = {name for name in losses.__all__ if callable(getattr(losses, name))}
    options = {"AlignedOptions", "ClassOptions", "SoftmaxOptions"}
    assert public - options == tested


def test_reduction_per_anchor_is_a_value_for_each_row():
    inputs = make_inputs(LOSSES[0], BATCH, DIM)
    values = losses.triplet_all(
        jnp.asarray(inputs["embeddings"], jnp.float32),
        LABELS,
        reduction=reductions.per_anchor,
    )
    assert values.shape == (BATCH,)
