"""Numerically safe building blocks: every value and every gradient is finite.

All of them accept any floating dtype and compute in at least float32 (float64 stays
float64), because a distance, an exponential or a norm in bfloat16 is not worth having.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from metricjax import _checks

__all__ = [
    "HIGHEST",
    "MIN_SINE",
    "Precision",
    "divide",
    "l2_normalize",
    "logsumexp",
    "mask_rows",
    "matmul",
    "norm",
    "promote",
    "sine",
    "softplus_sum",
    "sqrt",
    "straight_through",
]

Precision = jax.lax.PrecisionLike
HIGHEST = jax.lax.Precision.HIGHEST


def promote(x: ArrayLike) -> Array:
    """`x` in float32, or in float64 if it was float64.

    Args:
        x: an array of any shape and of any floating, integer or bool dtype.

    Returns:
        The array in its computing dtype; gradients come back in the dtype of `x`.

    Example:
        >>> promote(jnp.ones(2, jnp.bfloat16)).dtype
        dtype('float32')
    """
    x = jnp.asarray(x)
    return x.astype(jnp.float64 if x.dtype == jnp.float64 else jnp.float32)


def sqrt(x: ArrayLike) -> Array:
    """Square root with `sqrt(x) = 0` and slope 0 for `x <= 0`.

    The true slope at 0 is infinite and turns a zero cotangent into NaN (0 * inf), and
    rounding makes small squared distances negative.

    Args:
        x: an array of any shape.

    Returns:
        The array of square roots, in at least float32.

    Example:
        >>> [float(v) for v in jax.vmap(jax.grad(sqrt))(jnp.array([0.0, 4.0]))]
        [0.0, 0.25]
    """
    return _sqrt(promote(x))


@jax.custom_jvp
def _sqrt(x: Array) -> Array:
    # Written so that NaN stays NaN: a broken input must show.
    return jnp.sqrt(jnp.where(x <= 0, 0.0, x))


@_sqrt.defjvp
def _sqrt_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dot,) = primals, tangents
    out = _sqrt(x)
    zero = out == 0
    return out, jnp.where(zero, 0.0, 0.5 / jnp.where(zero, 1.0, out)) * dot


def norm(x: ArrayLike, *, axis: int = -1, keepdims: bool = False) -> Array:
    """Euclidean norm along an axis; the zero vector has norm 0 and gradient 0.

    Vectors are divided by their largest magnitude first, so that neither 1e30 nor 1e-30
    overflows or underflows in the square.

    Args:
        x: an array `[..., dim, ...]`.
        axis: the axis that holds the vectors.
        keepdims: whether to keep that axis with length one.

    Returns:
        The norms, in at least float32.

    Example:
        >>> float(norm(jnp.array([3.0, 4.0])))
        5.0
    """
    x = promote(x)
    peak = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=axis, keepdims=True))
    peak = jnp.where(peak > 0, peak, 1.0)
    out = sqrt(jnp.sum(jnp.square(x / peak), axis=axis, keepdims=True)) * peak
    return out if keepdims else jnp.squeeze(out, axis=axis)


def l2_normalize(x: ArrayLike, *, axis: int = -1) -> Array:
    """`x / ||x||`; the zero vector stays zero and gets a zero gradient.

    Args:
        x: an array `[..., dim, ...]`.
        axis: the axis that holds the vectors.

    Returns:
        Unit vectors of the shape of `x`, in at least float32.

    Example:
        >>> l2_normalize(jnp.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    x = promote(x)
    length = norm(x, axis=axis, keepdims=True)
    nonzero = length != 0
    return jnp.where(nonzero, x / jnp.where(nonzero, length, 1.0), 0.0)


def logsumexp(x: ArrayLike, where: ArrayLike, *, axis: int = -1) -> Array:
    """`log(sum(exp(x)))` over the entries that `where` selects.

    A row with nothing selected gives minus infinity, as the logarithm of an empty sum
    should, with zero gradient; use `softplus_sum` where a zero is wanted.

    Args:
        x: an array of any shape.
        where: a bool array of the same shape.
        axis: the axis to reduce.

    Returns:
        The masked logsumexp, in at least float32.

    Example:
        >>> x = jnp.array([[0.0, 9.0], [1.0, 2.0]])
        >>> where = jnp.array([[True, False], [False, False]])
        >>> logsumexp(x, where).tolist()
        [0.0, -inf]
    """
    x, where = promote(x), jnp.asarray(where)
    some = jnp.any(where, axis=axis)
    peak = jnp.max(jnp.where(where, x, -jnp.inf), axis=axis, keepdims=True)
    peak = jax.lax.stop_gradient(jnp.where(jnp.isfinite(peak), peak, 0.0))
    # Masked before the exponential: exp of a discarded entry may overflow.
    terms = jnp.where(where, jnp.exp(jnp.where(where, x - peak, 0.0)), 0.0)
    total = jnp.where(some, jnp.sum(terms, axis=axis), 1.0)
    return jnp.where(some, jnp.log(total) + jnp.squeeze(peak, axis=axis), -jnp.inf)


def softplus_sum(x: ArrayLike, where: ArrayLike, *, axis: int = -1) -> Array:
    """`log(1 + sum(exp(x)))` over the entries that `where` selects; 0 if none.

    Args:
        x: an array of any shape.
        where: a bool array of the same shape.
        axis: the axis to reduce.

    Returns:
        The masked log of one plus the sum of exponentials, in at least float32.

    Example:
        >>> float(softplus_sum(jnp.zeros(3), jnp.zeros(3, bool)))
        0.0
    """
    x, where = promote(x), jnp.asarray(where)
    peak = jnp.max(jnp.where(where, x, 0.0), axis=axis, keepdims=True)
    peak = jax.lax.stop_gradient(jnp.maximum(peak, 0.0))
    terms = jnp.where(where, jnp.exp(jnp.where(where, x - peak, 0.0)), 0.0)
    peak = jnp.squeeze(peak, axis=axis)
    # exp(-peak) is the "1 +"; log1p keeps a small sum exact when peak is 0.
    rest = jnp.sum(terms, axis=axis) + jnp.expm1(-peak)
    return jnp.log1p(rest) + peak


def divide(numerator: ArrayLike, denominator: ArrayLike) -> Array:
    """`numerator / denominator`, and 0 with zero gradient where the denominator is 0.

    Args:
        numerator: an array.
        denominator: an array that broadcasts with it.

    Returns:
        The quotient, in at least float32.

    Example:
        >>> divide(jnp.array([1.0, 1.0]), jnp.array([2.0, 0.0])).tolist()
        [0.5, 0.0]
    """
    numerator, denominator = promote(numerator), promote(denominator)
    defined = denominator != 0
    return jnp.where(defined, numerator / jnp.where(defined, denominator, 1.0), 0.0)


def matmul(x: ArrayLike, y: ArrayLike, *, precision: Precision = HIGHEST) -> Array:
    """Matrix product that accumulates in at least float32, whatever the inputs.

    Args:
        x: `[n, k]` of any floating dtype.
        y: `[k, m]` of any floating dtype.
        precision: of the product; the default is full float32, since a GPU may
            otherwise round its inputs to TF32 (10 bits).

    Returns:
        `[n, m]` in float32, or in float64 if an input was.

    Example:
        >>> x = jnp.full((1, 1000), 0.1, jnp.bfloat16)
        >>> matmul(x, x.T).dtype
        dtype('float32')
    """
    x, y = promote(x), promote(y)
    dtype = jnp.promote_types(x.dtype, y.dtype)
    return jnp.matmul(x.astype(dtype), y.astype(dtype), precision=precision)


def mask_rows(x: ArrayLike, where: ArrayLike | None) -> Array:
    """`x` with zeros in the rows that are padding, which get no gradient.

    Padding may hold anything, NaN included, and 0 * NaN would reach the gradient.

    Args:
        x: `[rows, dim]`.
        where: bool `[rows]`, False for padding; None if there is none.

    Returns:
        `[rows, dim]`, in at least float32.

    Raises:
        ValueError: if `where` has another shape.
        TypeError: if `where` is not bool.

    Example:
        >>> mask_rows(jnp.array([[1.0], [jnp.nan]]), jnp.array([True, False])).tolist()
        [[1.0], [0.0]]
    """
    x = promote(x)
    if where is None:
        return x
    _checks.check_mask("where", where, x.shape[:1])
    return jnp.where(jnp.asarray(where)[:, None], x, 0.0)


def straight_through(value: ArrayLike, surrogate: Array) -> Array:
    """`value` whose derivative is that of `surrogate`.

    Args:
        value: what to return; no derivative flows through it.
        surrogate: finite, of the same shape; its derivative is used.

    Returns:
        An array equal to `value`.

    Example:
        >>> float(jax.grad(lambda x: straight_through(jnp.round(x), 3.0 * x))(0.4))
        3.0
    """
    stop = jax.lax.stop_gradient
    # surrogate - surrogate is exactly zero, so the value is not perturbed.
    return stop(jnp.asarray(value)) + (surrogate - stop(surrogate))


def sine(cosine: ArrayLike) -> Array:
    """`sqrt(1 - c^2)`, the sine of the angle whose cosine is `c`; its slope is capped.

    The slope `-c / sin` grows without bound towards `|c| = 1`; here the sine below the
    line is at least `MIN_SINE`, so that the slope is at most 2048 in magnitude. The cap
    acts on angles below 0.03 degrees, where the gradient of the cosine itself vanishes
    in proportion to the sine, so that what reaches the embeddings stays bounded.

    Args:
        cosine: an array of any shape; values beyond [-1, 1] by rounding are allowed.

    Returns:
        The sine of the same shape, in at least float32.

    Example:
        >>> float(sine(0.6)), float(jax.grad(sine)(1.0))
        (0.800000011920929, -2048.0)
    """
    return _sine(promote(cosine))


MIN_SINE = 2.0**-11


@jax.custom_jvp
def _sine(cosine: Array) -> Array:
    # (1 - c)(1 + c) keeps the digits that 1 - c^2 loses near one.
    return jnp.sqrt(jnp.maximum((1.0 - cosine) * (1.0 + cosine), 0.0))


@_sine.defjvp
def _sine_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (cosine,), (dot,) = primals, tangents
    out = _sine(cosine)
    return out, -cosine / jnp.maximum(out, MIN_SINE) * dot
