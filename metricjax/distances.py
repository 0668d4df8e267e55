"""Distances between two sets of vectors: `(x, y) -> [n, m]`, smaller is closer.

`y` defaults to `x`. Every function takes any floating dtype and returns float32
(float64 stays float64). Products run at full float32 by default; see `precision`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from metricjax import _checks, numerics
from metricjax.numerics import HIGHEST, Precision

__all__ = ["cosine", "euclidean", "manhattan", "paired", "squared_euclidean"]

Distance = Callable[..., Array]


def _sides(x: ArrayLike, y: ArrayLike | None) -> tuple[Array, Array]:
    y = x if y is None else y
    _checks.check_embeddings("x", x)
    _checks.check_embeddings("y", y)
    _checks.check_same_dim("x", x, "y", y)
    return numerics.promote(x), numerics.promote(y)


def _sum_over_dims(term: Callable[[Array], Array], x: Array, y: Array) -> Array:
    """`sum_d term(x_d - y_d)` for all pairs, without the `[n, m, dim]` cube."""

    # Checkpointed, so that the gradient keeps the columns and not each difference.
    @jax.checkpoint
    def column(x_d: Array, y_d: Array) -> Array:
        return term(x_d[:, None] - y_d[None, :])

    def add(total: Array, columns: tuple[Array, Array]) -> tuple[Array, None]:
        return total + column(*columns), None

    first = column(x[:, 0], y[:, 0])
    return jax.lax.scan(add, first, (x.T[1:], y.T[1:]))[0]


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
    x, y = _sides(x, y)
    if exact:
        return _sum_over_dims(jnp.square, x, y)
    x2 = jnp.sum(jnp.square(x), axis=1)[:, None]
    y2 = jnp.sum(jnp.square(y), axis=1)[None, :]
    gram = numerics.matmul(x, y.T, precision=precision)
    return jnp.maximum(x2 + y2 - 2.0 * gram, 0.0)


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


def cosine(
    x: ArrayLike, y: ArrayLike | None = None, *, precision: Precision = HIGHEST
) -> Array:
    """Cosine distance, `1 - x_i.y_j / (||x_i|| ||y_j||)`, in [0, 2].

    A zero vector is at distance 1 from everything, with zero gradient.

    Args:
        x: `[n, dim]`.
        y: `[m, dim]`; `x` if None.
        precision: of the matrix product.

    Returns:
        `[n, m]`.

    Raises:
        ValueError: if `x` or `y` is not a matrix, or their `dim` differ.
        TypeError: if one is not floating.

    Example:
        >>> cosine(jnp.array([[1.0, 0]]), jnp.array([[0, 2.0], [3.0, 0]])).tolist()
        [[1.0, 0.0]]
    """
    x, y = (numerics.l2_normalize(side) for side in _sides(x, y))
    return 1.0 - numerics.matmul(x, y.T, precision=precision)


def manhattan(x: ArrayLike, y: ArrayLike | None = None) -> Array:
    """Manhattan (L1) distance, `sum_d |x_id - y_jd|`.

    It has no matrix product: time is n * m * dim elementwise, memory n * m.

    Args:
        x: `[n, dim]`.
        y: `[m, dim]`; `x` if None.

    Returns:
        `[n, m]`, not negative.

    Raises:
        ValueError: if `x` or `y` is not a matrix, or their `dim` differ.
        TypeError: if one is not floating.

    Example:
        >>> manhattan(jnp.array([[0.0, 0.0]]), jnp.array([[3.0, -4.0]])).tolist()
        [[7.0]]
    """
    return _sum_over_dims(jnp.abs, *_sides(x, y))


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
