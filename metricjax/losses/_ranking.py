"""Rank losses: how many candidates stand before each positive, made smooth."""

from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import _checks, numerics, reductions, rows, similarities
from metricjax.losses import _each_positive
from metricjax.pairs import Pairs
from metricjax.reductions import Reduction, Terms


def smooth_ap(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    temperature: ArrayLike = 0.01,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Any:
    """Smooth-AP: one minus the average precision, with sigmoids for comparisons.

    `1 - 1/|P(i)| sum_{p in P(i)} R_P(p) / (R_P(p) + R_N(p))`, where `R_P(p) = 1 +
    sum_{q in P(i), q != p} g(s_iq - s_ip)` is the rank among the positives, `R_N(p) =
    sum_{n in N(i)} g(s_in - s_ip)`, `g(x) = 1 / (1 + exp(-x / t))` and `s` the cosine.
    Any labels will do, in any order and number. Time is `batch^2 * (dim + positives)`,
    memory a few blocks of rows.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        labels: int `[batch]`, or `Pairs` `[batch, n]`.
        temperature: `t`; the smaller, the closer to the true average precision and the
            fewer pairs get a gradient.
        reduction: of `Terms`, whose terms are anchors with a positive; all are active.
        **options: see `rows.Options`.

    Returns:
        A scalar, or what `reduction` returns; 0 if no anchor has a positive.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])
        >>> y = jnp.array([0, 0, 1])
        >>> round(float(smooth_ap(x, y)), 4)
        0.5

    References:
        Brown et al., "Smooth-AP: Smoothing the Path Towards Large-Scale Image
        Retrieval", ECCV 2020, arXiv:2007.12163, eq. 7.
    """
    row = Partial(_smooth_ap_row, temperature=temperature)
    return _apply(row, embeddings, labels, reduction, options)


def recall_surrogate(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    ks: tuple[int, ...] = (1, 2, 4, 8, 16),
    temperature: ArrayLike = 1.0,
    rank_temperature: ArrayLike = 0.01,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Any:
    """Recall@k surrogate (RS@k): one minus a smooth Recall@k, averaged over k.

    `1 - mean_k 1/min(k, |P(i)|) sum_{p in P(i)} g((k - r(p)) / t1)`, with the rank
    `r(p) = 1 + sum_{j != p} g((s_ij - s_ip) / t2)` among all candidates, `g` the
    sigmoid and `s` the cosine. A positive at rank k counts half, so that the best value
    is not 0. The authors' code counts the anchor itself among the candidates, which
    moves each rank by one, and takes `t1 = k`; here it is as in the paper. Time is
    `batch^2 * (dim + positives)`, memory a few blocks of rows.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        labels: int `[batch]`, or `Pairs` `[batch, n]`.
        ks: one or more lengths of the list. Static.
        temperature: `t1`, in ranks; of the comparison with k.
        rank_temperature: `t2`, in units of the cosine; of the comparisons that make the
            rank.
        reduction: of `Terms`, whose terms are anchors with a positive; all are active.
        **options: see `rows.Options`. The paper's batches are thousands of examples.

    Returns:
        A scalar, or what `reduction` returns; 0 if no anchor has a positive.

    Raises:
        ValueError: if shapes disagree, or `ks` are not positive integers.
        TypeError: if a dtype is wrong.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])
        >>> y = jnp.array([0, 0, 1])
        >>> round(float(recall_surrogate(x, y, ks=(1, 2))), 4)
        0.6155

    References:
        Patel et al., "Recall@k Surrogate Loss with Large Batches and Similarity Mixup",
        CVPR 2022, arXiv:2108.11179, eq. 5-7.
    """
    for k in ks or (0,):
        _checks.check_positive_int("ks", k, "give one or more lengths, as a tuple")
    row = Partial(
        _recall_row,
        ks=tuple(ks),
        temperature=temperature,
        rank_temperature=rank_temperature,
    )
    return _apply(row, embeddings, labels, reduction, options)


def _apply(
    row: Partial,
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


def _smooth_ap_row(
    cosine: Array, positive: Array, negative: Array, *, temperature: ArrayLike
) -> Terms:
    parameters = _each_positive.per_row(temperature, cosine)
    total = _each_positive.sum_terms(_precision, cosine, positive, negative, parameters)
    count = jnp.sum(positive, axis=1, dtype=total.dtype)
    return _shortfall(numerics.divide(total, count), count > 0)


def _precision(
    cosine: Array, value: Array, rivals: Array, negative: Array, temperature: Array
) -> Array:
    """Precision at the rank of one positive of each row."""
    ahead = jax.nn.sigmoid((cosine - value[:, None]) / temperature[:, None])
    rank = 1.0 + jnp.sum(jnp.where(rivals, ahead, 0.0), axis=1)
    return rank / (rank + jnp.sum(jnp.where(negative, ahead, 0.0), axis=1))


def _recall_row(
    cosine: Array,
    positive: Array,
    negative: Array,
    *,
    ks: tuple[int, ...],
    temperature: ArrayLike,
    rank_temperature: ArrayLike,
) -> Terms:
    count = jnp.sum(positive, axis=1, dtype=cosine.dtype)
    given = (jnp.asarray(ks, cosine.dtype), temperature, rank_temperature)
    length, *temperatures = _each_positive.per_row(given, cosine)
    # A row without positives divides by nothing: its sum has no terms.
    most = jnp.maximum(jnp.minimum(length, count[:, None]), 1.0) * len(ks)
    parameters = (length, most, *temperatures)
    recall = _each_positive.sum_terms(_found, cosine, positive, negative, parameters)
    return _shortfall(recall, count > 0)


def _found(
    cosine: Array,
    value: Array,
    rivals: Array,
    negative: Array,
    parameters: tuple[Array, Array, Array, Array],
) -> Array:
    """What one positive of each row adds to the recall, over all k."""
    length, most, temperature, rank_temperature = parameters
    ahead = jax.nn.sigmoid((cosine - value[:, None]) / rank_temperature[:, None])
    rank = 1.0 + jnp.sum(jnp.where(rivals | negative, ahead, 0.0), axis=1)
    within = jax.nn.sigmoid((length - rank[:, None]) / temperature[:, None])
    return jnp.sum(within / most, axis=1)


def _shortfall(score: Array, some: Array) -> Terms:
    """One minus the score of each anchor that has one."""
    anchors = some.astype(score.dtype)
    return Terms(jnp.where(some, 1.0 - score, 0.0), anchors, anchors)
