"""Pair miners, `(distances, Pairs) -> Pairs`: which of the pairs to keep."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from metricjax import _checks
from metricjax.mining._choose import (
    mask_of,
    nearest,
    nearest_columns,
    smallest,
    usable,
)
from metricjax.pairs import Pairs


def multi_similarity(
    distances: Array, pairs: Pairs, *, epsilon: ArrayLike = 0.1
) -> Pairs:
    """Keep what is hard compared with the hardest pair of the other kind.

    Negatives nearer than the farthest positive and a little more, `d_an < max d_ap +
    eps`, and positives farther than the nearest negative and a little less, `d_ap > min
    d_an - eps`.

    Args:
        distances: `[..., n]`, of each anchor to the candidates; the paper's are cosine
            distances (for cosines see `on_similarities`).
        pairs: masks of the same shape.
        epsilon: `eps`, in units of the distance.

    Returns:
        `Pairs` of the same shape. Nothing is kept of an anchor without positives or
        without negatives.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if the masks are not bool.

    Example:
        >>> pairs = Pairs(jnp.array([True, True, False, False]),
        ...               jnp.array([False, False, True, True]))
        >>> kept = multi_similarity(jnp.array([0.1, 0.5, 0.55, 0.7]), pairs)
        >>> kept.positive.tolist(), kept.negative.tolist()
        ([False, True, False, False], [False, False, True, False])

    References:
        Wang et al., "Multi-Similarity Loss with General Pair Weighting for Deep Metric
        Learning", CVPR 2019, arXiv:1904.06627, eq. 11-12.
    """
    distances, (positive, negative) = usable(distances, pairs)
    far = jnp.max(jnp.where(positive, distances, -jnp.inf), axis=-1, keepdims=True)
    near = jnp.min(jnp.where(negative, distances, jnp.inf), axis=-1, keepdims=True)
    return Pairs(
        positive & (distances > near - epsilon), negative & (distances < far + epsilon)
    )


def pair_margin(
    distances: Array,
    pairs: Pairs,
    *,
    positive_margin: ArrayLike = 0.2,
    negative_margin: ArrayLike = 0.8,
) -> Pairs:
    """Keep positives farther than one margin and negatives nearer than another.

    Args:
        distances: `[..., n]`, of each anchor to the candidates.
        pairs: masks of the same shape.
        positive_margin: in units of the distance.
        negative_margin: in units of the distance.

    Returns:
        `Pairs` of the same shape.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if the masks are not bool.

    Example:
        >>> pairs = Pairs(jnp.array([True, True, False, False]),
        ...               jnp.array([False, False, True, True]))
        >>> kept = pair_margin(jnp.array([0.1, 0.5, 0.7, 0.9]), pairs)
        >>> kept.positive.tolist(), kept.negative.tolist()
        ([False, True, False, False], [False, False, True, False])

    References:
        The defaults are those of pytorch-metric-learning's PairMarginMiner.
    """
    distances, (positive, negative) = usable(distances, pairs)
    return Pairs(
        positive & (distances > positive_margin),
        negative & (distances < negative_margin),
    )


def hardest(
    distances: Array,
    pairs: Pairs,
    *,
    positives: int | None = 1,
    negatives: int | None = 1,
) -> Pairs:
    """Keep the `k` farthest positives and the `k` nearest negatives of each anchor.

    Args:
        distances: `[..., n]`, of each anchor to the candidates.
        pairs: masks of the same shape.
        positives: how many of an anchor to keep; None for all. Static.
        negatives: how many of an anchor to keep; None for all. Static.

    Returns:
        `Pairs` of the same shape.

    Raises:
        ValueError: if shapes disagree, or a number is not positive.
        TypeError: if the masks are not bool.

    Example:
        >>> pairs = Pairs(jnp.array([True, True, False, False]),
        ...               jnp.array([False, False, True, True]))
        >>> hardest(jnp.array([0.1, 0.5, 0.7, 0.9]), pairs).negative.tolist()
        [False, False, True, False]
    """
    distances, (positive, negative) = usable(distances, pairs)
    return Pairs(
        _nearest_mask("positives", -distances, positive, positives),
        _nearest_mask("negatives", distances, negative, negatives),
    )


def _nearest_mask(name: str, distances: Array, mask: Array, k: int | None) -> Array:
    if k is None:
        return mask
    _checks.check_positive_int(name, k, "or None to keep all")
    return mask_of(*nearest_columns(distances, mask, k), mask.shape[-1])


def easy_positive(distances: Array, pairs: Pairs) -> Pairs:
    """Keep the nearest positive of each anchor, and all of its negatives.

    An anchor is then asked to be near to one of its class, not to all of it, so that a
    class may have several clusters. For the paper's triplets chain it:
    `Partial(chain, miners=(easy_positive, Partial(semihard, positives=1)))` is easy
    positive with semi-hard negative; with `hard` it is easy positive, hard negative.

    Args:
        distances: `[..., n]`, of each anchor to the candidates.
        pairs: masks of the same shape.

    Returns:
        `Pairs` of the same shape.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if the masks are not bool.

    Example:
        >>> pairs = Pairs(jnp.array([True, True, False, False]),
        ...               jnp.array([False, False, True, True]))
        >>> easy_positive(jnp.array([0.1, 0.5, 0.7, 0.9]), pairs).positive.tolist()
        [True, False, False, False]

    References:
        Xuan, Stylianou and Pless, "Improved Embeddings with Easy Positive Triplet
        Mining", WACV 2020, arXiv:1904.04370, section 3.
    """
    distances, (positive, negative) = usable(distances, pairs)
    index, some = nearest(distances, positive)
    n = positive.shape[-1]
    return Pairs(mask_of(index[..., None], some[..., None], n), negative)


def hard_aware(distances: Array, pairs: Pairs, *, share: ArrayLike = 0.5) -> Pairs:
    """Keep the hardest share of the positives and of the negatives of each anchor.

    One level of the hard-aware cascade: a deeper level keeps less. The paper ranks the
    pairs of the whole batch together; here each anchor ranks its own, so that no anchor
    is left out.

    Args:
        distances: `[..., n]`, of each anchor to the candidates.
        pairs: masks of the same shape.
        share: of each kind to keep, in [0, 1], rounded up to a whole number of pairs.
            It may be traced.

    Returns:
        `Pairs` of the same shape.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if the masks are not bool.

    Example:
        >>> pairs = Pairs(jnp.array([True, True, False, False]),
        ...               jnp.array([False, False, True, True]))
        >>> kept = hard_aware(jnp.array([0.1, 0.5, 0.7, 0.9]), pairs)
        >>> kept.positive.tolist(), kept.negative.tolist()
        ([False, True, False, False], [False, False, True, False])

    References:
        Yuan, Yang and Zhang, "Hard-Aware Deeply Cascaded Embedding", ICCV 2017,
        arXiv:1611.05720, section 3. The default share is pytorch-metric-learning's.
    """
    distances, (positive, negative) = usable(distances, pairs)

    def keep(values: Array, mask: Array) -> Array:
        number = jnp.sum(mask, axis=-1, dtype=values.dtype)
        count = jnp.ceil(jnp.asarray(share * number)).astype(jnp.int32)
        return smallest(values, mask, count)

    return Pairs(keep(-distances, positive), keep(distances, negative))
