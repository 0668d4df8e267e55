"""The whole batch on every device, known to be the same there."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

Axis = str | tuple[str, ...]


def whole(tree: Any, axis_name: Axis | None) -> Any:
    """Leaves `[batch, ...]` of all devices of a mesh axis, one after the other.

    `jax.lax.all_gather` gives the same, but leaves JAX in the belief that the devices
    differ, so that a state made of it could not be called replicated.
    """
    if axis_name is None:
        return tree
    return jax.tree.map(lambda x: _whole(x, axis_name), tree)


def _whole(x: Array, axis_name: Axis) -> Array:
    if x.dtype == jnp.bool_:
        return _whole(x.astype(jnp.int8), axis_name).astype(jnp.bool_)
    size, index = x.shape[0], jax.lax.axis_index(axis_name)
    shape = (size * jax.lax.axis_size(axis_name), *x.shape[1:])
    # No number is added to another than zero.
    placed = jax.lax.dynamic_update_slice_in_dim(
        jnp.zeros(shape, x.dtype), x, index * size, axis=0
    )
    return jax.lax.psum(placed, axis_name)
