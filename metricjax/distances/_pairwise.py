"""What the distances share: checked sides, and loops over the coordinates."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from metricjax import _checks, numerics

Distance = Callable[..., Array]


def sides(x: ArrayLike, y: ArrayLike | None) -> tuple[Array, Array]:
    """Both sides checked, in their computing dtype; `y` is `x` if None."""
    y = x if y is None else y
    _checks.check_embeddings("x", x)
    _checks.check_embeddings("y", y)
    _checks.check_same_dim("x", x, "y", y)
    return numerics.promote(x), numerics.promote(y)


def sum_over_dims(term: Callable[[Array, Array], Array], x: Array, y: Array) -> Array:
    """`sum_d term(x_d, y_d)` for all pairs, without the `[n, m, dim]` cube."""

    # Checkpointed, so that the gradient keeps the columns and not each difference.
    @jax.checkpoint
    def column(x_d: Array, y_d: Array) -> Array:
        return term(x_d[:, None], y_d[None, :])

    def add(total: Array, columns: tuple[Array, Array]) -> tuple[Array, None]:
        return total + column(*columns), None

    first = column(x[:, 0], y[:, 0])
    return jax.lax.scan(add, first, (x.T[1:], y.T[1:]))[0]


def absolute_difference(x: Array, y: Array) -> Array:
    """`|x - y|`, a term of `sum_over_dims`."""
    return jnp.abs(x - y)


def squared_difference(x: Array, y: Array) -> Array:
    """`(x - y)^2`, a term of `sum_over_dims`."""
    return jnp.square(x - y)


def largest_difference(x: Array, y: Array) -> tuple[Array, Array]:
    """`max_d |x_d - y_d|` of all pairs, and the first `d` where it is; constants."""
    x, y = jax.lax.stop_gradient((x, y))

    def raise_to(
        state: tuple[Array, Array], columns: tuple[Array, Array, Array]
    ) -> tuple[tuple[Array, Array], None]:
        (peak, where), (x_d, y_d, d) = state, columns
        size = jnp.abs(x_d[:, None] - y_d[None, :])
        return (jnp.maximum(peak, size), jnp.where(size > peak, d, where)), None

    first = jnp.abs(x[:, :1] - y[:, 0])
    start = first, jnp.zeros_like(first, dtype=jnp.int32)
    dims = jnp.arange(1, x.shape[1], dtype=jnp.int32)
    return jax.lax.scan(raise_to, start, (x.T[1:], y.T[1:], dims))[0]
