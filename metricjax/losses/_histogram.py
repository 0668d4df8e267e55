"""Losses made of histograms, whose bins are triangular so that they have a slope."""

from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import _checks, numerics, reductions, rows, similarities
from metricjax.pairs import Pairs
from metricjax.reductions import Reduction, Terms


def fastap(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    bins: int = 10,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Any:
    """FastAP: one minus the average precision of a histogram of distances.

    `1 - 1/|P(i)| sum_j H+_j h+_j / H_j`, where `h+` and `h` are the histograms of the
    squared distances of unit vectors, in [0, 4], to the positives and to all
    candidates, and `H+` and `H` their running sums. Time is `batch^2 * (dim + bins)`,
    memory a few blocks of rows.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        labels: int `[batch]`, or `Pairs` `[batch, n]`.
        bins: number of intervals; there is one more node. Static.
        reduction: of `Terms`, whose terms are anchors with a positive; all are active.
        **options: see `rows.Options`.

    Returns:
        A scalar, or what `reduction` returns; 0 if no anchor has a positive.

    Raises:
        ValueError: if shapes disagree, or `bins` is not a positive integer.
        TypeError: if a dtype is wrong.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])
        >>> round(float(fastap(x, jnp.array([0, 0, 1]))), 4)
        0.5

    References:
        Cakir et al., "Deep Metric Learning to Rank", CVPR 2019, eq. 4-8.
    """
    _checks.check_positive_int("bins", bins, "the paper has 10")
    row = rows.Fold(Partial(_fastap_step, bins=bins), _fastap_terms)
    return _apply(row, embeddings, labels, reduction, options)


def histogram(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    bins: int = 151,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Any:
    """Histogram loss: how likely a negative pair is closer than a positive pair.

    `sum_r h-_r sum_{q <= r} h+_q`, where `h+` and `h-` are the histograms of the
    cosines of all positive and of all negative pairs of the batch. It is the mean over
    negative pairs of the share of positive pairs that are less similar, which is how it
    is computed: one pass over the positives, then one over the negatives. Time is
    twice that of a pass, memory a few blocks of rows and `batch * bins`.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        labels: int `[batch]`, or `Pairs` `[batch, n]`.
        bins: number of nodes `R` from -1 to 1, `2 / (R - 1)` apart; the result depends
            little on it. pytorch-metric-learning has 101. Static.
        reduction: of `Terms`, whose terms are negative pairs; active are those that are
            closer than some positive pair.
        **options: see `rows.Options`. `weights` count in both histograms.

    Returns:
        A scalar, or what `reduction` returns; 0 if there is no positive or no negative
        pair.

    Raises:
        ValueError: if shapes disagree, or `bins` is not an integer of at least 2.
        TypeError: if a dtype is wrong.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6], [0.0, 1.0]])
        >>> round(float(histogram(x, jnp.array([0, 0, 1, 1]))), 4)
        0.75

    References:
        Ustinova and Lempitsky, "Learning Deep Embeddings with Histogram Loss", NIPS
        2016, arXiv:1611.00822, eq. 2-4.
    """
    _checks.check_positive_int("bins", bins, "151 nodes are 0.0133 apart")
    if bins < 2:
        raise ValueError(f"Expected `bins` to be at least 2, got {bins}; try 151.")
    row = rows.Fold(Partial(_density_row, bins=bins))
    found = _apply(row, embeddings, labels, None, options)
    total, count = (jnp.sum(x, axis=0) for x in (found.total, found.count))
    axis_name = options.get("axis_name")
    if axis_name is not None:
        total, count = jax.lax.psum((total, count), axis_name)
    below = jnp.cumsum(numerics.divide(total, count))
    row = rows.Fold(Partial(_overlap_row, below=below))
    return _apply(row, embeddings, labels, reduction, options)


def _apply(
    row: rows.Fold,
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    reduction: Reduction | None,
    options: rows.Options,
) -> Any:
    return rows.apply(
        row,
        embeddings,
        labels,
        prepare=numerics.l2_normalize,
        measure=similarities.dot,
        reduction=reduction,
        **options,
    )


def _fastap_step(
    cosine: Array, positive: Array, negative: Array, *, bins: int
) -> tuple[Array, Array, Array]:
    """Histograms `[b, nodes]` of the positives and of all, and how many positives."""
    squared = 2.0 - 2.0 * cosine
    width = 4.0 / bins

    # One node at a time, computed again for the gradient: `[b, n]` memory.
    @jax.checkpoint
    def node(center: Array, squared: Array) -> tuple[Array, Array]:
        pulse = jnp.maximum(1.0 - jnp.abs(squared - center) / width, 0.0)
        near = jnp.sum(jnp.where(positive, pulse, 0.0), axis=1)
        return near, near + jnp.sum(jnp.where(negative, pulse, 0.0), axis=1)

    centers = jnp.linspace(0.0, 4.0, bins + 1, dtype=cosine.dtype)
    near, every = jax.lax.map(lambda center: node(center, squared), centers)
    return near.T, every.T, jnp.sum(positive, axis=1, dtype=cosine.dtype)


def _fastap_terms(state: tuple[Array, Array, Array]) -> Terms:
    near, every, count = state
    share = numerics.divide(jnp.cumsum(near, axis=1), jnp.cumsum(every, axis=1))
    precision = numerics.divide(jnp.sum(share * near, axis=1), count)
    anchors = (count > 0).astype(count.dtype)
    return Terms(jnp.where(count > 0, 1.0 - precision, 0.0), anchors, anchors)


def _density_row(
    cosine: Array, positive: Array, negative: Array, *, bins: int
) -> Terms:
    """Histograms `[b, bins]` of the cosines of the positive pairs, and their number."""
    del negative
    node, above = _node(cosine, bins)

    def one(node: Array, above: Array, positive: Array) -> Array:
        share = jnp.where(positive, above, 0.0)
        rest = jnp.where(positive, 1.0 - above, 0.0)
        # Zeros made of the row, so that in jax.shard_map they vary as it does.
        empty = jnp.zeros_like(above, shape=bins)
        return empty.at[node].add(rest).at[node + 1].add(share)

    total = jax.vmap(one)(node, above, positive)
    count = jnp.sum(positive, axis=1, keepdims=True, dtype=cosine.dtype)
    return Terms(total, count, count)


def _overlap_row(
    cosine: Array, positive: Array, negative: Array, *, below: Array
) -> Terms:
    """Share of all positive pairs that are less similar, of each negative pair."""
    del positive
    node, above = _node(cosine, below.shape[0])
    share = (1.0 - above) * below[node] + above * below[node + 1]
    # Nothing is measured against no positive pair at all.
    negative = negative & (below[-1] > 0)
    return Terms(
        jnp.sum(jnp.where(negative, share, 0.0), axis=1),
        jnp.sum(negative, axis=1, dtype=cosine.dtype),
        jnp.sum(negative & (share > 0), axis=1, dtype=cosine.dtype),
    )


def _node(cosine: Array, bins: int) -> tuple[Array, Array]:
    """Index of the node below each cosine, and how far above it, in [0, 1]."""
    place = (cosine + 1.0) * ((bins - 1) / 2.0)
    # At cosine one the last interval, not the one behind it.
    node = jnp.clip(jnp.floor(place), 0, bins - 2)
    return node.astype(jnp.int32), place - node
