"""Distances of straight lines: Euclidean, squared, and with a learned matrix."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from metricjax import _checks, numerics
from metricjax.distances._pairwise import (
    Distance,
    sides,
    squared_difference,
    sum_over_dims,
)
from metricjax.numerics import HIGHEST, Precision


def squared_euclidean(
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    exact: bool = False,
    precision: Precision = HIGHEST,
) -> Array:
    """Squared Euclidean distance, `||x_i - y_j||^2`.

    By default through `||x||^2 + ||y||^2 - 2 x.y`, one matrix product, clamped at zero.
    Its absolute error is about 1e-7 of the squared norms, so that near duplicates lose
    their digits and the diagonal need not be exactly zero; `exact=True` sums squared
    differences instead, slower, with no such loss.

    Args:
        x: `[n, dim]`.
        y: `[m, dim]`; `x` if None.
        exact: whether to sum differences. Static.
        precision: of the matrix product.

    Returns:
        `[n, m]`, not negative.

    Raises:
        ValueError: if `x` or `y` is not a matrix, or their `dim` differ.
        TypeError: if one is not floating.

    Example:
        >>> squared_euclidean(jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0]])).tolist()
        [[25.0]]
    """
    x, y = sides(x, y)
    if exact:
        return sum_over_dims(squared_difference, x, y)
    x2 = jnp.sum(jnp.square(x), axis=1)[:, None]
    columns = y.T
    if x.shape[0] < y.shape[0]:
        # A block of rows: all of `y` through its transpose, which all blocks share and
        # whose gradient XLA then leaves a product `x^T slopes`.
        y2 = jnp.sum(jnp.square(columns), axis=0)[None, :]
    else:
        y2 = jnp.sum(jnp.square(y), axis=1)[None, :]
    # The factor is on `x`: on a CPU XLA would make an `[n, m]` array of it.
    return jax.nn.relu(
        x2 + y2 + numerics.matmul(-2.0 * x, columns, precision=precision)
    )


def euclidean(
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    exact: bool = False,
    precision: Precision = HIGHEST,
) -> Array:
    """Euclidean distance, `||x_i - y_j||`, with gradient zero where it is zero.

    Args:
        x: `[n, dim]`.
        y: `[m, dim]`; `x` if None.
        exact: see `squared_euclidean`. Static.
        precision: of the matrix product.

    Returns:
        `[n, m]`, not negative.

    Raises:
        ValueError: if `x` or `y` is not a matrix, or their `dim` differ.
        TypeError: if one is not floating.

    Example:
        >>> euclidean(jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0]])).tolist()
        [[5.0]]
    """
    return numerics.sqrt(squared_euclidean(x, y, exact=exact, precision=precision))


def mahalanobis(
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    factor: ArrayLike,
    exact: bool = False,
    precision: Precision = HIGHEST,
) -> Array:
    """Mahalanobis distance, `||L (x_i - y_j)||`, of a matrix `M = L^T L`.

    The factor may be learned: any `L` gives a valid `M`, so that nothing needs to be
    projected. Where the same rows are measured block by block, `L` is applied to the
    candidates each time; `euclidean` on rows already multiplied by `L` saves that.

    Args:
        x: `[n, dim]`.
        y: `[m, dim]`; `x` if None.
        factor: `L`, `[rank, dim]`; fewer rows than columns also reduce the dimension.
        exact: see `squared_euclidean`. Static.
        precision: of the matrix products.

    Returns:
        `[n, m]`, not negative.

    Raises:
        ValueError: if an argument is not a matrix, or their `dim` differ.
        TypeError: if one is not floating.

    Example:
        >>> x, y = jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0]])
        >>> mahalanobis(x, y, factor=jnp.array([[1.0, 0.0], [0.0, 3.0]])).round(4)
        Array([[12.3693]], dtype=float32)

    References:
        Weinberger and Saul, "Distance Metric Learning for Large Margin Nearest Neighbor
        Classification", JMLR 2009, eq. 2-3 (squared there).
    """
    x, y = sides(x, y)
    _checks.check_embeddings("factor", factor)
    _checks.check_same_dim("x", x, "factor", factor)
    factor = jnp.asarray(factor)
    x, y = (numerics.matmul(side, factor.T, precision=precision) for side in (x, y))
    return euclidean(x, y, exact=exact, precision=precision)


def paired(x: ArrayLike, y: ArrayLike, *, distance: Distance = euclidean) -> Array:
    """Distance of each row of `x` to the same row of `y`.

    Args:
        x: `[n, dim]`.
        y: `[n, dim]`.
        distance: any function `(x, y) -> [n, m]`, of this module or of your own.

    Returns:
        `[n]`.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> paired(jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0]])).tolist()
        [5.0]
    """
    _checks.check_embeddings("x", x)
    _checks.check_shape("y", y, jnp.shape(x), "give one row of `y` for each of `x`")
    return jax.vmap(lambda a, b: distance(a[None], b[None])[0, 0])(
        jnp.asarray(x), jnp.asarray(y)
    )
