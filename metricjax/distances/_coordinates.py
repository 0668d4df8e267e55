"""Distances coordinate by coordinate: Lp and its ends, and Hamming for codes."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from metricjax import _checks, numerics
from metricjax.distances._pairwise import (
    absolute_difference,
    largest_difference,
    sides,
    sum_over_dims,
)


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
    return sum_over_dims(absolute_difference, *sides(x, y))


def lp(x: ArrayLike, y: ArrayLike | None = None, *, p: ArrayLike = 2.0) -> Array:
    """Minkowski (Lp) distance, `(sum_d |x_id - y_jd|^p)^(1/p)`.

    For p = 1 and 2 `manhattan` and `euclidean` are faster, and for p = inf there is
    `chebyshev`. Differences are divided by the largest one of their pair first, so that
    no power overflows. It has no matrix product: time is n * m * dim elementwise (a
    power each), memory n * m.

    Args:
        x: `[n, dim]`.
        y: `[m, dim]`; `x` if None.
        p: a finite number of at least 1; it may be traced.

    Returns:
        `[n, m]`, not negative, with gradient zero where it is zero.

    Raises:
        ValueError: if `x` or `y` is not a matrix, their `dim` differ, or `p` is a
            Python number below 1 or infinite.
        TypeError: if `x` or `y` is not floating.

    Example:
        >>> lp(jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0]]), p=3.0).round(4)
        Array([[4.4979]], dtype=float32)
    """
    x, y = sides(x, y)
    if isinstance(p, int | float) and not 1 <= p < float("inf"):
        raise ValueError(
            f"Expected `p` to be a finite number of at least 1, got {p!r}; below 1 it "
            "is no distance, and its limit at infinity is `distances.chebyshev`."
        )
    peak = largest_difference(x, y)[0]
    apart = peak > 0
    scale = jnp.where(apart, peak, 1.0)

    def term(x_d: Array, y_d: Array) -> Array:
        return _power(absolute_difference(x_d, y_d) / scale, p)

    total = sum_over_dims(term, x, y)
    return jnp.where(apart, scale * jnp.where(apart, total, 1.0) ** (1.0 / p), 0.0)


def _power(base: Array, p: ArrayLike) -> Array:
    """`base^p`, with slope 0 at `base = 0` with respect to both."""
    positive = base > 0
    return jnp.where(positive, jnp.where(positive, base, 1.0) ** p, 0.0)


def chebyshev(x: ArrayLike, y: ArrayLike | None = None) -> Array:
    """Chebyshev (maximum) distance, `max_d |x_id - y_jd|`, the limit of Lp.

    Of equal differences the first one gets the gradient. Time is n * m * dim
    elementwise, memory n * m.

    Args:
        x: `[n, dim]`.
        y: `[m, dim]`; `x` if None.

    Returns:
        `[n, m]`, not negative.

    Raises:
        ValueError: if `x` or `y` is not a matrix, or their `dim` differ.
        TypeError: if one is not floating.

    Example:
        >>> chebyshev(jnp.array([[0.0, 0.0]]), jnp.array([[3.0, -4.0]])).tolist()
        [[4.0]]
    """
    x, y = sides(x, y)
    # Only the chosen coordinate is differentiated: no cube of comparisons is kept.
    dim = largest_difference(x, y)[1]
    left = jnp.take_along_axis(x, dim, axis=1)
    return jnp.abs(left - jnp.take_along_axis(y, dim.T, axis=1).T)


def hamming(x: ArrayLike, y: ArrayLike | None = None) -> Array:
    """Hamming distance of binary codes: the number of bits that differ.

    Codes are bool or 0/1, one entry for each bit, or integers that hold as many bits as
    their type has, as `numpy.packbits` makes them (8 times smaller). Between floats it
    is `sum_d x_d (1 - y_d) + y_d (1 - x_d)`, one matrix product, which is the count for
    0/1 and can be trained with entries in between. For codes of -1/+1 pass `x > 0`.

    Args:
        x: `[n, dim]`, bool, floating or of an integer dtype.
        y: `[m, dim]`, likewise; `x` if None.

    Returns:
        `[n, m]`, in at least float32; divide by the number of bits for a share.

    Raises:
        ValueError: if `x` or `y` is not a matrix, or their `dim` differ.
        TypeError: if one holds packed bits, and the other is of another dtype.

    Example:
        >>> x, y = jnp.array([[True, False, True]]), jnp.array([[False, False, True]])
        >>> hamming(x, y).tolist()
        [[1.0]]
        >>> hamming(jnp.packbits(x, axis=1), jnp.packbits(y, axis=1)).tolist()
        [[1.0]]
    """
    y = x if y is None else y
    _check_codes(x, y)
    if jnp.issubdtype(jnp.result_type(x), jnp.integer):
        return sum_over_dims(_bits_apart, jnp.asarray(x), jnp.asarray(y))
    x, y = sides(numerics.promote(x), numerics.promote(y))
    ones = jnp.sum(x, axis=1)[:, None] + jnp.sum(y, axis=1)[None, :]
    return ones - 2.0 * numerics.matmul(x, y.T)


def _bits_apart(x: Array, y: Array) -> Array:
    return jax.lax.population_count(x ^ y).astype(jnp.float32)


def _check_codes(x: ArrayLike, y: ArrayLike) -> None:
    for name, side in (("x", x), ("y", y)):
        if jnp.ndim(side) != 2:
            raise ValueError(
                f"Expected `{name}` of shape [rows, dim], got "
                f"{_checks.describe(side)}; put each code in a row."
            )
    _checks.check_same_dim("x", x, "y", y)
    packed = [jnp.issubdtype(jnp.result_type(side), jnp.integer) for side in (x, y)]
    if any(packed) and jnp.result_type(x) != jnp.result_type(y):
        raise TypeError(
            "Expected packed codes `x` and `y` of one integer dtype, got "
            f"{_checks.describe(x)} and {_checks.describe(y)}; pack both alike."
        )
