"""Rows that are the same from both ends of a pair: half of the gradient is enough."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from metricjax import distances, losses, pairs, reductions, rows
from metricjax.reductions import Terms

BATCH, DIM = 11, 3
LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, -1], np.int32)


def pair_row(d, positive, negative, *, margin):
    """Positives and negatives apart; each pair costs what it costs from its end."""
    near = jnp.where(positive, jnp.square(d), 0.0)
    far = jnp.where(negative, jax.nn.softplus(margin - d), 0.0)
    total = jnp.stack([near.sum(axis=1), far.sum(axis=1)], axis=1)
    masks = jnp.stack([positive, negative], axis=1)
    count = jnp.sum(masks, axis=2, dtype=d.dtype)
    return Terms(total, count, count)


def loss(x, margin, *, symmetric, labels: Any = LABELS, **options):
    return rows.apply(
        Partial(pair_row, margin=margin),
        x,
        labels,
        measure=distances.squared_euclidean,
        reduction=reductions.mean,
        symmetric=symmetric,
        **options,
    )


def vectors(seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(BATCH, DIM)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("block_size", [1, 4, 99])
def test_every_derivative_is_that_of_the_whole_gradient(block_size):
    x, v = vectors(), vectors(1)
    where = jnp.arange(BATCH) != 4

    @jax.jit
    def derivatives(x):
        found = []
        for symmetric in (True, False):

            def f(x, margin, symmetric=symmetric):
                settings = {"where": where, "block_size": block_size}
                return loss(x, margin, symmetric=symmetric, **settings)

            value, slopes = jax.value_and_grad(f, argnums=(0, 1))(x, 1.5)
            forward = jax.jvp(f, (x, 1.5), (v, 0.3))
            along = jax.grad(lambda x, f=f: jnp.vdot(jax.grad(f)(x, 1.5), v))(x)
            found.append((value, slopes, forward, along))
        return found

    ours, whole = derivatives(x)
    for mine, other in zip(*map(jax.tree.leaves, (ours, whole)), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-12, atol=1e-14)
    assert np.all(np.any(whole[1][0][:4], axis=1))


UNLIKE = {
    "weights": {"weights": jnp.linspace(0.5, 2.0, BATCH)},
    "references": {"ref_embeddings": vectors(2), "ref_labels": LABELS},
    "pairs": {
        "labels": pairs.Pairs(
            jnp.asarray(np.tri(BATCH, k=-1, dtype=bool)),
            jnp.asarray(~np.tri(BATCH, dtype=bool)),
        )
    },
}


@pytest.mark.parametrize("name", UNLIKE)
def test_ends_that_differ_get_the_whole_gradient(name):
    x = vectors()
    ours, whole = (
        jax.grad(lambda x, s=s: loss(x, 1.5, symmetric=s, **UNLIKE[name]))(x)
        for s in (True, False)
    )
    np.testing.assert_allclose(ours, whole, rtol=1e-6, atol=1e-7)


def test_fewer_products_are_made():
    x = jnp.zeros((256, 64))
    labels = np.arange(256) // 4

    def products(symmetric):
        step = jax.grad(
            lambda x: loss(x, 1.5, symmetric=symmetric, labels=labels, block_size=256)
        )
        return str(jax.jit(step).lower(x).as_text()).count("stablehlo.dot_general")

    # One to measure, and one or two for each of the two parts; the rest are small.
    assert products(False) - products(True) == 2


@pytest.mark.usefixtures("x64")
def test_a_distance_of_ones_own_may_be_longer_one_way():
    x, goal = vectors(), jnp.array([1.0, -2.0, 0.5])

    def uphill(x, y):
        rise = (y @ goal)[None] - (x @ goal)[:, None]
        return distances.squared_euclidean(x, y) + jnp.exp(rise)

    def blocks(x):
        return losses.contrastive(x, LABELS, distance=uphill, margin=9.0)

    def dense(x):
        near, far = pairs.from_labels(LABELS)
        d = uphill(x, x)
        pull = jnp.sum(jnp.where(near, jnp.square(d), 0.0)) / jnp.sum(near)
        push = jnp.where(far, jnp.square(jnp.maximum(9.0 - d, 0.0)), 0.0)
        return (pull + jnp.sum(push) / jnp.sum(far)) / 2.0

    np.testing.assert_allclose(
        jax.grad(blocks)(x), jax.grad(dense)(x), rtol=1e-10, atol=1e-12
    )
