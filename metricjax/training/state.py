"""Everything that a training run carries from step to step, in one plain pytree."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jax import Array

__all__ = ["State", "init"]

Tree = Any  # a nested dict of arrays


class State(NamedTuple):
    """What a step takes and returns, and what a checkpoint holds.

    Attributes:
        step: int32 scalar, the number of steps taken.
        params: trained by the optimiser, by part: "encoder", "head", ....
        model_state: what the encoder keeps besides (batch statistics).
        opt_state: what the optimiser keeps.
        loss_state: what the loss keeps (centers, a queue); `{}` if nothing.
        key: the run's random key. It never changes: the key of a step is
            `jax.random.fold_in(key, step)`, so that a step can be done again.
    """

    step: Array
    params: Tree
    model_state: Tree
    opt_state: Tree
    loss_state: Tree
    key: Array


def init(
    key: Array,
    params: Tree,
    *,
    optimizer: optax.GradientTransformation,
    model_state: Tree | None = None,
    loss_state: Tree | None = None,
) -> State:
    """The state before the first step.

    Args:
        key: a random key, the run's own.
        params: initial parameters by part, for instance
            `{"encoder": ..., "head": ...}`.
        optimizer: an optax gradient transformation.
        model_state: the encoder's initial state; `{}` if None.
        loss_state: the loss's initial state; `{}` if None.

    Returns:
        The state, at step 0.

    Example:
        >>> import jax
        >>> params = {"encoder": {"kernel": jnp.ones((4, 2))}}
        >>> state = init(jax.random.key(0), params, optimizer=optax.sgd(0.1))
        >>> int(state.step), state.model_state
        (0, {})
    """
    return State(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state={} if model_state is None else model_state,
        opt_state=optimizer.init(params),
        loss_state={} if loss_state is None else loss_state,
        key=key,
    )
