"""Training on many devices: each has its part of the batch, and the whole state.

    mesh = parallel.make_mesh(8)
    step = parallel.data_parallel(step, mesh)

The loss is that of the whole batch, whatever the number of devices: negatives are found
in all of it, batch norm has the statistics of all of it, and the gradient needs no
scaling. The compiler puts the communication where it is needed.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from metricjax.training.state import State
from metricjax.training.step import Step

__all__ = ["data_parallel", "local", "make_mesh", "place"]

_AXIS = "data"


def make_mesh(count: int) -> Mesh:
    """A row of devices, among which batches are divided.

    Args:
        count: number of devices; 0 for all that there are.

    Returns:
        A mesh with the one axis "data".

    Raises:
        ValueError: if there are fewer devices, or `count` is negative.

    Example:
        >>> make_mesh(1).size
        1
    """
    devices = jax.devices()
    if not 0 <= count <= len(devices):
        raise ValueError(
            f"Expected 0 to {len(devices)} devices of kind {devices[0].platform}, got "
            f"{count}; 0 takes all. A CPU counts as many as the environment says: "
            "XLA_FLAGS=--xla_force_host_platform_device_count=8."
        )
    chosen = devices[:count] if count else devices
    axes = {"axis_shapes": (len(chosen),), "axis_names": (_AXIS,)}
    return jax.make_mesh(**axes, axis_types=(AxisType.Auto,), devices=chosen)


def data_parallel(step: Step, mesh: Mesh) -> Step:
    """The same step on many devices: the same loss, up to rounding.

    The state may come from anywhere, such as a checkpoint that was saved on another
    number of devices; afterwards each device has all of it. See `local` for how to use
    it on one device again.

    Args:
        step: from `step.make_step`.
        mesh: from `make_mesh`.

    Returns:
        `(state, batch) -> (state, metrics)`, compiled; it donates the state.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from metricjax.training.state import init
        >>> from metricjax.training.step import Outputs, make_step
        >>> def loss_function(params, model_state, loss_state, batch, key):
        ...     return jnp.mean((params - batch) ** 2), Outputs({}, {}, {})
        >>> optimizer = optax.sgd(0.5)
        >>> step = data_parallel(make_step(loss_function, optimizer), make_mesh(1))
        >>> state = init(jax.random.key(0), jnp.zeros(()), optimizer=optimizer)
        >>> state, metrics = step(state, np.array([1.0, 3.0], np.float32))
        >>> float(metrics["loss"]), float(state.params)
        (5.0, 2.0)
    """
    whole = NamedSharding(mesh, PartitionSpec())
    program = jax.jit(step, out_shardings=whole, donate_argnums=0)

    def parallel(state: State, batch: Any) -> tuple[State, dict[str, jax.Array]]:
        return program(jax.device_put(state, whole), place(batch, mesh))

    return parallel


def place(batch: Any, mesh: Mesh) -> Any:
    """Divide a batch among devices by its rows.

    What has as many rows as the first array of the batch is divided; the rest, such as
    a table of classes, goes to each device.

    Args:
        batch: a pytree of arrays; the first has a row for each example.
        mesh: from `make_mesh`.

    Returns:
        The batch, on the devices.

    Raises:
        ValueError: if the number of rows is not a multiple of that of devices.

    Example:
        >>> images, labels = np.zeros((4, 8, 8, 1), np.uint8), np.arange(4)
        >>> place((images, labels), make_mesh(1))[1].sharding.is_fully_addressable
        True
    """
    rows = np.shape(jax.tree.leaves(batch)[0])[0]
    if rows % mesh.size:
        fewer = max(n for n in range(1, mesh.size) if rows % n == 0)
        below = rows - rows % mesh.size
        sizes = f"{below} or " if below else ""
        raise ValueError(
            f"Expected a batch that {mesh.size} devices can share evenly, got {rows} "
            f"rows; take {sizes}{below + mesh.size} rows, or {fewer} of the devices."
        )
    divided = NamedSharding(mesh, PartitionSpec(_AXIS))
    whole = NamedSharding(mesh, PartitionSpec())
    places = jax.tree.map(
        lambda x: divided if np.shape(x)[:1] == (rows,) else whole, batch
    )
    return jax.device_put(batch, places)


def local(tree: Any) -> Any:
    """Arrays that are whole on many devices, as one of these devices has them.

    Nothing is copied. What is on one device already, or divided, stays as it is.

    Args:
        tree: a pytree of arrays and random keys, such as a `State`.

    Returns:
        The same tree, for programs of one device.

    Example:
        >>> local(jax.numpy.ones(3)).tolist()
        [1.0, 1.0, 1.0]
    """

    def first(x: Any) -> Any:
        if not isinstance(x, jax.Array) or not x.is_fully_replicated:
            return x
        return x.addressable_data(0) if len(x.sharding.device_set) > 1 else x

    return jax.tree.map(first, tree)
