"""Sums of what each positive of a row makes of that row, one positive at a time.

A term that compares one positive with the whole row needs `[b, n]` for each of them; a
loop holds one at a time. How long it runs is known only at run time, and such a loop
can be differentiated forwards, not backwards: the slopes are made in the same loop, at
once with the value.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from metricjax import mining

Term = Callable[[Array, Array, Array, Array, Any], Array]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def sum_terms(
    term: Term, rows: Array, positive: Array, negative: Array, parameters: Any
) -> Array:
    """Sum of a term over the positives of each row, in the memory of a few rows.

    Time is that of the term, once for each positive of the row that has most.

    Args:
        term: `(rows [b, n], value [b], rivals [b, n], negative [b, n], parameters)` to
            `[b]`, where `value` is the row at one positive and `rivals` are the other
            positives; a module-level function that treats each row by itself.
        rows: `[b, n]`.
        positive: bool `[b, n]`.
        negative: bool `[b, n]`.
        parameters: a pytree of floats `[b, ...]`, see `per_row`.

    Returns:
        `[b]`; 0 for a row without positives.
    """

    def one(chosen: Array, some: Array) -> Array:
        value = _at(term, chosen, positive, negative, rows, parameters)
        return jnp.where(some, value, 0.0)

    return _accumulate(one, positive, jnp.zeros_like(rows[:, 0]))


@sum_terms.defjvp
def _sum_terms_jvp(term: Term, primals: Any, tangents: Any) -> tuple[Array, Array]:
    rows, positive, negative, parameters = primals
    rows_dot, _, _, parameters_dot = tangents

    def one(chosen: Array, some: Array) -> Any:
        at = functools.partial(_at, term, chosen, positive, negative)
        value, pullback = jax.vjp(at, rows, parameters)
        # Rows are independent: a cotangent of one in each gives the slopes of each.
        return jnp.where(some, value, 0.0), pullback(some.astype(value.dtype))

    zeros = jax.tree.map(jnp.zeros_like, (rows[:, 0], (rows, parameters)))
    total, slopes = _accumulate(one, positive, zeros)
    products = jax.tree.map(_inner, slopes, (rows_dot, parameters_dot))
    return total, sum(jax.tree.leaves(products), start=jnp.zeros_like(total))


def per_row(value: Any, rows: Array) -> Any:
    """Numbers, shared by all rows, as arrays `[b, ...]` of the dtype of the rows."""

    def spread(x: Any) -> Array:
        x = jnp.asarray(x, rows.dtype)
        return jnp.broadcast_to(x, (rows.shape[0], *x.shape))

    return jax.tree.map(spread, value)


def _at(
    term: Term,
    chosen: Array,
    positive: Array,
    negative: Array,
    rows: Array,
    parameters: Any,
) -> Array:
    """The term of the chosen column of each row."""
    value = jnp.sum(jnp.where(chosen, rows, 0.0), axis=1)
    return term(rows, value, positive & ~chosen, negative, parameters)


def _inner(x: Array, y: Array) -> Array:
    """Inner product of each row: `[b, ...]` twice to `[b]`."""
    return jnp.sum((x * y).reshape(x.shape[0], -1), axis=1)


def _accumulate(one: Callable[[Array, Array], Any], positive: Array, zeros: Any) -> Any:
    """Sum of `one(chosen bool [b, n], some bool [b])` over the positives of each row.

    `zeros` is made of the rows, so that in `jax.shard_map` it varies as they do; where
    `some` is False the row has no positive left, and `one` must give zeros.
    """
    column = jnp.arange(positive.shape[1], dtype=jnp.int32)[None]
    steps = jnp.max(jnp.sum(positive, axis=1, dtype=jnp.int32))

    def step(_: Array, state: tuple[Array, Any]) -> tuple[Array, Any]:
        after, total = state
        index, some = mining.nth_positive(positive, after)
        chosen = (column == index[:, None]) & some[:, None]
        total = jax.tree.map(jnp.add, total, one(chosen, some))
        return jnp.where(some, index, after), total

    start = jnp.full_like(positive[:, 0], -1, dtype=jnp.int32)
    return jax.lax.fori_loop(0, steps, step, (start, zeros))[1]
