"""The engine against the same row loss applied once to the whole matrix."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import distances, numerics, pairs, reductions, rows, similarities
from metricjax.pairs import Pairs
from metricjax.reductions import Terms

BATCH, DIM = 10, 3
LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 3], np.int32)


def soft_row(d, positive, negative, *extra, margin):
    """A smooth loss in which every distance, and all that is extra, matters."""
    for scale in extra:
        d = d * scale
    near = jnp.sum(jnp.where(positive, jnp.square(d), 0.0), axis=1)
    far = numerics.softplus_sum(margin - d, negative)
    count = jnp.sum(positive | negative, axis=1, dtype=d.dtype)
    active = jnp.sum(negative & (d < margin), axis=1, dtype=d.dtype)
    return Terms(near + far, count, active)


def two_parts(d, positive, negative, *, margin):
    """The same, its positives and negatives apart."""
    near = soft_row(d, positive, jnp.zeros_like(negative), margin=margin)
    far = soft_row(d, jnp.zeros_like(positive), negative, margin=margin)
    return Terms(*(jnp.stack(both, axis=1) for both in zip(near, far, strict=True)))


def dense(row, x, masks, *extra, measure=distances.squared_euclidean):
    """The reference: one matrix, no blocks."""
    return row(measure(x, x), *masks, *extra)


def vectors(seed=0, batch=BATCH):
    return np.random.default_rng(seed).normal(size=(batch, DIM))


def engine(
    x,
    *,
    entry=rows.sums,
    row=soft_row,
    margin: ArrayLike = 1.0,
    labels: ArrayLike | Pairs = LABELS,
    **options,
):
    """The loss through the engine."""
    options.setdefault("measure", distances.squared_euclidean)
    return entry(Partial(row, margin=margin), x, labels, **options)


MASKS = pairs.from_labels(LABELS)
THREE = np.linspace(0.5, 1.5, BATCH)


# --- blocks ---------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_blocks_that_do_not_divide_the_batch_change_nothing():
    x = jnp.asarray(vectors())

    def reference(x):
        return dense(Partial(soft_row, margin=1.0), x, MASKS)

    @jax.jit
    def each(x):
        expected = reference(x), jax.grad(lambda x: reference(x).total.sum())(x)
        found = []
        for size in (1, 4, 99):
            gradient = jax.grad(lambda x, b=size: engine(x, block_size=b).total[0])
            found.append((engine(x, entry=rows.terms, block_size=size), gradient(x)))
        return expected, found

    expected, found = each(x)
    for of_size in found:
        for a, b in zip(
            jax.tree.leaves(of_size), jax.tree.leaves(expected), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


@pytest.mark.usefixtures("x64")
def test_terms_take_any_cotangent_and_parts_are_kept_apart():
    x, weights = jnp.asarray(vectors(1)), jnp.asarray(vectors(2)[:, :2])
    row = Partial(two_parts, margin=1.0)

    @jax.jit
    def both(x):
        ways = [
            lambda x: engine(x, entry=rows.terms, row=two_parts, block_size=4),
            lambda x: dense(row, x, MASKS),
        ]
        return [jax.vjp(lambda x, way=way: way(x).total, x)[1](weights) for way in ways]

    (found,), (expected,) = both(x)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    summed, whole = jax.jit(
        lambda x: (engine(x, row=two_parts, block_size=4), dense(row, x, MASKS))
    )(x)
    assert summed.total.shape == (1, 2)
    np.testing.assert_allclose(summed.total[0], whole.total.sum(axis=0))


@pytest.mark.usefixtures("x64")
def test_every_reduction_gives_the_gradient_of_the_dense_loss():
    x = jnp.asarray(vectors(3))
    row = Partial(two_parts, margin=1.0)

    def worst_anchor(terms):
        return jnp.max(jnp.sum(terms.total, axis=1))

    def loss(x, reduction):
        options = {"row": two_parts, "reduction": reduction, "block_size": 4}
        return engine(x, entry=rows.apply, **options)

    def reference(x, reduction):
        return reduction(dense(row, x, MASKS))

    @jax.jit
    def both(x):
        return [
            [jax.value_and_grad(way)(x, reduction) for way in (loss, reference)]
            for reduction in (reductions.mean, reductions.mean_active, worst_anchor)
        ]

    for found, expected in both(x):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14)


# --- derivatives ----------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_forward_mode_and_second_derivatives_equal_the_dense_ones():
    x, step = jnp.asarray(vectors(4, 6)), jnp.asarray(vectors(5, 6))
    labels = LABELS[:6]
    masks = pairs.from_labels(labels)

    def loss(x):
        return engine(x, labels=labels, block_size=4).total[0]

    def reference(x):
        return dense(Partial(soft_row, margin=1.0), x, masks).total.sum()

    def derivatives(f):
        return jax.jit(
            lambda x: (
                jax.jvp(f, (x,), (step,)),
                jax.jacfwd(f)(x),
                jax.hessian(f)(x),
            )
        )(x)

    for a, b in zip(
        jax.tree.leaves(derivatives(loss)),
        jax.tree.leaves(derivatives(reference)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("x64")
def test_a_traced_margin_has_its_gradient_and_vmaps():
    x = jnp.asarray(vectors(6))
    margins = jnp.linspace(0.2, 2.0, 8)

    def loss(margin, x):
        return engine(x, margin=margin, block_size=4).total[0]

    def reference(margin, x):
        return dense(Partial(soft_row, margin=margin), x, MASKS).total.sum()

    found, expected = (
        jax.jit(jax.vmap(jax.value_and_grad(f, argnums=(0, 1)), in_axes=(0, None)))(
            margins, x
        )
        for f in (loss, reference)
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


def products(function, *arguments):
    """Number of matrix products in a lowered function; scaling by a number is none."""
    lines = jax.jit(function).lower(*arguments).as_text().splitlines()
    return sum("dot_general" in x and "contracting_dims = []" not in x for x in lines)


def test_a_value_alone_computes_no_gradient():
    x = jnp.asarray(vectors(7), jnp.float32)

    def loss(x):
        return engine(x, block_size=5).total[0]

    assert products(loss, x) == 1
    # One for the rows, one for the anchors, one for the candidates.
    assert products(jax.value_and_grad(loss), x) == 3
    # Of a margin alone no gradient of the embeddings.
    assert products(jax.grad(lambda m: engine(x, margin=m).total[0]), 1.0) == 1


# --- what a row is given --------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_extras_reach_their_rows_and_have_gradients():
    x = jnp.asarray(vectors(8))
    left, right = jnp.asarray(THREE[:, None]), jnp.asarray(THREE[::-1].copy())

    def loss(x, left, right):
        summed = engine(x, per_anchor=left, per_candidate=right, block_size=4)
        return summed.total[0]

    def reference(x, left, right):
        row = Partial(soft_row, margin=1.0)
        return dense(row, x, MASKS, left, right).total.sum()

    found, expected = (
        jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2)))(x, left, right)
        for f in (loss, reference)
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


def nearer_of_two(measured, positive, negative):
    d, s = measured
    total = jnp.sum(jnp.where(positive, d, 0.0) + jnp.where(negative, s, 0.0), axis=1)
    ones = jnp.ones_like(total)
    return Terms(total, ones, ones)


def two_measures(x, y):
    return distances.squared_euclidean(x, y), similarities.dot(x, y)


def test_a_measure_may_give_several_matrices():
    x = jnp.asarray(vectors(9), jnp.float32)

    @jax.jit
    def both(x):
        options = {"measure": two_measures, "block_size": 4}
        whole = nearer_of_two(two_measures(x, x), *MASKS)
        return rows.terms(nearer_of_two, x, LABELS, **options), whole

    found, expected = both(x)
    np.testing.assert_allclose(found.total, expected.total, rtol=1e-5)


def test_prepare_is_applied_to_both_sides_and_differentiated():
    x = jnp.asarray(vectors(10), jnp.float32)

    def prepared(x):
        return engine(x, prepare=numerics.l2_normalize, block_size=4).total[0]

    def before(x):
        return engine(numerics.l2_normalize(x), block_size=4).total[0]

    found, expected = (jax.jit(jax.value_and_grad(f))(x) for f in (prepared, before))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_functools_partial_configures_a_row_as_well():
    x = jnp.asarray(vectors(11), jnp.float32)
    row = functools.partial(soft_row, margin=0.5)
    found = rows.sums(row, x, LABELS, measure=distances.squared_euclidean)
    np.testing.assert_array_equal(found.total, engine(x, margin=0.5).total)


def test_weights_multiply_the_anchors_and_are_constants():
    x, weights = jnp.asarray(vectors(12), jnp.float32), jnp.asarray(THREE, jnp.float32)

    @jax.jit
    def each(weights):
        plain = engine(x, entry=rows.terms)
        weighted = engine(x, entry=rows.terms, weights=weights, block_size=4)
        slopes = [
            jax.grad(lambda w, e=entry: engine(x, entry=e, weights=w).total.sum())
            for entry in (rows.sums, rows.terms)
        ]
        return plain, weighted, [slope(weights) for slope in slopes]

    plain, weighted, slopes = each(weights)
    for a, b in zip(weighted, plain, strict=True):
        np.testing.assert_allclose(a, b * weights, rtol=1e-6)
    np.testing.assert_array_equal(slopes, 0.0)


def test_counts_carry_no_gradient():
    def counting(d, positive, negative):
        total = jnp.sum(jnp.where(positive, d, 0.0), axis=1)
        return Terms(total, total, 2 * total)

    x = jnp.asarray(vectors(13), jnp.float32)
    for entry in (rows.sums, rows.terms):

        def counts(x, entry=entry):
            made = entry(counting, x, LABELS, measure=distances.euclidean)
            return made.count.sum() + made.active.sum()

        np.testing.assert_array_equal(jax.jit(jax.grad(counts))(x), 0.0)


def test_masks_of_ones_own_are_used_without_padding_and_equal_ids():
    x = jnp.asarray(vectors(14), jnp.float32)
    rng = np.random.default_rng(0)
    positive, some = jnp.asarray(rng.random((2, BATCH, BATCH)) < [[[0.3]], [[0.7]]])
    masks = Pairs(positive, ~positive & some)
    where = np.arange(BATCH) < 8
    ids = np.array([0, 1, 2, 3, 4, 5, 6, 0, 8, 9])
    found = engine(
        x, entry=rows.terms, labels=masks, where=where, ids=ids, block_size=4
    )
    usable = where[:, None] & where & (ids[:, None] != ids)
    allowed = Pairs(*(mask & usable for mask in masks))
    expected = dense(Partial(soft_row, margin=1.0), x, allowed)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


# --- many devices ---------------------------------------------------------------------


def mesh(*sizes):
    names = ("data", "model")[: len(sizes)]
    return jax.make_mesh(sizes, names, axis_types=(AxisType.Auto,) * len(sizes))


def test_a_loss_without_axis_name_is_that_of_each_device():
    x, labels = vectors(17, 16).astype(np.float32), np.arange(16, dtype=np.int32) % 2
    spec = PartitionSpec("data")

    def local(margin, x, labels):
        return engine(x, labels=labels, margin=margin, block_size=3).total

    sharded = jax.shard_map(
        local, mesh=mesh(4), in_specs=(PartitionSpec(), spec, spec), out_specs=spec
    )

    def total(function):
        def weighted(margin, x):
            return jnp.vdot(function(margin, x, labels), jnp.arange(1.0, 5.0))

        return jax.jit(jax.value_and_grad(weighted, argnums=(0, 1)))(1.0, x)

    def one_by_one(margin, x, labels):
        return jnp.concatenate(
            [local(margin, x[i : i + 4], labels[i : i + 4]) for i in range(0, 16, 4)]
        )

    found, expected = total(sharded), total(one_by_one)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("entry", [rows.sums, rows.terms])
def test_a_batch_may_be_sharded_over_two_axes(entry):
    x, labels = vectors(18, 16).astype(np.float32), np.arange(16, dtype=np.int32) % 5
    axes = ("data", "model")
    spec = PartitionSpec(axes)

    def local(margin, x, labels):
        made = engine(
            x, entry=entry, labels=labels, margin=margin, block_size=3, axis_name=axes
        )
        return jax.lax.psum(made.total, axes) if entry is rows.terms else made.total

    def summed(margin, x, labels):
        made = jax.shard_map(
            local,
            mesh=mesh(2, 4),
            in_specs=(PartitionSpec(), spec, spec),
            out_specs=PartitionSpec(),
        )(margin, x, labels)
        return made.sum()

    def reference(margin, x, labels):
        return engine(x, labels=labels, margin=margin).total[0]

    found, expected = (
        jax.jit(jax.value_and_grad(f, argnums=(0, 1)))(1.0, x, labels)
        for f in (summed, reference)
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


# --- bad options ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "words", "options"),
    [
        (TypeError, "unexpected keyword", {"blocksize": 3}),
        (ValueError, "`block_size` to be an integer", {"block_size": 2.5}),
        (ValueError, "Expected `ref_embeddings`", {"ref_labels": LABELS}),
        (ValueError, "Expected `ref_labels`", {"ref_embeddings": np.ones((4, DIM))}),
        (ValueError, r"`ids` of shape \[10\]", {"ids": np.arange(3)}),
        (TypeError, "dtype bool", {"where": np.ones(BATCH)}),
        (ValueError, r"`weights` of shape \[10\]", {"weights": np.ones(3)}),
        (
            ValueError,
            "same last axis",
            {"ref_embeddings": np.ones((4, 7)), "ref_labels": np.zeros(4, int)},
        ),
        (
            ValueError,
            r"`labels.negative` of shape \[10, 10\]",
            {"labels": MASKS._replace(negative=MASKS.negative[:, :3])},
        ),
    ],
)
def test_bad_options_are_refused_with_a_cure(error, words, options):
    x = vectors().astype(np.float32)
    if "ref_embeddings" in options:
        options = options | {"ref_embeddings": np.float32(options["ref_embeddings"])}
    with pytest.raises(error, match=words):
        engine(x, **options)


def test_masks_for_references_need_no_reference_labels():
    x, refs = vectors(19).astype(np.float32), vectors(20, 4).astype(np.float32)
    masks = pairs.from_labels(LABELS, ref_labels=np.arange(4))
    with_labels = engine(x, ref_embeddings=refs, ref_labels=np.arange(4))
    with_masks = engine(x, labels=masks, ref_embeddings=refs)
    np.testing.assert_array_equal(with_masks.total, with_labels.total)
