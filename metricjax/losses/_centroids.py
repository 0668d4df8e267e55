"""Centroid triplet loss: classes of the batch, instead of items, as candidates."""

from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import _checks, distances, numerics, reductions, rows
from metricjax.losses._classification import ClassOptions
from metricjax.reductions import Reduction, Terms


def centroid_triplet(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 0.5,
    hard: bool = True,
    soft: bool = False,
    distance: distances.Distance = distances.euclidean,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[ClassOptions],
) -> Any:
    """Centroid triplet loss: closer to the centroid of its class than to another's.

    `[d(a, c_P) - d(a, c_N) + m]_+`. `c_P` is the mean of the class in the batch without
    the anchor (leave one out), `c_N` that of another class. Both are differentiated.
    The paper squares the distance; the authors' code, followed here, does not, and
    takes the nearest `c_N`. Time is `batch^2 * dim`, memory a block of rows.

    Args:
        embeddings: `[batch, dim]`; not normalised inside.
        labels: int `[batch]`, any integers; a negative label is no class.
        margin: `m`, in units of the distance; a number or `[batch]`, one per anchor.
        hard: whether the nearest other centroid counts alone, or each of them. Static.
        soft: whether to use `log(1 + exp(d_ap - d_an + m))` for the hinge. Static.
        distance: `(x, y) -> [n, m]`; Euclidean.
        reduction: of `Terms`, whose terms are anchors whose class has another member,
            where there is another class (or, if not `hard`, pairs of such an anchor and
            another class); active are those with `d_an < d_ap + m`.
        **options: see `ClassOptions`.

    Returns:
        A scalar, or what `reduction` returns; 0 if there is no term.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.array([[0.0], [1.0], [1.0], [2.0]]), jnp.array([0, 0, 1, 1])
        >>> round(float(centroid_triplet(x, y)), 4)
        0.5

    References:
        Wieczorek et al., "On the Unreasonable Effectiveness of Centroids in Image
        Retrieval", ICONIP 2021, arXiv:2104.13643, section 3.
    """
    _checks.check_embeddings("embeddings", embeddings)
    _checks.check_labels("labels", labels, jnp.shape(embeddings)[0])
    x = numerics.mask_rows(embeddings, options.get("where"))
    classes, own, others = _centroids(x, jnp.asarray(labels), options)
    d_ap = distances.paired(x, own, distance=distance)
    margin = jnp.broadcast_to(jnp.asarray(margin, x.dtype), x.shape[:1])
    return rows.apply(
        Partial(_centroid_row, hard=hard, soft=soft),
        x,
        labels,
        measure=distance,
        reduction=reduction,
        per_anchor=(d_ap + margin, others > 0),
        ref_embeddings=classes.centroids,
        ref_labels=classes.labels,
        **options,
    )


class _Classes(NamedTuple):
    """The classes of the batch in as many slots as it has rows; spare ones have -1."""

    labels: Array
    centroids: Array


def _centroids(
    x: Array, labels: Array, options: ClassOptions
) -> tuple[_Classes, Array, Array]:
    """Classes; of each row the centroid and number of the others of its class."""
    where, axis_name = options.get("where"), options.get("axis_name")
    labels = jnp.where(labels >= 0, labels, -1)
    if where is not None:
        labels = jnp.where(jnp.asarray(where), labels, -1)
    everyone, size = (x, labels), x.shape[0]
    first = 0
    if axis_name is not None:
        everyone = jax.lax.all_gather(everyone, axis_name, tiled=True)
        first = jax.lax.axis_index(axis_name) * size
    slots = everyone[1].shape[0]
    found, slot = jnp.unique(
        everyone[1], size=slots, fill_value=-1, return_inverse=True
    )
    ones = jnp.ones_like(everyone[0][:, 0])
    sums = jax.ops.segment_sum(everyone[0], slot, num_segments=slots)
    counts = jax.ops.segment_sum(ones, slot, num_segments=slots)
    own = jax.lax.dynamic_slice_in_dim(slot, first, size)
    others = jnp.where(labels >= 0, counts[own] - 1.0, 0.0)
    left = numerics.divide(sums[own] - x, others[:, None])
    return _Classes(found, numerics.divide(sums, counts[:, None])), left, others


def _centroid_row(
    distances: Array,
    positive: Array,
    negative: Array,
    anchors: tuple[Array, Array],
    *,
    hard: bool,
    soft: bool,
) -> Terms:
    del positive
    reach, paired = anchors
    chosen = negative & paired[:, None]
    if hard:
        some = jnp.any(chosen, axis=1)
        nearest = jnp.min(jnp.where(chosen, distances, jnp.inf), axis=1)
        distances = jnp.where(some, nearest, 0.0)[:, None]
        chosen = some[:, None]
    gap = jnp.where(chosen, reach[:, None] - distances, 0.0)
    cost = jax.nn.softplus(gap) if soft else jnp.maximum(gap, 0.0)
    return Terms(
        jnp.sum(jnp.where(chosen, cost, 0.0), axis=1),
        jnp.sum(chosen, axis=1, dtype=gap.dtype),
        jnp.sum(gap > 0, axis=1, dtype=gap.dtype),
    )
