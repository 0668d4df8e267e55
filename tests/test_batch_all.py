"""Batch-all triplets against all B^3 triplets, in float64, with many ties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metricjax import distances, losses, reductions

# A class of more than 64 items, one alone, and a batch that no block divides.
LABELS = np.array([0] * 67 + [1] * 9 + [2] * 8 + [3] * 2 + [4], np.int32)
BATCH, BLOCK, MARGIN = len(LABELS), 32, 1.0


def grid(seed=0):
    """Points on a grid, with duplicates, whose distances tie exactly."""
    return np.random.default_rng(seed).integers(0, 4, (BATCH, 2)).astype(float)


def all_triplets(x, squared):
    """Sum of hinges, numbers of triplets and of active ones, and the gradient."""
    total, count, active, gradient = 0.0, 0, 0, np.zeros_like(x)
    ties = 0
    gap = x[:, None] - x
    d = np.sum(gap**2, axis=2) if squared else np.sqrt(np.sum(gap**2, axis=2))
    # Of d_ij in x_i; that in x_j is the opposite. Zero for duplicates.
    slope = 2 * gap if squared else gap / np.where(d == 0, 1, d)[:, :, None]
    for a in range(BATCH):
        for p in range(BATCH):
            if p == a or LABELS[p] != LABELS[a]:
                continue
            for n in range(BATCH):
                if LABELS[n] == LABELS[a]:
                    continue
                cost = d[a, p] - d[a, n] + MARGIN
                count += 1
                ties += cost == 0
                if cost > 0:
                    total += cost
                    active += 1
                    gradient[a] += slope[a, p] - slope[a, n]
                    gradient[p] -= slope[a, p]
                    gradient[n] += slope[a, n]
    return total, count, active, gradient, ties


@pytest.mark.parametrize(
    ("distance", "squared"),
    [(distances.euclidean, False), (distances.squared_euclidean, True)],
    ids=["euclidean", "squared"],
)
@pytest.mark.usefixtures("x64")
def test_batch_all_equals_the_cubic_loops_with_ties(distance, squared):
    x = grid()
    total, count, active, gradient, ties = all_triplets(x, squared)
    assert ties > 1000
    assert BATCH % BLOCK

    def loss(x):
        options = {"margin": MARGIN, "distance": distance, "block_size": BLOCK}
        value = losses.triplet_all(x, LABELS, reduction=reductions.sum, **options)
        return value, losses.triplet_all(x, LABELS, reduction=None, **options)

    (value, terms), slopes = jax.jit(jax.value_and_grad(loss, has_aux=True))(x)
    assert float(value) == pytest.approx(total, rel=1e-12)
    assert (int(terms.count.sum()), int(terms.active.sum())) == (count, active)
    np.testing.assert_allclose(slopes, gradient, rtol=1e-9, atol=1e-9)


def test_batch_all_in_float32_has_the_same_mean_over_active_triplets():
    x = np.random.default_rng(1).normal(size=(BATCH, 2))
    total, _, active, gradient, _ = all_triplets(x, False)

    def loss(x):
        return losses.triplet_all(x, LABELS, margin=MARGIN, block_size=BLOCK)

    value, slopes = jax.jit(jax.value_and_grad(loss))(x.astype(np.float32))
    assert float(value) == pytest.approx(total / active, rel=1e-5)
    np.testing.assert_allclose(slopes, gradient / active, atol=1e-5)


@pytest.mark.parametrize("name", ["triplet_all", "triplet_hard", "supcon"])
def test_a_batch_of_8192_makes_no_array_of_its_pairs(name: str):
    batch, dim = 8192, 128
    x = jax.ShapeDtypeStruct((batch, dim), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    step = jax.jit(jax.value_and_grad(getattr(losses, name)))
    memory = step.lower(x, labels).compile().memory_analysis()
    assert memory is not None
    # One [batch, batch] array would be 256 MiB.
    assert memory.temp_size_in_bytes < 40 * 2**20
