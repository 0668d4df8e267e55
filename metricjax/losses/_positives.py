"""A loop over the positives of each anchor, for losses that read the positive's row."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from metricjax import mining, numerics, rows

Step = Callable[[Array, Array], Any]


def candidates(own: Array, options: rows.Options) -> Array:
    """The vectors of the candidates, as `per_candidate` of the engine wants them.

    Padding is zero. On several devices they are those of this one: the engine gathers.
    """
    refs = options.get("ref_embeddings")
    return own if refs is None else numerics.mask_rows(refs, options.get("ref_where"))


def sum_over_positives(step: Step, positive: Array, zeros: Any) -> Any:
    """The sum over the positives of each row of `step(column, some)`.

    The number of positives is known only at run time, and a loop of unknown length
    can't be differentiated backwards. So the steps are grouped in scans of 2, 16, 128,
    ... steps, and what no row needs, scan or step, is skipped. The gradient recomputes
    each step: memory is that of one step.

    Args:
        step: `(column int32 [b], some bool [b]) -> pytree`; zero where `some` is False,
            which says that the row has no such positive.
        positive: bool `[b, n]`.
        zeros: zeros of what `step` returns.

    Returns:
        What `step` returns, summed.
    """
    most = jnp.max(jnp.sum(positive, axis=1, dtype=jnp.int32))

    def one(state: Any) -> Any:
        after, total = state
        column, some = mining.nth_positive(positive, after)
        total = jax.tree.map(jnp.add, total, step(column, some))
        return jnp.where(some, column, after), total

    # Outside of the condition, which would keep what both of its branches read.
    @jax.checkpoint
    def if_needed(state: Any, number: Array) -> tuple[Any, None]:
        return jax.lax.cond(number < most, one, lambda state: state, state), None

    # Made of the masks, so that in jax.shard_map it varies as they do.
    start = jnp.full_like(positive[:, 0], -1, dtype=jnp.int32)
    state = (start, zeros)
    for numbers in _scans(positive.shape[1]):
        state = jax.lax.cond(
            numbers[0] < most,
            lambda state, numbers=numbers: jax.lax.scan(if_needed, state, numbers)[0],
            lambda state: state,
            state,
        )
    return state[1]


def _scans(steps: int) -> Iterator[np.ndarray]:
    """The numbers of the steps of each scan."""
    first, length = 0, 2
    while first < steps:
        last = min(first + length, steps)
        yield np.arange(first, last, dtype=np.int32)
        first, length = last, 8 * length
