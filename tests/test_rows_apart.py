"""Positives and negatives apart, with and without windows, equal one row loss."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from metricjax import _windows, distances, pairs, reductions, rows
from metricjax.reductions import Terms

BATCH, DIM, BLOCK = 150, 3, 8
# Classes side by side, in no order, of which the last is ignored. Those of the block at
# 88 take up a window to the last place; then one of them is larger; then all are mixed.
SIZES = {7: 3, 2: 1, 11: 4, 5: 9, 0: 7, 3: 65, 9: 7, 1: 6, 4: 12, 8: 28, -1: 8}
TOGETHER = np.repeat(list(SIZES), list(SIZES.values())).astype(np.int32)
LARGE = np.where(TOGETHER == 1, 9, TOGETHER).astype(np.int32)
MIXED = np.random.default_rng(5).permutation(TOGETHER)
LABELS = {"together": TOGETHER, "large": LARGE, "mixed": MIXED}


def near_row(d, positive, *extra, margin):
    cost = jnp.where(positive, jnp.square(d) + margin * d, 0.0)
    count = jnp.sum(positive, axis=1, dtype=d.dtype)
    return Terms(cost.sum(axis=1) * (extra[0] if extra else 1.0), count, count)


def far_row(d, negative, *extra, margin):
    cost = jnp.where(negative, jax.nn.softplus(margin - d), 0.0)
    active = jnp.sum(negative & (d < margin), axis=1, dtype=d.dtype)
    total = cost.sum(axis=1) * (extra[0] if extra else 1.0)
    return Terms(total, jnp.sum(negative, axis=1, dtype=d.dtype), active)


def both_row(d, positive, negative, *extra, margin):
    parts = (
        near_row(d, positive, *extra, margin=margin),
        far_row(d, negative, *extra, margin=margin),
    )
    return Terms(*(jnp.stack(fields, axis=1) for fields in zip(*parts, strict=True)))


@reductions.reads_sums
def unequal(terms):
    """A reduction that weighs the parts by what it finds."""
    total, active = terms.total.sum(axis=0), terms.active.sum(axis=0)
    return jnp.sum(total / active) + 0.1 * jnp.sum(jnp.square(total / active))


def loss(x, margin, *, apart, labels: Any, **options):
    row: Any = Partial(both_row, margin=margin)
    if apart:
        row = rows.Apart(
            Partial(near_row, margin=margin), Partial(far_row, margin=margin)
        )
    settings: dict[str, Any] = {
        "measure": distances.squared_euclidean,
        "reduction": unequal,
        "block_size": BLOCK,
    }
    return rows.apply(row, x, labels, **(settings | options))


def vectors(seed=0, batch=BATCH):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(batch, DIM)))


def derivatives(f, x, v):
    """Value and gradient, forward mode, and a product with the Hessian."""
    value, slopes = jax.value_and_grad(f, argnums=(0, 1))(x, 1.5)
    forward = jax.jvp(f, (x, 1.5), (v, 0.3))
    along = jax.grad(lambda x: jnp.vdot(jax.grad(f)(x, 1.5), v))(x)
    return value, slopes, forward, along


def assert_same(ours, theirs):
    for mine, other in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-11, atol=1e-12)


OPTIONS = {
    "symmetric": {"symmetric": True},
    "padding": {
        "where": jnp.arange(BATCH) % 7 != 2,
        "ids": jnp.arange(BATCH, dtype=jnp.int32) // 2,
        "symmetric": True,
    },
    "weights": {
        "weights": jnp.linspace(0.5, 2.0, BATCH),
        "per_anchor": jnp.linspace(2.0, 0.5, BATCH),
    },
    "terms": {"reduction": lambda terms: jnp.sum(jnp.square(terms.total))},
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("together", name) for name in OPTIONS),
        *((kind, "symmetric") for kind in ("large", "mixed")),
    ],
)
def test_every_derivative_is_that_of_one_row_loss(kind, name):
    given = {"labels": LABELS[kind], **OPTIONS[name]}

    @jax.jit
    def both(x, v):
        found = (partial(loss, apart=apart, **given) for apart in (True, False))
        return [derivatives(f, x, v) for f in found]

    assert_same(*both(vectors(), vectors(1)))


@pytest.mark.usefixtures("x64")
def test_under_vmap_each_batch_has_its_own_windows():
    labels = jnp.stack([jnp.asarray(y) for y in LABELS.values()])
    x = jnp.stack([vectors(seed) for seed in range(len(LABELS))])

    def slopes(apart):
        def one(x, labels):
            return jax.grad(lambda x: loss(x, 1.5, apart=apart, labels=labels))(x)

        return jax.jit(jax.vmap(one))(x, labels)

    assert_same(slopes(True), slopes(False))


OTHERS = {
    "references": {"ref_embeddings": vectors(2, 200), "ref_labels": np.arange(200) % 9},
    "pairs": {"labels": pairs.from_labels(MIXED)},
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", OTHERS)
def test_other_candidates_have_no_window(name):
    given = {"labels": TOGETHER, **OTHERS[name]}
    ours, whole = (
        jax.grad(partial(loss, apart=apart, **given))(vectors(), 1.5)
        for apart in (True, False)
    )
    assert_same(ours, whole)


def test_blocks_whose_classes_are_near_are_measured_in_a_window():
    widths = []

    def measure(x, y):
        jax.debug.callback(lambda: widths.append(y.shape[0]))
        return distances.squared_euclidean(x, y)

    x, window = vectors().astype(jnp.float32), BLOCK + _windows.BESIDE
    for kind, labels in LABELS.items():
        widths.clear()
        found = loss(x, 1.5, apart=True, labels=labels, measure=measure)
        jax.block_until_ready(found)
        jax.effects_barrier()
        # The negatives are everywhere.
        assert set(widths) == ({window, BATCH} if kind == "together" else {BATCH})
