"""Similarities between two sets of vectors: `(x, y) -> [n, m]`, larger is closer.

The mirror of `metricjax.distances`: a function is one or the other, never a flag.
"""

from jax import Array
from jax.typing import ArrayLike

from metricjax import _checks, numerics
from metricjax.numerics import HIGHEST, Precision

__all__ = ["cosine", "dot"]


def dot(
    x: ArrayLike, y: ArrayLike | None = None, *, precision: Precision = HIGHEST
) -> Array:
    """Dot product, `x_i . y_j`.

    Args:
        x: `[n, dim]`.
        y: `[m, dim]`; `x` if None.
        precision: of the matrix product.

    Returns:
        `[n, m]`, in at least float32.

    Raises:
        ValueError: if `x` or `y` is not a matrix, or their `dim` differ.
        TypeError: if one is not floating.

    Example:
        >>> import jax.numpy as jnp
        >>> dot(jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 4.0]])).tolist()
        [[11.0]]
    """
    y = x if y is None else y
    _checks.check_embeddings("x", x)
    _checks.check_embeddings("y", y)
    _checks.check_same_dim("x", x, "y", y)
    return numerics.matmul(x, numerics.promote(y).T, precision=precision)


def cosine(
    x: ArrayLike, y: ArrayLike | None = None, *, precision: Precision = HIGHEST
) -> Array:
    """Cosine similarity, `x_i.y_j / (||x_i|| ||y_j||)`, in [-1, 1] up to rounding.

    A zero vector has similarity 0 with everything, with zero gradient.

    Args:
        x: `[n, dim]`.
        y: `[m, dim]`; `x` if None.
        precision: of the matrix product.

    Returns:
        `[n, m]`, in at least float32.

    Raises:
        ValueError: if `x` or `y` is not a matrix, or their `dim` differ.
        TypeError: if one is not floating.

    Example:
        >>> import jax.numpy as jnp
        >>> cosine(jnp.array([[2.0, 0]]), jnp.array([[0, 1.0], [3.0, 0]])).tolist()
        [[0.0, 1.0]]
    """
    y = x if y is None else y
    _checks.check_embeddings("x", x)
    _checks.check_embeddings("y", y)
    return dot(numerics.l2_normalize(x), numerics.l2_normalize(y), precision=precision)
