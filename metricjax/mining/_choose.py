"""Choosing in rows: the first, the nearest, the `k` smallest of what a mask allows.

All of them work on `[..., n]`, break ties by the lowest index, and never sort a row.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from metricjax import _checks, numerics
from metricjax.pairs import Pairs, Triplets

Rule = Callable[[Array, Array, Array], tuple[Array, Array]]


def usable(distances: ArrayLike, pairs: Pairs) -> tuple[Array, Pairs]:
    """Distances in at least float32, and masks without what is not a number."""
    if not isinstance(pairs, Pairs):
        raise TypeError(
            f"Expected `pairs` to be pairs.Pairs, got {type(pairs).__name__}; make "
            "them of labels with pairs.from_labels."
        )
    for name, mask in pairs._asdict().items():
        _checks.check_mask(f"pairs.{name}", mask, jnp.shape(distances))
    distances = numerics.promote(distances)
    known = ~jnp.isnan(distances)
    return distances, Pairs(pairs.positive & known, pairs.negative & known)


def first(mask: Array) -> tuple[Array, Array]:
    """Index of the first True of each row (0 if none), and whether there is one.

    A masked minimum of floats, exact to 2^24 columns: that of integers is slower on a
    CPU, and argmax many times.
    """
    n = mask.shape[-1]
    index = jnp.arange(n, dtype=jnp.float32)
    found = jnp.min(jnp.where(mask, index, n), axis=-1).astype(jnp.int32)
    return jnp.where(found < n, found, 0), found < n


def nearest(distances: Array, mask: Array) -> tuple[Array, Array]:
    """Index of the smallest distance of each row, and whether there is one."""
    least = jnp.min(jnp.where(mask, distances, jnp.inf), axis=-1, keepdims=True)
    return first(mask & (distances == least))


def farthest(distances: Array, mask: Array) -> tuple[Array, Array]:
    """Index of the largest distance of each row, and whether there is one."""
    return nearest(-distances, mask)


def first_columns(mask: Array, k: int | None) -> tuple[Array, Array]:
    """Indices and validity of the first `k` True of each row, `[..., k]`."""
    n = mask.shape[-1]
    # Exact in float32, whose top_k is many times faster than that of integers on a CPU.
    order = jnp.broadcast_to(jnp.arange(n, dtype=jnp.float32), mask.shape)
    return nearest_columns(order, mask, n if k is None else k)


def nearest_columns(distances: Array, mask: Array, k: int) -> tuple[Array, Array]:
    """Indices and validity of the `k` smallest of each row, nearest first."""
    k = min(k, mask.shape[-1])
    index = jax.lax.top_k(jnp.where(mask, -distances, -jnp.inf), k)[1]
    valid = jnp.take_along_axis(mask, index, axis=-1)
    return jnp.where(valid, index, 0), valid


def mask_of(index: Array, valid: Array, n: int) -> Array:
    """Bool `[..., n]`, True in the valid ones of the columns `[..., k]`."""
    nothing = jnp.zeros((*index.shape[:-1], n), bool)
    # What is not valid goes beyond the end, where it is dropped.
    index = jnp.where(valid, index, n)
    return jnp.put_along_axis(nothing, index, True, axis=-1, inplace=False, mode="drop")


def smallest(values: Array, mask: Array, count: Array) -> Array:
    """Bool `[..., n]`: the `count` (int32 `[...]`) smallest entries of each row."""
    keys = _ordered_bits(values)
    last = _kth(keys, mask, count)[..., None]
    below, equal = mask & (keys < last), mask & (keys == last)
    rest = count - jnp.sum(below, axis=-1, dtype=jnp.int32)
    column = jnp.arange(values.shape[-1], dtype=jnp.uint32)
    column = jnp.broadcast_to(column, values.shape)
    first = equal & (column <= _kth(column, equal, rest)[..., None])
    return below | (first & (rest > 0)[..., None])


def _ordered_bits(values: Array) -> Array:
    """Unsigned integers in the order of the floats."""
    kind = jnp.uint64 if values.dtype == jnp.float64 else jnp.uint32
    top = jnp.asarray(1, kind) << (8 * values.dtype.itemsize - 1)
    # Zero and minus zero are one value.
    bits = jax.lax.bitcast_convert_type(jnp.where(values == 0, 0.0, values), kind)
    return jnp.where(bits & top, ~bits, bits | top)


def _kth(keys: Array, mask: Array, count: Array) -> Array:
    """The `count`-th smallest of the unsigned keys of each row, bit by bit."""
    width = 8 * keys.dtype.itemsize

    def step(i: Array, prefix: Array) -> Array:
        bit = jnp.asarray(1, keys.dtype) << (width - 1 - i).astype(keys.dtype)
        raised = prefix | bit
        below = jnp.sum(mask & (keys < raised[..., None]), axis=-1, dtype=jnp.int32)
        return jnp.where(below < count, raised, prefix)

    # Made of the keys, so that in jax.shard_map the carry varies as they do.
    return jax.lax.fori_loop(0, width, step, jnp.zeros_like(keys[..., 0]))


def per_positive(
    distances: Array,
    pairs: Pairs,
    rule: Rule,
    *,
    positives: int | None,
    negatives: int | None,
) -> Triplets:
    """Triplets of each of the first positives with the negatives that a rule allows.

    The rule gets the number of the positive (0, 1, ...), its column and its distance,
    both `[...]`, and gives scores and a mask of candidates, `[..., n]`. Of the masked
    negatives those of the smallest score are taken, or all if `negatives` is None.
    """
    n = distances.shape[-1]
    column, some = first_columns(pairs.positive, positives)
    reach = jnp.take_along_axis(distances, column, axis=-1)

    def one(positive: tuple[Array, ...]) -> tuple[Array, Array]:
        number, column, d_ap, some = positive
        score, allowed = rule(number, column, d_ap)
        allowed = allowed & pairs.negative & some[..., None]
        if negatives is None:
            index = jnp.arange(n, dtype=jnp.int32)
            return jnp.where(allowed, index, 0), allowed
        if negatives == 1:
            index, found = nearest(score, allowed)
            return index[..., None], found[..., None]
        return nearest_columns(score, allowed, negatives)

    number = jnp.arange(column.shape[-1], dtype=jnp.int32)
    # One positive at a time: [..., n] memory for what the rule computes.
    each = (number, *(jnp.moveaxis(x, -1, 0) for x in (column, reach, some)))
    negative, valid = (jnp.moveaxis(x, 0, -2) for x in jax.lax.map(one, each))
    positive = jnp.where(valid, column[..., None], 0)
    flat = (*valid.shape[:-2], -1)
    return Triplets(*(x.reshape(flat) for x in (positive, negative, valid)))
