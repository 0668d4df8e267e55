"""Pair losses: a positive should be near and a negative far, each on its own."""

from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import distances, numerics, reductions, rows, similarities
from metricjax.pairs import Pairs
from metricjax.reductions import Reduction, Terms


def contrastive(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    positive_margin: ArrayLike = 0.0,
    margin: ArrayLike = 1.0,
    squared: bool = True,
    distance: distances.Distance = distances.euclidean,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Any:
    """Contrastive loss: `d^2 / 2` for positives, `[m - d]_+^2 / 2` for negatives.

    Args:
        embeddings: `[batch, dim]`; not normalised inside.
        labels: int `[batch]`, or `Pairs` `[batch, n]`.
        positive_margin: positives closer than this cost nothing (`[d - m_p]_+`); the
            paper's is 0. In units of the distance.
        margin: `m`; negatives farther than this cost nothing. In units of the distance.
        squared: whether the hinges are squared and halved, as in the paper, or linear:
            `[d - m_p]_+` and `[m - d]_+`. Static.
        distance: `(x, y) -> [n, m]`; Euclidean.
        reduction: of `Terms` with two parts, positives and negatives, which are
            averaged apart and then added. Terms are pairs; active are those that cost
            something.
        **options: see `rows.Options`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.array([[0.0], [1.0], [1.5]]), jnp.array([0, 0, 1])
        >>> round(float(contrastive(x, y)), 4)
        0.5625

    References:
        Hadsell, Chopra and LeCun, "Dimensionality Reduction by Learning an Invariant
        Mapping", CVPR 2006, eq. 4.
    """
    row = rows.Apart(
        Partial(_beyond, margin=positive_margin, squared=squared),
        Partial(_within, margin=margin, squared=squared),
    )
    return rows.apply(
        row,
        embeddings,
        labels,
        measure=distance,
        reduction=reduction,
        symmetric=distance in _SYMMETRIC,
        **options,
    )


# A distance of one's own may be longer one way than the other.
_SYMMETRIC = (distances.euclidean, distances.squared_euclidean, distances.cosine)


def _beyond(
    distances: Array, positive: Array, *, margin: ArrayLike, squared: bool
) -> Terms:
    excess = jnp.asarray(distances - margin)
    return _hinges(excess, positive, 0.5 if squared else 1.0, squared=squared)


def _within(
    distances: Array, negative: Array, *, margin: ArrayLike, squared: bool
) -> Terms:
    excess = jnp.asarray(margin - distances)
    return _hinges(excess, negative, 0.5 if squared else 1.0, squared=squared)


def _hinges(
    excess: Array, mask: Array, weight: ArrayLike = 1.0, *, squared: bool = False
) -> Terms:
    """Weighted hinges of the pairs in the mask."""
    hinge = jax.nn.relu(excess)
    cost = weight * (jnp.square(hinge) if squared else hinge)
    return Terms(
        jnp.sum(jnp.where(mask, cost, 0.0), axis=1),
        jnp.sum(mask, axis=1, dtype=excess.dtype),
        jnp.sum(mask & (excess > 0), axis=1, dtype=excess.dtype),
    )


def snr_contrastive(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    positive_margin: ArrayLike = 0.0,
    margin: ArrayLike = 1.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Any:
    """Contrastive loss on signal-to-noise distances: `[d - m_p]_+` and `[m - d]_+`.

    `d = var(x_a - x_j) / var(x_a)` over the coordinates, from one matrix product; no
    array of all differences. The paper adds a regulariser that holds the mean of each
    embedding at zero.

    Args:
        embeddings: `[batch, dim]`; not normalised inside, and a common factor changes
            nothing.
        labels: int `[batch]`, or `Pairs` `[batch, n]`.
        positive_margin: `m_p`; positives closer than this cost nothing.
        margin: `m`; negatives farther than this cost nothing.
        reduction: of `Terms` with two parts, positives and negatives, which are
            averaged apart and then added. Terms are pairs; active are those that cost
            something, over which pytorch-metric-learning averages.
        **options: see `rows.Options`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x = jnp.array([[1.0, -1.0], [2.0, -2.0], [1.0, -1.5]])
        >>> round(float(snr_contrastive(x, jnp.array([0, 0, 1]))), 4)
        1.4742

    References:
        Yuan et al., "Signal-to-Noise Ratio: A Robust Distance Metric for Deep Metric
        Learning", CVPR 2019, arXiv:1904.02616, section 3.
    """
    return contrastive(
        embeddings,
        labels,
        positive_margin=positive_margin,
        margin=margin,
        squared=False,
        distance=distances.snr,
        reduction=reduction,
        **options,
    )


def threshold_consistent_margin(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    positive_margin: ArrayLike = 0.9,
    negative_margin: ArrayLike = 0.5,
    positive_weight: ArrayLike = 1.0,
    negative_weight: ArrayLike = 1.0,
    reduction: Reduction | None = reductions.mean_active,
    **options: Unpack[rows.Options],
) -> Any:
    """Threshold-consistent margin: one similarity threshold should fit all classes.

    `l_p [m_p - s_ap]_+` and `l_n [s_an - m_n]_+`: a regulariser to add to another loss.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        labels: int `[batch]`, or `Pairs` `[batch, n]`.
        positive_margin: `m_p`; positives at least as similar cost nothing.
        negative_margin: `m_n`; negatives at most as similar cost nothing.
        positive_weight: `l_p`.
        negative_weight: `l_n`.
        reduction: of `Terms` with two parts, positives and negatives, which are
            averaged apart and then added. Terms are pairs; active are those that cost
            something. The paper's mean is over the active ones.
        **options: see `rows.Options`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.array([[1.0, 0], [0.6, 0.8], [0, 1.0]]), jnp.array([0, 0, 1])
        >>> round(float(threshold_consistent_margin(x, y)), 4)
        0.6

    References:
        Zhang et al., "Threshold-Consistent Margin Loss for Open-World Deep Metric
        Learning", ICLR 2024, arXiv:2307.04047, section 4.
    """
    row = rows.Apart(
        Partial(_unlike, margin=positive_margin, weight=positive_weight),
        Partial(_alike, margin=negative_margin, weight=negative_weight),
    )
    return on_cosines(row, embeddings, labels, reduction, options, symmetric=True)


def on_cosines(
    row: rows.Fold | rows.Apart,
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    reduction: Reduction | None,
    options: rows.Options,
    *,
    symmetric: bool = False,
) -> Any:
    """The row loss on cosines, those of unit vectors made once."""
    return rows.apply(
        row,
        embeddings,
        labels,
        prepare=numerics.l2_normalize,
        measure=similarities.dot,
        reduction=reduction,
        symmetric=symmetric,
        **options,
    )


def _unlike(
    cosine: Array, positive: Array, *, margin: ArrayLike, weight: ArrayLike
) -> Terms:
    return _hinges(jnp.asarray(margin - cosine), positive, weight)


def _alike(
    cosine: Array, negative: Array, *, margin: ArrayLike, weight: ArrayLike
) -> Terms:
    return _hinges(jnp.asarray(cosine - margin), negative, weight)


def intra_pair_variance(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    positive_slack: ArrayLike = 0.01,
    negative_slack: ArrayLike = 0.01,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Any:
    """Intra-pair variance: positives, and negatives, should be alike in similarity.

    `[(1 - e_p) mean(s_p) - s_ap]_+^2` and `[s_an - (1 + e_n) mean(s_n)]_+^2`, with the
    means over all positive and all negative pairs of the batch, which are
    differentiated too. A regulariser of the tuplet margin loss. Two passes over the
    rows.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        labels: int `[batch]`, or `Pairs` `[batch, n]`.
        positive_slack: `e_p`, a share of the mean.
        negative_slack: `e_n`, a share of the mean.
        reduction: of `Terms` with two parts, positives and negatives, which are
            averaged apart and then added. Terms are pairs; active are those that cost
            something.
        **options: see `rows.Options`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.array([[1.0, 0], [0.6, 0.8], [0, 1.0]]), jnp.array([0, 0, 1])
        >>> round(float(intra_pair_variance(x, y)), 4)
        0.0784

    References:
        Yu and Tao, "Deep Metric Learning with Tuplet Margin Loss", ICCV 2019, section
        3.
    """
    unit, dot = numerics.l2_normalize, similarities.dot
    sums = rows.sums(
        rows.Apart(_cosines, _cosines),
        embeddings,
        labels,
        prepare=unit,
        measure=dot,
        symmetric=True,
        **options,
    )
    near, far = numerics.divide(sums.total, sums.count)[0]
    row = rows.Apart(
        Partial(_spread, mean=near, share=1.0 - positive_slack, sign=-1.0),
        Partial(_spread, mean=far, share=1.0 + negative_slack, sign=1.0),
    )
    return on_cosines(row, embeddings, labels, reduction, options, symmetric=True)


def _cosines(cosine: Array, mask: Array) -> Terms:
    total = jnp.sum(jnp.where(mask, cosine, 0.0), axis=1)
    count = jnp.sum(mask, axis=1, dtype=cosine.dtype)
    return Terms(total, count, count)


def _spread(
    cosine: Array, mask: Array, *, mean: Array, share: ArrayLike, sign: float
) -> Terms:
    """Squared hinges of cosines below (-1) or above (1) a share of their mean."""
    return _hinges(jnp.asarray(sign * (cosine - share * mean)), mask, squared=True)
