"""Miners that draw: by the right chances, from the key alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from metricjax import mining
from metricjax.pairs import Pairs
from tests.oracles import mining as oracles

DRAWS = 4000


def row(n_positive, distances):
    """Pairs of one row: positives first, the rest are negatives."""
    n = len(distances)
    is_positive = np.arange(n) < n_positive
    return jnp.asarray(distances, jnp.float32), Pairs(is_positive, ~is_positive)


def frequencies(indices, n):
    return np.bincount(np.asarray(indices).ravel(), minlength=n) / np.size(indices)


def assert_drawn_with(found, chances, draws):
    """Within five standard deviations, everywhere."""
    spread = np.sqrt(chances * (1 - chances) / draws)
    assert np.all(np.abs(found - chances) <= 5 * spread), (found, chances)


def test_distance_weighted_draws_by_the_inverse_density_of_distances():
    # One below the lower cutoff, two beyond the upper one.
    d, pairs = row(1, [0.3, 0.2, 0.5, 0.8, 1.0, 1.2, 1.39, 1.4, 1.9])
    miner = Partial(mining.distance_weighted, dim=6, positives=1)
    keys = jax.random.split(jax.random.key(0), DRAWS)
    chosen = jax.jit(jax.vmap(miner, in_axes=(0, None, None)))(keys, d, pairs)
    assert np.all(chosen.valid)
    assert np.all(chosen.positive == 0)
    weights = oracles.distance_weights(np.asarray(d), range(1, 9), dim=6)
    chances = np.array([weights.get(j, 0.0) for j in range(9)])
    assert_drawn_with(frequencies(chosen.negative, 9), chances, DRAWS)
    assert chances[7] == chances[8] == chances[0] == 0


def test_the_cutoffs_of_distance_weighted_may_be_changed():
    d, pairs = row(1, [0.3, 0.05, 0.7, 1.99, 2.0])
    keys = jax.random.split(jax.random.key(1), DRAWS)

    @jax.jit
    def draw(keys, lower):
        def miner(key):
            return mining.distance_weighted(
                key,
                d,
                pairs,
                dim=4,
                positives=1,
                lower_cutoff=lower,
                upper_cutoff=3.0,
            )

        return jax.vmap(miner)(keys).negative

    options = {"dim": 4, "lower_cutoff": 0.6, "upper_cutoff": 2.0}
    weights = oracles.distance_weights(np.asarray(d), range(1, 5), **options)
    chances = np.array([weights.get(j, 0.0) for j in range(5)])
    assert_drawn_with(frequencies(draw(keys, 0.6), 5), chances, DRAWS)


def test_each_positive_draws_for_itself_and_none_may_be_left():
    d, pairs = row(3, [0.1, 0.2, 0.3, 1.0, 1.0, 1.0, 1.0])
    keys = jax.random.split(jax.random.key(2), 200)
    miner = jax.jit(
        jax.vmap(Partial(mining.distance_weighted, dim=6, positives=3), (0, None, None))
    )
    chosen = miner(keys, d, pairs)
    np.testing.assert_array_equal(chosen.positive, np.tile([0, 1, 2], (200, 1)))
    # Three draws among four equals are all the same once in sixteen.
    same = np.mean(np.all(chosen.negative == chosen.negative[:, :1], axis=1))
    assert 0.01 < same < 0.14
    nothing = miner(keys, d.at[3:].set(1.5), pairs)
    assert not np.any(nothing.valid)


def test_rows_draw_apart_and_a_key_for_each_row_is_the_same_as_one_folded():
    d, pairs = row(1, [0.1, *np.full(20, 1.0)])
    rows = jnp.tile(d, (50, 1))
    masks = jax.tree.map(lambda m: jnp.tile(m, (50, 1)), pairs)
    key = jax.random.key(3)
    miner = jax.jit(Partial(mining.distance_weighted, dim=6, positives=1))
    chosen = miner(key, rows, masks)
    assert len(np.unique(chosen.negative)) > 10
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(50))
    np.testing.assert_array_equal(miner(keys, rows, masks).negative, chosen.negative)
    other = miner(jax.random.key(4), rows, masks)
    assert not np.array_equal(other.negative, chosen.negative)


def test_uniform_histogram_keeps_a_few_of_each_bin():
    rng = np.random.default_rng(0)
    distances = rng.exponential(size=(6, 300)).astype(np.float32)
    negative = rng.random((6, 300)) < 0.7
    positive = ~negative & (rng.random((6, 300)) < 0.9)
    miner = Partial(
        mining.uniform_histogram, bins=7, positives_per_bin=2, negatives_per_bin=5
    )
    pairs = Pairs(jnp.asarray(positive), jnp.asarray(negative))
    kept = jax.jit(miner)(jax.random.key(0), distances, pairs)
    for d, mask, chosen, per_bin in (
        *zip(distances, positive, kept.positive, [2] * 6, strict=True),
        *zip(distances, negative, kept.negative, [5] * 6, strict=True),
    ):
        assert not np.any(chosen & ~mask)
        edges = np.linspace(d[mask].min(), d[mask].max(), 8)
        bins = np.clip(np.searchsorted(edges, d, side="right") - 1, 0, 6)
        for b in range(7):
            there = np.sum(mask & (bins == b))
            assert np.sum(chosen & (bins == b)) == min(there, per_bin), b


def test_uniform_histogram_draws_evenly_within_a_bin():
    # Five in the first of two bins, one in the second.
    d, pairs = row(0, [0.0, 0.1, 0.2, 0.3, 0.4, 1.0])
    keys = jax.random.split(jax.random.key(5), DRAWS)
    miner = Partial(mining.uniform_histogram, bins=2, negatives_per_bin=2)
    kept = jax.jit(jax.vmap(miner, in_axes=(0, None, None)))(keys, d, pairs).negative
    np.testing.assert_array_equal(kept.sum(axis=1), 3)
    assert_drawn_with(np.mean(kept, axis=0), np.array([0.4] * 5 + [1.0]), DRAWS)


def test_equal_distances_are_one_bin():
    d, pairs = row(0, np.full(8, 0.3))
    kept = mining.uniform_histogram(
        jax.random.key(0), d, pairs, bins=4, negatives_per_bin=3
    )
    assert int(kept.negative.sum()) == 3


def test_keys_must_be_typed_and_one_or_one_for_each_row():
    d, pairs = row(1, [0.1, 1.0, 1.1])
    with pytest.raises(TypeError, match=r"jax.random.key\(seed\)"):
        mining.distance_weighted(jax.random.PRNGKey(0), d, pairs, dim=4)
    with pytest.raises(TypeError, match="typed random key"):
        mining.uniform_histogram(0, d, pairs)  # pyright: ignore[reportArgumentType]
    keys = jax.random.split(jax.random.key(0), 3)
    with pytest.raises(ValueError, match="one for each row"):
        mining.distance_weighted(keys, d, pairs, dim=4)
