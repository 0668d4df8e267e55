"""Miners that draw. The key comes first, and may be one for each row.

Given one key, each row folds in its number. In the engine (`rows.mine`, a loss with
`pair_miner`) that is the anchor's place in the whole batch: what is drawn is the same
with any block size and on any number of devices. Use a new key in each training step.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from metricjax import numerics
from metricjax.mining._choose import per_positive, usable
from metricjax.pairs import Pairs, Triplets


def distance_weighted(
    key: Array,
    distances: Array,
    pairs: Pairs,
    *,
    dim: ArrayLike,
    lower_cutoff: ArrayLike = 0.5,
    upper_cutoff: ArrayLike = 1.4,
    positives: int | None = None,
) -> Triplets:
    """For each positive a negative drawn evenly over the distances, not the points.

    On a sphere of many dimensions nearly all negatives are about sqrt(2) away. Each is
    drawn with a chance proportional to `1 / q(d)`, where `log q(d) = (n - 2) log d +
    (n - 3)/2 log(1 - d^2/4)` is the density of distances between random unit vectors.

    Args:
        key: a typed random key, or `[...]` of them, one for each row.
        distances: `[..., n]`, Euclidean (not squared), between unit vectors.
        pairs: masks of the same shape.
        dim: `n` of the formula, the size of the embeddings.
        lower_cutoff: nearer negatives are weighted as if at this distance; more than 0.
        upper_cutoff: negatives from here on are never drawn.
        positives: number `k` of positives of an anchor to look at, the first in order;
            with K examples per class give K - 1. By default n, which is slow. Static.

    Returns:
        `Triplets` `[..., k]`; not valid for an anchor that has no negative nearer than
        `upper_cutoff` (the authors' code then draws any candidate).

    Raises:
        ValueError: if shapes disagree.
        TypeError: if the masks are not bool, or the key is not a typed one.

    Example:
        >>> pairs = Pairs(jnp.array([True, False, False]),
        ...               jnp.array([False, True, True]))
        >>> distance_weighted(jax.random.key(0), jnp.array([1.0, 1.2, 1.9]), pairs,
        ...                   dim=64, positives=1).negative
        Array([1], dtype=int32)

    References:
        Wu et al., "Sampling Matters in Deep Embedding Learning", ICCV 2017,
        arXiv:1706.07567, section 4.1. The cutoffs: the authors' code.
    """
    distances, pairs = usable(distances, pairs)
    keys = _row_keys(key, distances.shape[:-1])
    drawable = distances < jnp.minimum(upper_cutoff, 2.0)
    near = jnp.where(drawable, jnp.maximum(distances, lower_cutoff), 1.0)
    dim = jnp.asarray(dim, near.dtype)
    weight = (2.0 - dim) * jnp.log(near)
    weight -= 0.5 * (dim - 3.0) * jnp.log1p(-0.25 * jnp.square(near))

    def rule(number: Array, column: Array, d_ap: Array) -> tuple[Array, Array]:
        del column, d_ap
        # The largest of log-weights with Gumbel noise is a draw by the weights.
        noise = _per_row(jax.random.gumbel, _fold(keys, number), distances)
        return -(weight + noise), drawable

    return per_positive(distances, pairs, rule, positives=positives, negatives=1)


def uniform_histogram(
    key: Array,
    distances: Array,
    pairs: Pairs,
    *,
    bins: int = 100,
    positives_per_bin: int = 10,
    negatives_per_bin: int = 10,
) -> Pairs:
    """Keep a random few pairs from each bin of a histogram of their distances.

    The bins of an anchor are of even width, from its least distance to its greatest,
    positives and negatives apart. What is kept is spread evenly over the distances.

    Args:
        key: a typed random key, or `[...]` of them, one for each row.
        distances: `[..., n]`, of each anchor to the candidates.
        pairs: masks of the same shape.
        bins: number of bins. Static.
        positives_per_bin: most positives of a bin to keep. Static.
        negatives_per_bin: most negatives of a bin to keep. Static.

    Returns:
        `Pairs` of the same shape.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if the masks are not bool, or the key is not a typed one.

    Example:
        >>> pairs = Pairs(jnp.array([False] * 5), jnp.array([True] * 5))
        >>> kept = uniform_histogram(
        ...     jax.random.key(0), jnp.array([0.0, 0.1, 0.2, 0.3, 1.0]), pairs,
        ...     bins=2, negatives_per_bin=1)
        >>> kept.negative[:4].sum().item(), kept.negative[4].item()
        (1, True)

    References:
        pytorch-metric-learning's UniformHistogramMiner, which draws with replacement
        from the pairs of the whole batch, not from those of each anchor.
    """
    distances, (positive, negative) = usable(distances, pairs)
    keys = _row_keys(key, distances.shape[:-1])

    def keep(side: int, mask: Array, per_bin: int) -> Array:
        order = _per_row(_random_order, _fold(keys, jnp.int32(side)), distances)
        return _few_of_each(_bin(distances, mask, bins), order, mask, bins, per_bin)

    return Pairs(
        keep(0, positive, positives_per_bin), keep(1, negative, negatives_per_bin)
    )


def _bin(distances: Array, mask: Array, bins: int) -> Array:
    low = jnp.min(jnp.where(mask, distances, jnp.inf), axis=-1, keepdims=True)
    high = jnp.max(jnp.where(mask, distances, -jnp.inf), axis=-1, keepdims=True)
    part = jnp.where(mask, numerics.divide(distances - low, high - low), 0.0)
    return jnp.clip(jnp.floor(part * bins), 0, bins - 1).astype(jnp.int32)


def _few_of_each(
    bin_of: Array, order: Array, mask: Array, bins: int, count: int
) -> Array:
    """The `count` first in a random order of each bin of each row."""
    last = jnp.asarray(jnp.iinfo(order.dtype).max, order.dtype)

    def row(bin_of: Array, order: Array, mask: Array) -> Array:
        def step(_: Array, left: Array) -> Array:
            ranks = jnp.where(left, order, last)
            # Made of the ranks, so that in jax.shard_map it varies as they do.
            start = jnp.full_like(ranks, last, shape=(bins,))
            best = start.at[bin_of].min(ranks)
            return left & (ranks != best[bin_of])

        return mask & ~jax.lax.fori_loop(0, count, step, mask)

    for _ in mask.shape[:-1]:
        row = jax.vmap(row)
    return row(bin_of, order, mask)


def _random_order(key: Array, shape: tuple[int], dtype: jnp.dtype) -> Array:
    """Distinct random uint32 below the largest one."""
    del dtype
    (n,) = shape
    column = jnp.arange(n, dtype=jnp.uint32)
    low = jnp.uint32((1 << n.bit_length()) - 1)
    # The low bits are the column, which no two share and which is less than `low`.
    return (jax.random.bits(key, shape, jnp.uint32) & ~low) | column


def _row_keys(key: Array, shape: tuple[int, ...]) -> Array:
    """Typed keys `[...]`, one for each row."""
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        raise TypeError(
            f"Expected `key` to be a typed random key, got {key!r}; make one with "
            "jax.random.key(seed)."
        )
    if key.shape == shape:
        return key
    if key.shape:
        raise ValueError(
            f"Expected one `key`, or one for each row {list(shape)}, got "
            f"{list(key.shape)} keys."
        )
    rows = jnp.arange(math.prod(shape), dtype=jnp.int32)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows).reshape(shape)


def _fold(keys: Array, number: Array) -> Array:
    """Each of the keys `[...]` with a number folded in."""
    folded = jax.vmap(lambda key: jax.random.fold_in(key, number))(keys.reshape(-1))
    return folded.reshape(keys.shape)


def _per_row(draw: Callable[..., Array], keys: Array, like: Array) -> Array:
    """What `draw(key, shape, dtype)` gives for each row of `like`."""
    n = like.shape[-1]
    each = jax.vmap(lambda key: draw(key, (n,), like.dtype))(keys.reshape(-1))
    return each.reshape(like.shape)
