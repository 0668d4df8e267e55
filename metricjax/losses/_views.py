"""Several views of each item, without labels."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from metricjax import _checks, numerics, pairs, reductions, rows
from metricjax.losses._contrastive import ntxent
from metricjax.reductions import Reduction, Terms

AxisName = str | tuple[str, ...]


def multi_view(
    embeddings: ArrayLike,
    *,
    loss: Callable[..., Any] = ntxent,
    labels: ArrayLike | None = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    axis_name: AxisName | None = None,
    **options: Any,
) -> Any:
    """A pair loss over any number of views of each item, by default SimCLR.

    The views are stacked to one batch of `views * items` rows, in which the views of an
    item are each other's positives, or those of all items of a class where labels are
    given (SupCon has two views and labels). With stacked rows of your own, call the
    loss with `pairs.view_labels`.

    Args:
        embeddings: `[views, items, dim]`.
        loss: a pair loss, `(embeddings, labels, **options)`, such as `ntxent`,
            `supcon`, `dcl` or `triplet_hard`.
        labels: int `[items]`; by default each item is a class of its own.
        where: bool `[items]`; False marks padding.
        weights: float `[items]`; importance of each item as an anchor.
        axis_name: see `rows.Options`; the items are sharded, the views are not.
        **options: of the loss: its hyperparameters, `reduction`, and the rest of
            `rows.Options`.

    Returns:
        What the loss returns; rows of `Terms` are those of the first view, of the
        second, and so on.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> views = jnp.stack([jnp.eye(2), jnp.eye(2)])
        >>> round(float(multi_view(views, temperature=1.0)), 4)
        0.5514

    References:
        Chen et al., "A Simple Framework for Contrastive Learning of Visual
        Representations", ICML 2020, arXiv:2002.05709; with labels: Khosla et al.,
        "Supervised Contrastive Learning", NeurIPS 2020, arXiv:2004.11362.
    """
    if jnp.ndim(embeddings) != 3:
        raise ValueError(
            "Expected `embeddings` of shape [views, items, dim], got "
            f"{_checks.describe(embeddings)}; stack the views along a first axis."
        )
    views, items, dim = jnp.shape(embeddings)
    if labels is None:
        first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * items
        labels = jnp.arange(items, dtype=jnp.int32) + first
    kept = pairs.items("", labels, where, None, rows=items)
    if weights is not None:
        _checks.check_shape("weights", weights, (items,), "one weight for each item")
        weights = jnp.tile(jnp.asarray(weights), views)
    return loss(
        jnp.reshape(jnp.asarray(embeddings), (views * items, dim)),
        jnp.tile(kept.labels, views),
        where=None if where is None else jnp.tile(kept.where, views),
        weights=weights,
        axis_name=axis_name,
        **options,
    )


def vicreg(
    embeddings: ArrayLike,
    other_embeddings: ArrayLike,
    *,
    invariance: ArrayLike = 25.0,
    variance: ArrayLike = 25.0,
    covariance: ArrayLike = 1.0,
    epsilon: ArrayLike = 1e-4,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction | None = reductions.mean,
    axis_name: AxisName | None = None,
) -> Any:
    """VICReg: views agree, each dimension varies, and no two dimensions go together.

    `a mean_ij (x_ij - y_ij)^2 + b [v(x) + v(y)] + c [c(x) + c(y)]`, with `v(x) = mean_j
    [1 - sqrt(Var(x_j) + e)]_+` and `c(x) = 1/dim sum_{j != k} Cov(x)_jk^2`, where
    variances and covariances are divided by `batch - 1`. It needs no negatives and does
    not normalise. The authors' code and pytorch-metric-learning halve the variance
    term; here it is as in the paper's algorithm 1. Equation 5 of the paper sums the
    first term over dimensions; its algorithm and the code take the mean, as here.
    Memory is that of arrays `[dim, dim]`.

    Args:
        embeddings: `[batch, dim]`, one view; not normalised inside.
        other_embeddings: `[batch, dim]`, another view of the same items.
        invariance: `a`.
        variance: `b`; 12.5 for the value of the authors' code.
        covariance: `c`.
        epsilon: `e`, which keeps the slope of the square root finite.
        where: bool `[batch]`; False marks padding.
        weights: float `[batch]`; importance of each row in the first term, a constant.
            The variances are those of the batch.
        reduction: of `Terms` with three parts: invariance, variance, covariance. Terms
            are rows, which share the last two; all are active.
        axis_name: inside `jax.shard_map`, the mesh axis (or axes) over which the batch
            is sharded; the variances are those of the whole batch.

    Returns:
        A scalar, or what `reduction` returns. With one row there is no variance, and
        the last two parts are 0.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x = jnp.array([[0.0, 0.0], [1.0, 1.0]])
        >>> round(float(vicreg(x, x)), 4), round(float(vicreg(x, x, variance=0.0)), 4)
        (15.1411, 0.5)

    References:
        Bardes et al., "VICReg: Variance-Invariance-Covariance Regularization for
        Self-Supervised Learning", ICLR 2022, arXiv:2105.04906, algorithm 1, eq. 1-6.
    """
    _checks.check_embeddings("embeddings", embeddings)
    shape = jnp.shape(embeddings)
    _checks.check_shape("other_embeddings", other_embeddings, shape, "two views")
    _checks.check_float("other_embeddings", other_embeddings)
    x, y = (numerics.mask_rows(side, where) for side in (embeddings, other_embeddings))
    real = jnp.ones(shape[0], bool) if where is None else jnp.asarray(where)
    real = real.astype(x.dtype)
    (short_x, together_x), (short_y, together_y) = (
        _shortness_and_covariance(z, real, epsilon, axis_name) for z in (x, y)
    )
    parts = [
        invariance * jnp.mean(jnp.square(x - y), axis=1),
        variance * (short_x + short_y) * real,
        covariance * (together_x + together_y) * real,
    ]
    total = jnp.stack(parts, axis=1)
    count = _weighted(real, weights)[:, None] * jnp.ones_like(total)
    return rows.reduce(
        Terms(total * count, count, count), reduction, axis_name=axis_name
    )


def _weighted(real: Array, weights: ArrayLike | None) -> Array:
    if weights is None:
        return real
    _checks.check_shape("weights", weights, real.shape, "one weight for each row")
    return real * jax.lax.stop_gradient(numerics.promote(weights))


def _shortness_and_covariance(
    x: Array, real: Array, epsilon: ArrayLike, axis_name: AxisName | None
) -> tuple[Array, Array]:
    """The variance term `v(x)` and the covariance term `c(x)`; 0 for one row."""

    def summed(x: Array) -> Array:
        return x if axis_name is None else jax.lax.psum(x, axis_name)

    count = summed(jnp.sum(real))
    mean = numerics.divide(summed(jnp.sum(x, axis=0, keepdims=True)), count)
    centered = real[:, None] * (x - mean)
    products = summed(numerics.matmul(centered.T, centered))
    moments = numerics.divide(products, jnp.maximum(count - 1.0, 0.0))
    deviation = numerics.sqrt(jnp.diagonal(moments) + epsilon)
    short = jnp.mean(jnp.maximum(1.0 - deviation, 0.0))
    others = ~jnp.eye(x.shape[1], dtype=bool)
    together = jnp.sum(jnp.where(others, jnp.square(moments), 0.0)) / x.shape[1]
    return jnp.where(count > 1, short, 0.0), together
