"""Regularisers: functions of embeddings, or of class weights, that need no labels.

They are added to a loss with a factor of your choice.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from metricjax import (
    _blocks,
    _checks,
    _problem,
    numerics,
    reductions,
    rows,
    similarities,
)
from metricjax.reductions import Reduction, Terms


def lp_norm(
    embeddings: ArrayLike,
    *,
    order: ArrayLike = 2.0,
    power: ArrayLike = 1.0,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction | None = reductions.mean,
    axis_name: rows.Axis | None = None,
) -> Any:
    """Lp regulariser: the length of each embedding, `||x||_p^q`.

    The zero vector costs nothing and gets no gradient.

    Args:
        embeddings: `[batch, dim]`; not normalised inside.
        order: `p`, at least 1.
        power: `q > 0`; 2 with `order=2` is weight decay on the embeddings.
        where: bool `[batch]`; False marks padding.
        weights: float `[batch]`; importance of each row, a constant.
        reduction: of `Terms`, whose terms are rows; active are those that are not zero.
        axis_name: inside `jax.shard_map`, the mesh axis over which the rows are
            sharded.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> float(lp_norm(jnp.array([[3.0, 4.0], [0.0, 1.0]])))
        3.0

    References:
        Musgrave, Belongie and Lim, "PyTorch Metric Learning", 2020, arXiv:2008.09164
        (LpRegularizer).
    """
    _checks.check_embeddings("embeddings", embeddings)
    x = jnp.abs(numerics.mask_rows(embeddings, where))
    # Divided by the largest first: no power overflows.
    peak = jax.lax.stop_gradient(jnp.max(x, axis=1))
    x = x / jnp.where(peak > 0, peak, 1.0)[:, None]
    length = _power(jnp.sum(_power(x, order), axis=1), 1.0 / order) * peak
    return _reduce(_power(length, power), where, weights, reduction, axis_name)


def zero_mean(
    embeddings: ArrayLike,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction | None = reductions.mean,
    axis_name: rows.Axis | None = None,
) -> Any:
    """Zero-mean regulariser: the sum of an embedding's entries, `|sum_d x_d|`.

    It is the mean over the entries of one embedding that is driven to zero, as in
    pytorch-metric-learning, not the mean over the batch.

    Args:
        embeddings: `[batch, dim]`; not normalised inside.
        where: bool `[batch]`; False marks padding.
        weights: float `[batch]`; importance of each row, a constant.
        reduction: of `Terms`, whose terms are rows; active are those that are not zero.
        axis_name: inside `jax.shard_map`, the mesh axis over which the rows are
            sharded.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> float(zero_mean(jnp.array([[3.0, -4.0], [0.0, 2.0]])))
        1.5

    References:
        Musgrave, Belongie and Lim, "PyTorch Metric Learning", 2020, arXiv:2008.09164
        (ZeroMeanRegularizer).
    """
    _checks.check_embeddings("embeddings", embeddings)
    values = jnp.abs(jnp.sum(numerics.mask_rows(embeddings, where), axis=1))
    return _reduce(values, where, weights, reduction, axis_name)


def regularface(
    class_weights: ArrayLike,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction | None = reductions.mean,
    block_size: int | None = None,
    axis_name: rows.Axis | None = None,
) -> Any:
    """RegularFace: the cosine of each class to the nearest other class.

    `max_{j != i} cos(w_i, w_j)`; drives classes apart. Memory is a block of classes
    times the classes, never `[classes, classes]`.

    Args:
        class_weights: `[classes, dim]`; rows normalised inside.
        where: bool `[classes]`; False marks padding.
        weights: float `[classes]`; importance of each class, a constant.
        reduction: of `Terms`, whose terms are classes with another; all are active.
        block_size: classes in a block. Static.
        axis_name: inside `jax.shard_map`, the mesh axis over which the rows of
            `class_weights` are sharded; each is compared with those of all devices.

    Returns:
        A scalar, or what `reduction` returns; 0 if there is one class only.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> w = jnp.array([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
        >>> round(float(regularface(w)), 4)
        0.2

    References:
        Zhao, Xu and Cheng, "RegularFace: Deep Face Recognition via Exclusive
        Regularization", CVPR 2019.
    """
    _checks.check_embeddings("class_weights", class_weights)
    # One label for all: every other class is a positive, on any number of devices.
    labels = jnp.zeros(jnp.shape(class_weights)[0], jnp.int32)
    return rows.apply(
        _nearest_row,
        class_weights,
        labels,
        measure=similarities.dot,
        prepare=numerics.l2_normalize,
        reduction=reduction,
        where=where,
        weights=weights,
        block_size=block_size,
        axis_name=axis_name,
    )


def _nearest_row(cosine: Array, others: Array, negative: Array) -> Terms:
    del negative
    some = jnp.any(others, axis=1)
    nearest = jnp.max(jnp.where(others, cosine, -jnp.inf), axis=1)
    count = some.astype(cosine.dtype)
    return Terms(jnp.where(some, nearest, 0.0), count, count)


def center_invariant(
    class_weights: ArrayLike,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction | None = reductions.mean,
    axis_name: rows.Axis | None = None,
) -> Any:
    """Center-invariant regulariser: all classes of one length.

    `(||w_i||^2 - mean_k ||w_k||^2)^2 / 4`, so that classes of few examples are not
    pushed to small weights. It does nothing for a loss that normalises the weights.

    Args:
        class_weights: `[classes, dim]`, class weights or centers; not normalised
            inside.
        where: bool `[classes]`; False marks padding.
        weights: float `[classes]`; importance of each class, a constant; for
            instance its number of examples in the batch. The mean length is that of all
            classes, unweighted.
        reduction: of `Terms`, whose terms are classes; active are those that are not
            zero.
        axis_name: inside `jax.shard_map`, the mesh axis over which the rows of
            `class_weights` are sharded.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> float(center_invariant(jnp.array([[3.0, 0.0], [0.0, 1.0]])))
        4.0

    References:
        Wu et al., "Deep Face Recognition with Center Invariant Loss", Thematic
        Workshops of ACM Multimedia 2017.
    """
    _checks.check_embeddings("class_weights", class_weights)
    w = numerics.mask_rows(class_weights, where)
    squared = jnp.sum(jnp.square(w), axis=1)
    real = _row_weights(squared, where, None)
    total, count = jnp.sum(squared), jnp.sum(real)
    if axis_name is not None:
        total, count = jax.lax.psum((total, count), axis_name)
    values = jnp.square(squared - numerics.divide(total, count)) / 4.0
    return _reduce(values, where, weights, reduction, axis_name)


def sparse_centers(
    centers: ArrayLike,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction | None = reductions.mean,
    block_size: int | None = None,
    axis_name: rows.Axis | None = None,
) -> Any:
    """Sparse-centers regulariser: merges the centers of a class that has too many.

    `1/(C k (k - 1)) sum_j sum_{s < t} ||w_js - w_jt||` of unit vectors: half the mean
    distance between two centers of a class. As a norm it has a kink at zero, so that
    centers meet. Distances are summed from differences, since `sqrt(2 - 2 c)` loses all
    digits where they do. Only centers of one class are compared; memory is a block of
    classes.

    Args:
        centers: `[classes, k, dim]`; normalised inside.
        where: bool `[classes]`; False marks padding.
        weights: float `[classes]`; importance of each class, a constant.
        reduction: of `Terms`, whose terms are the `k (k - 1)` ordered pairs of a class,
            each of which costs half its distance; all are active.
        block_size: classes in a block. Static.
        axis_name: inside `jax.shard_map`, the mesh axis over which the classes are
            sharded.

    Returns:
        A scalar, or what `reduction` returns; 0 if `k` is 1.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> round(float(sparse_centers(jnp.array([[[1.0, 0.0], [0.0, 1.0]]]))), 4)
        0.7071

    References:
        Qian et al., "SoftTriple Loss: Deep Metric Learning Without Triplet Sampling",
        ICCV 2019, arXiv:1909.05235.
    """
    if jnp.ndim(centers) != 3:
        raise ValueError(
            f"Expected `centers` of shape [classes, k, dim], got "
            f"{_checks.describe(centers)}; reshape them, centers of a class together."
        )
    _checks.check_float("centers", centers)
    classes, k, dim = jnp.shape(centers)
    if block_size is None:
        block_size = _problem.default_block(classes, k * dim)
    _checks.check_positive_int("block_size", block_size, "leave it out for the default")
    flat = numerics.mask_rows(jnp.reshape(centers, (classes, k * dim)), where)
    w = numerics.l2_normalize(flat.reshape(classes, k, dim))
    values = _blocks.stack(_spread, (), w, min(block_size, classes))
    pairs = k * (k - 1)
    return _reduce(values, where, weights, reduction, axis_name, count=pairs)


def _spread(_: Any, centers: Array) -> Array:
    """Half the sum of the distances over ordered pairs of centers, for each class."""
    k = centers.shape[1]
    if k == 1:
        return jnp.zeros_like(centers[:, 0, 0])

    # Each center against the one `shift` places on: no [b, k, k, dim].
    @jax.checkpoint
    def one(shift: Array) -> Array:
        gap = centers - jnp.roll(centers, shift, axis=1)
        return jnp.sum(numerics.sqrt(jnp.sum(jnp.square(gap), axis=2)), axis=1)

    return jnp.sum(jax.lax.map(one, jnp.arange(1, k)), axis=0) / 2.0


# --- rows to terms ------------------------------------------------------------------


def _power(x: Array, power: ArrayLike) -> Array:
    """`x^power`, with zero gradient at zero, where that of a root is infinite."""
    positive = x > 0
    return jnp.where(positive, jnp.power(jnp.where(positive, x, 1.0), power), 0.0)


def _row_weights(
    values: Array, where: ArrayLike | None, weights: ArrayLike | None
) -> Array:
    out = jnp.ones_like(values) if where is None else jnp.where(where, 1.0, 0.0)
    out = out.astype(values.dtype)
    if weights is None:
        return out
    _checks.check_shape("weights", weights, values.shape, "one weight for each row")
    return out * jax.lax.stop_gradient(numerics.promote(weights))


def _reduce(
    values: Array,
    where: ArrayLike | None,
    weights: ArrayLike | None,
    reduction: Reduction | None,
    axis_name: rows.Axis | None,
    *,
    count: float = 1.0,
) -> Any:
    """Values `[n]` of `count` terms each, as `Terms`, reduced."""
    weight = _row_weights(values, where, weights)
    number = count * weight
    terms = Terms(values * weight, number, jnp.where(values != 0, number, 0.0))
    return rows.reduce(terms, reduction, axis_name=axis_name)
