"""Pair losses: a positive should be near and a negative far, each on its own."""

from typing import Any, Unpack

import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import distances, reductions, rows
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
) -> Array | Any:
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
    row = Partial(
        _contrastive_row,
        positive_margin=positive_margin,
        margin=margin,
        squared=squared,
    )
    return rows.apply(
        row, embeddings, labels, measure=distance, reduction=reduction, **options
    )


def _contrastive_row(
    distances: Array,
    positive: Array,
    negative: Array,
    *,
    positive_margin: ArrayLike,
    margin: ArrayLike,
    squared: bool,
) -> Terms:
    def part(mask: Array, excess: Array) -> Terms:
        hinge = jnp.maximum(excess, 0.0)
        cost = jnp.square(hinge) / 2.0 if squared else hinge
        return Terms(
            jnp.sum(jnp.where(mask, cost, 0.0), axis=1),
            jnp.sum(mask, axis=1, dtype=cost.dtype),
            jnp.sum(mask & (excess > 0), axis=1, dtype=cost.dtype),
        )

    near = part(positive, distances - positive_margin)
    far = part(negative, jnp.asarray(margin - distances))
    return Terms(*(jnp.stack(fields, axis=1) for fields in zip(near, far, strict=True)))
