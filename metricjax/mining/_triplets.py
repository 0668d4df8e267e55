"""Triplets: for each anchor a fixed number of (positive, negative)."""

import jax
import jax.numpy as jnp
from jax import Array

from metricjax.mining._choose import (
    farthest,
    first,
    first_columns,
    nearest,
    usable,
)
from metricjax.pairs import Pairs, Triplets


def _single(positive: tuple[Array, Array], negative: tuple[Array, Array]) -> Triplets:
    valid = positive[1] & negative[1]
    chosen = (jnp.where(valid, index, 0) for index in (positive[0], negative[0]))
    return Triplets(*(x[..., None] for x in (*chosen, valid)))


def hard(distances: Array, pairs: Pairs) -> Triplets:
    """Farthest positive and nearest negative of each anchor ("batch hard").

    Args:
        distances: `[..., n]`, of each anchor to the candidates.
        pairs: masks of the same shape.

    Returns:
        `Triplets` `[..., 1]`.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if the masks are not bool.

    Example:
        >>> pairs = Pairs(jnp.array([True, True, False, False]),
        ...               jnp.array([False, False, True, True]))
        >>> hard(jnp.array([1.0, 2.0, 4.0, 3.0]), pairs)[:2]
        (Array([1], dtype=int32), Array([3], dtype=int32))

    References:
        Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification",
        2017, arXiv:1703.07737, eq. 5.
    """
    distances, pairs = usable(distances, pairs)
    return _single(
        farthest(distances, pairs.positive), nearest(distances, pairs.negative)
    )


def easy(distances: Array, pairs: Pairs) -> Triplets:
    """Nearest positive and farthest negative of each anchor.

    Args:
        distances: `[..., n]`, of each anchor to the candidates.
        pairs: masks of the same shape.

    Returns:
        `Triplets` `[..., 1]`.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if the masks are not bool.

    Example:
        >>> pairs = Pairs(jnp.array([True, True, False, False]),
        ...               jnp.array([False, False, True, True]))
        >>> easy(jnp.array([1.0, 2.0, 4.0, 3.0]), pairs)[:2]
        (Array([0], dtype=int32), Array([2], dtype=int32))
    """
    distances, pairs = usable(distances, pairs)
    return _single(
        nearest(distances, pairs.positive), farthest(distances, pairs.negative)
    )


def farther_negative(
    distances: Array,
    positive_distance: Array,
    negative: Array,
    *,
    fallback: bool = False,
) -> tuple[Array, Array]:
    """The nearest negative that is farther than a given positive ("semi-hard").

    Args:
        distances: `[..., n]`, of each anchor to the candidates.
        positive_distance: `[...]`, of each anchor to one of its positives.
        negative: bool `[..., n]`.
        fallback: where no negative is farther than the positive, whether to take the
            farthest there is (as TensorFlow does) or none. Static.

    Returns:
        Its index, int32 `[...]`, and whether there is one, bool `[...]`.

    Example:
        >>> farther_negative(jnp.array([1.0, 3.0, 2.0]), jnp.array(1.5),
        ...                  jnp.array([True, True, True]))
        (Array(2, dtype=int32), Array(True, dtype=bool))

    References:
        Schroff et al., "FaceNet", CVPR 2015, arXiv:1503.03832, eq. 4.
    """
    farther = negative & (distances > positive_distance[..., None])
    index, found = nearest(distances, farther)
    if not fallback:
        return index, found
    last, some = farthest(distances, negative)
    return jnp.where(found, index, last), some


def nth_positive(positive: Array, after: Array) -> tuple[Array, Array]:
    """The first positive behind a column: one step of a loop over all of them.

    Args:
        positive: bool `[..., n]`.
        after: int32 `[...]`, a column; -1 to start.

    Returns:
        Its index, int32 `[...]`, and whether there is one, bool `[...]`.

    Example:
        >>> nth_positive(jnp.array([True, False, True]), jnp.array(0))
        (Array(2, dtype=int32), Array(True, dtype=bool))
    """
    column = jax.lax.broadcasted_iota(jnp.int32, positive.shape, positive.ndim - 1)
    return first(positive & (column > after[..., None]))


def semihard(
    distances: Array,
    pairs: Pairs,
    *,
    positives: int | None = None,
    fallback: bool = False,
) -> Triplets:
    """For each positive, the nearest negative that is farther than it.

    Args:
        distances: `[..., n]`, of each anchor to the candidates.
        pairs: masks of the same shape.
        positives: number `k` of positives of an anchor to look at, the first in order;
            with K examples per class give K - 1. By default n, which is slow. Static.
        fallback: see `farther_negative`. Static.

    Returns:
        `Triplets` `[..., k]`, one for each positive.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if the masks are not bool.

    Example:
        >>> pairs = Pairs(jnp.array([True, True, False, False]),
        ...               jnp.array([False, False, True, True]))
        >>> semihard(jnp.array([1.0, 3.5, 4.0, 3.0]), pairs, positives=2).negative
        Array([3, 2], dtype=int32)

    References:
        Schroff et al., "FaceNet", CVPR 2015, arXiv:1503.03832, eq. 4.
    """
    distances, pairs = usable(distances, pairs)
    positive, valid = first_columns(pairs.positive, positives)
    reach = jnp.take_along_axis(distances, positive, axis=-1)

    def one(positive_distance: Array) -> tuple[Array, Array]:
        return farther_negative(
            distances, positive_distance, pairs.negative, fallback=fallback
        )

    # One positive at a time: [..., n] memory, not [..., k, n].
    negative, found = jax.lax.map(one, jnp.moveaxis(reach, -1, 0))
    negative, found = jnp.moveaxis(negative, 0, -1), jnp.moveaxis(found, 0, -1)
    valid = valid & found
    return Triplets(jnp.where(valid, positive, 0), jnp.where(valid, negative, 0), valid)


def all(
    distances: Array,
    pairs: Pairs,
    *,
    positives: int | None = None,
    negatives: int | None = None,
) -> Triplets:
    """Every triplet of each anchor, as indices.

    For looking at them, or for small batches: `losses.triplet_all` has the loss over
    all triplets without listing them.

    Args:
        distances: `[..., n]`; only its shape matters.
        pairs: masks of the same shape.
        positives: most positives of an anchor, the first in order; by default n.
            Static.
        negatives: most negatives of an anchor, likewise. Static.

    Returns:
        `Triplets` `[..., positives * negatives]`.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if the masks are not bool.

    Example:
        >>> pairs = Pairs(jnp.array([True, False, False]),
        ...               jnp.array([False, True, True]))
        >>> all(jnp.zeros(3), pairs, positives=1, negatives=2).negative
        Array([1, 2], dtype=int32)
    """
    distances, pairs = usable(distances, pairs)
    positive, is_positive = first_columns(pairs.positive, positives)
    negative, is_negative = first_columns(pairs.negative, negatives)
    valid = is_positive[..., :, None] & is_negative[..., None, :]
    left = jnp.broadcast_to(positive[..., :, None], valid.shape)
    right = jnp.broadcast_to(negative[..., None, :], valid.shape)
    flat = (*valid.shape[:-2], valid.shape[-2] * valid.shape[-1])
    return Triplets(
        jnp.where(valid, left, 0).reshape(flat),
        jnp.where(valid, right, 0).reshape(flat),
        valid.reshape(flat),
    )
