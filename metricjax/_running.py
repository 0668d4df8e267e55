"""Sums over the candidates of a row that can be made from a part of the row at a time.

What a loss must know of its candidates is a pytree of `[b, ...]`: plain sums, and sums
of exponentials with a running maximum, which never overflow at any scale. Those of two
disjoint sets of candidates are merged to those of both.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from metricjax import numerics


class Exponentials(NamedTuple):
    """A sum of exponentials, as far as it has gone.

    Attributes:
        peak: `[b]`, the largest exponent, a constant; the lowest number if none.
        total: `[b]`, sum of `exp(exponent - peak)`; 0 if none, else at least 1.
        moments: `[b]` each, sums of `exp(exponent - peak) * value`.
    """

    peak: Array
    total: Array
    moments: tuple[Array, ...] = ()


def exponentials(
    x: ArrayLike, where: Array, values: tuple[Array, ...] = ()
) -> Exponentials:
    """Sums over the entries of `[b, n]` that `where` selects.

    Args:
        x: `[b, n]`, the exponents.
        where: bool `[b, n]`.
        values: `[b, n]` each, finite, of which the weighted sums are wanted.
    """
    x = numerics.promote(x)
    peak = jnp.max(jnp.where(where, x, -jnp.inf), axis=1)
    lowest = jnp.finfo(x.dtype).min
    peak = jax.lax.stop_gradient(jnp.where(jnp.isfinite(peak), peak, lowest))
    # Masked before the exponential: exp of a discarded entry may overflow.
    weights = jnp.exp(jnp.where(where, x - peak[:, None], -jnp.inf))
    moments = tuple(jnp.sum(weights * value, axis=1) for value in values)
    return Exponentials(peak, jnp.sum(weights, axis=1), moments)


def log(sums: Exponentials) -> tuple[Array, Array]:
    """Logarithm of the sum, 0 where it is empty; and whether it is not."""
    # Written so that NaN stays NaN: a broken input must show.
    some = sums.total != 0
    total = jnp.log(jnp.where(some, sums.total, 1.0))
    return jnp.where(some, total + sums.peak, 0.0), some


def softplus(sums: Exponentials) -> Array:
    """Logarithm of one plus the sum; 0 where it is empty."""
    top = jnp.maximum(sums.peak, 0.0)
    # exp(-top) is the "1 +"; log1p keeps a small sum exact when top is 0.
    rest = sums.total * jnp.exp(sums.peak - top) + jnp.expm1(-top)
    return jnp.log1p(rest) + top


def merge(one: Any, other: Any) -> Any:
    """Sums of two disjoint sets of candidates as those of both; `any` for bools."""
    return jax.tree.map(_merge, one, other, is_leaf=_is_exponentials)


def is_plain(sums: Any) -> bool:
    """Whether there are plain sums only, so that one end of `merge` can't change."""
    leaves = jax.tree.leaves(sums, is_leaf=_is_exponentials)
    return not any(map(_is_exponentials, leaves))


def _is_exponentials(x: Any) -> bool:
    return isinstance(x, Exponentials)


def _merge(one: Any, other: Any) -> Any:
    if not isinstance(one, Exponentials):
        return jnp.add(one, other)
    peak = jnp.maximum(one.peak, other.peak)
    scales = [jnp.exp(s.peak - peak) for s in (one, other)]
    sums = (one.total, *one.moments), (other.total, *other.moments)
    total, *moments = (
        scales[0] * x + scales[1] * y for x, y in zip(*sums, strict=True)
    )
    return Exponentials(peak, total, tuple(moments))
