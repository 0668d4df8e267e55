"""Training on many devices: each has its part of the batch, and the whole state.

    mesh = parallel.make_mesh(8)
    where = parallel.layout(jax.eval_shape(init, key), mesh)
    step = parallel.data_parallel(step, mesh, where)
    state, metrics = step(parallel.start(init, key, where), batch)

The loss is that of the whole batch, whatever the number of devices: negatives are found
in all of it, batch norm has the statistics of all of it, and the gradient needs no
scaling. The compiler puts the communication where it is needed. Class weights, which
may be too many for one device, can be divided among them: see `class_sharded`.

The devices may be those of several processes, see `metricjax.training.processes`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from metricjax.training.state import State
from metricjax.training.step import Step

__all__ = [
    "class_sharded",
    "data_parallel",
    "layout",
    "local",
    "make_mesh",
    "padded_classes",
    "place",
    "spread",
    "start",
]

_AXIS = "data"


def make_mesh(count: int) -> Mesh:
    """A row of devices, among which batches are divided.

    Args:
        count: number of devices; 0 for all that there are. Several processes take all.

    Returns:
        A mesh with the one axis "data".

    Raises:
        ValueError: if there are fewer devices, or `count` is negative, or not all of
            several processes.

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
    if jax.process_count() > 1 and count not in (0, len(devices)):
        raise ValueError(
            f"Expected all {len(devices)} devices of {jax.process_count()} processes, "
            f"got {count}; give 0, or start fewer processes."
        )
    chosen = devices[:count] if count else devices
    axes = {"axis_shapes": (len(chosen),), "axis_names": (_AXIS,)}
    return jax.make_mesh(**axes, axis_types=(AxisType.Auto,), devices=chosen)


def layout(tree: Any, mesh: Mesh, *, divided: Sequence[str] = ()) -> Any:
    """Where each array of a state is to be: on all devices, or divided among them.

    Args:
        tree: a pytree of arrays or their shapes, such as a `State`.
        mesh: from `make_mesh`.
        divided: names of parameters that are divided by rows; so is what the optimiser
            keeps of them.

    Returns:
        The same tree, of shardings.

    Example:
        >>> params = {"encoder": np.ones(3), "head": np.ones((4, 2))}
        >>> where = layout(params, make_mesh(1), divided=["head"])
        >>> [where[name].spec == PartitionSpec("data") for name in where]
        [False, True]
    """
    rows = NamedSharding(mesh, PartitionSpec(_AXIS))
    whole = NamedSharding(mesh, PartitionSpec())

    def where(path: Any, x: Any) -> NamedSharding:
        is_divided = getattr(path[-1], "key", None) in divided if path else False
        return rows if is_divided and np.ndim(x) else whole

    return jax.tree.map_with_path(where, tree)


def start(init: Callable[[jax.Array], Any], key: jax.Array, where: Any) -> Any:
    """A state made where it is to be, so that no device makes all that is divided.

    It is the same on any number of devices.

    Args:
        init: `key -> state`. What it draws of arrays that are divided takes a key of
            the kind "threefry2x32": of other kinds, each device draws all numbers.
        key: a random key, the same in every process.
        where: the state's tree of shardings, from `layout`.

    Returns:
        The state, on the devices.

    Example:
        >>> def init(key):
        ...     return {"head": jax.random.normal(key, (4, 2))}
        >>> key = jax.random.key(0)
        >>> where = layout(jax.eval_shape(init, key), make_mesh(1), divided=["head"])
        >>> start(init, key, where)["head"].sharding == where["head"]
        True
    """
    mesh = jax.tree.leaves(where)[0].mesh
    key = _put(key, NamedSharding(mesh, PartitionSpec()))
    return jax.jit(init, out_shardings=where)(key)


def spread(tree: Any, where: Any) -> Any:
    """Arrays put where they are to be; nothing is done where they are there already.

    Every process has the same whole arrays, or all of them have arrays that are spread.

    Args:
        tree: a pytree of arrays and random keys, such as a `State`.
        where: the same tree of shardings, from `layout`.

    Returns:
        The same tree, on the devices.

    Example:
        >>> mesh = make_mesh(1)
        >>> state = {"w": np.ones(2), "key": jax.random.key(0)}
        >>> state = spread(state, layout(state, mesh))
        >>> state["w"].sharding.mesh == state["key"].sharding.mesh == mesh
        True
    """
    return jax.tree.map(_put, tree, where)


def _put(x: Any, where: NamedSharding) -> jax.Array:
    if isinstance(x, jax.Array):
        if x.sharding == where:
            return x
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            data = _put(jax.random.key_data(x), where)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
        if where.is_fully_addressable:
            return jax.device_put(x, where)
        x = np.asarray(x)
    # Each device gets its part, which alone is read.
    return jax.make_array_from_callback(
        np.shape(x), where, lambda index: np.asarray(x[index])
    )


def data_parallel(step: Step, mesh: Mesh, where: Any = None) -> Step:
    """The same step on many devices: the same loss, up to rounding.

    The state may come from anywhere, such as a checkpoint that was saved on another
    number of devices; afterwards it is where `where` says. See `local` for how to use
    it on one device again.

    Args:
        step: from `step.make_step`.
        mesh: from `make_mesh`.
        where: the layout of the state, from `layout`; by default each device has all
            of it.

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
    out = (whole if where is None else where, whole)
    program = jax.jit(step, out_shardings=out, donate_argnums=0)

    def parallel(state: State, batch: Any) -> tuple[State, dict[str, jax.Array]]:
        there = layout(state, mesh) if where is None else where
        return program(spread(state, there), place(batch, mesh))

    return parallel


def place(batch: Any, mesh: Mesh) -> Any:
    """Divide a batch among devices by its rows.

    What has as many rows as the first array of the batch is divided; the rest, such as
    a table of classes, goes to each device. Each process has the same batch, and reads
    those rows of it that its devices take: an array-like that makes rows when they are
    asked for, by `x[slice]`, makes no others.

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

    def put(x: Any) -> jax.Array:
        return _put(x, divided if np.shape(x)[:1] == (rows,) else whole)

    return jax.tree.map(put, batch)


def padded_classes(classes: int, mesh: Mesh) -> int:
    """The number of classes, rounded up to a multiple of that of devices.

    Args:
        classes: number of classes.
        mesh: from `make_mesh`.

    Returns:
        The number of rows of class weights that `class_sharded` takes.

    Example:
        >>> padded_classes(10, make_mesh(1))
        10
    """
    return -(-classes // mesh.size) * mesh.size


def class_sharded(
    loss: Callable[..., Any], mesh: Mesh, *, classes: int
) -> Callable[..., Any]:
    """A loss whose class weights are divided among devices, each with some classes.

    The embeddings are gathered, a block of logits at a time is made of each device's
    own classes, and a few numbers of each example are merged: neither class weights nor
    logits are ever sent. See `metricjax.losses.SoftmaxOptions`.

    Args:
        loss: `(embeddings, class_weights, labels, *more, **options) -> Terms`, a margin
            softmax with `reduction=None` that takes `SoftmaxOptions`.
        mesh: from `make_mesh`.
        classes: number of classes; further rows of the class weights are padding.

    Returns:
        `(embeddings, class_weights, labels, *more) -> Terms`, of embeddings and labels
        of the whole batch, and class weights `[padded_classes(classes, mesh), dim]`.

    Example:
        >>> from metricjax import losses
        >>> def loss(x, w, y, **options):
        ...     return losses.cosface(x, w, y, scale=2.0, reduction=None, **options)
        >>> divided = class_sharded(loss, make_mesh(1), classes=2)
        >>> x, w, y = jnp.eye(2), jnp.eye(2), jnp.arange(2)
        >>> bool(jnp.allclose(divided(x, w, y).total, loss(x, w, y).total))
        True
    """
    rows = padded_classes(classes, mesh)
    # Minus infinity: no class.
    log_weights = np.where(np.arange(rows) < classes, 0.0, -np.inf).astype(np.float32)
    parts, whole = PartitionSpec(_AXIS), PartitionSpec()

    def own(x: Any, w: Any, y: Any, log_weights: Any, more: Any) -> Any:
        padding = {"class_log_weights": log_weights} if rows > classes else {}
        return loss(x, w, y, *more, axis_name=_AXIS, class_axis=_AXIS, **padding)

    program = jax.shard_map(
        own,
        mesh=mesh,
        in_specs=(parts, parts, parts, parts, whole),
        out_specs=parts,
    )

    def divided(x: Any, w: Any, y: Any, *more: Any) -> Any:
        return program(x, w, y, log_weights, jax.tree.map(jnp.asarray, more))

    return divided


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
