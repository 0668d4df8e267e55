"""Softmax over class weights a block of classes at a time.

The logits of all classes never exist together: a running maximum and sum of
exponentials are carried over the blocks. The gradient recomputes each block, and gives
that of the class weights block by block, so that beyond it nothing of the size of the
weights is made. Differentiation is JAX's own: forward mode and second derivatives work.

Classes may be spread over the devices of a mesh axis. Each device then goes through its
own classes, and a few numbers for each example are merged: the largest logit, the sum
of exponentials, and the target, which one device alone knows.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from metricjax import _classes, numerics
from metricjax.numerics import HIGHEST, Precision

Axis = str | tuple[str, ...]


class Statistics(NamedTuple):
    """What a softmax needs to know of all logits, each `[batch]`.

    Attributes:
        peak: the largest logit so far, a constant.
        total: sum of `exp(logit - peak)`.
        mean: mean of the logits over all classes.
        rival: the largest logit of another class than the true one, a constant.
    """

    peak: Array
    total: Array
    mean: Array
    rival: Array


def statistics(
    embeddings: Array,
    class_weights: Array,
    labels: Array,
    logits_of: Callable[[Array, Array, Any], Array],
    *,
    block: int,
    classes: Array | int,
    log_weights: Array | None = None,
    per_class: Any = None,
    precision: Precision = HIGHEST,
) -> Statistics:
    """Statistics of the logits of a batch over the classes of this device.

    Args:
        embeddings: `[batch, dim]`, unit vectors. In `jax.shard_map` all arguments vary
            over the same mesh axes, see `metricjax._blocks.vary_alike`.
        class_weights: `[rows, dim]` or `[rows, subcenters, dim]`, normalised inside,
            block by block.
        labels: int `[batch]`, of rows; -1 for none of them.
        logits_of: `(cosine [batch, block], is_target, per_class) -> logits`.
        block: classes in a block.
        classes: what the sum of the logits is divided by for their mean.
        log_weights: `[rows]`, logarithm of how many classes each row stands for.
        per_class: a pytree of `[rows, ...]`, whose blocks `logits_of` gets.
        precision: of the matrix products.
    """
    rows = class_weights.shape[0]
    count = -(-rows // block)
    padding = count * block - rows
    if padding and log_weights is None:
        log_weights = jnp.zeros_like(class_weights, shape=(rows,))
    if log_weights is not None:
        log_weights = jnp.pad(log_weights, (0, padding), constant_values=-jnp.inf)
        log_weights = log_weights.reshape(count, block)

    def cut(x: Array) -> Array:
        widths = [(0, padding)] + [(0, 0)] * (x.ndim - 1)
        return jnp.pad(x, widths).reshape(count, block, *x.shape[1:])

    @jax.checkpoint
    def update(one: tuple[Any, ...], peak: Array) -> tuple[Array, ...]:
        weights, start, log_weight, mine = one
        column = (start + jnp.arange(block, dtype=labels.dtype))[None, :]
        is_target = labels[:, None] == column
        logits = logits_of(
            block_cosine(embeddings, weights, precision), is_target, mine
        )
        summed, others = logits, jnp.where(is_target, -jnp.inf, logits)
        if log_weight is not None:
            log_weight = log_weight[None, :]
            summed = logits * jnp.exp(log_weight)
            others = jnp.where(log_weight == -jnp.inf, -jnp.inf, others)
            logits = logits + jnp.where(is_target, 0.0, log_weight)
        new_peak = jax.lax.stop_gradient(jnp.maximum(peak, jnp.max(logits, axis=1)))
        total = jnp.sum(jnp.exp(logits - new_peak[:, None]), axis=1)
        rival = jax.lax.stop_gradient(jnp.max(others, axis=1))
        return new_peak, total, jnp.sum(summed, axis=1) / classes, rival

    def step(s: Statistics, one: tuple[Any, ...]) -> tuple[Statistics, None]:
        peak, total, mean, rival = update(one, s.peak)
        kept = s.total * jnp.exp(s.peak - peak)
        rival = jnp.maximum(s.rival, rival)
        return Statistics(peak, kept + total, s.mean + mean, rival), None

    # Made of the embeddings, so that in jax.shard_map the carry varies as they do.
    zero = jnp.zeros_like(embeddings[:, 0])
    lowest = zero + jnp.finfo(zero.dtype).min
    first = jnp.arange(count, dtype=labels.dtype) * block
    blocks = (cut(class_weights), first, log_weights, jax.tree.map(cut, per_class))
    return jax.lax.scan(step, Statistics(lowest, zero, zero, lowest), blocks)[0]


def block_cosine(x: Array, weights: Array, precision: Precision) -> Array:
    """Cosine `[batch, block]` to each class, to the nearest of its sub-centers."""
    w = numerics.l2_normalize(weights)
    centers = [w] if w.ndim == 2 else [w[:, k] for k in range(w.shape[1])]
    cosines = [numerics.matmul(x, c.T, precision=precision) for c in centers]
    return functools.reduce(jnp.maximum, cosines)


def default_block(batch: int, classes: int) -> int:
    """Classes in a block: as many as keep a block of logits in fast memory.

    Blocks that leave no rest are preferred, if not smaller by half: otherwise the class
    weights and their gradient are copied once to be padded.
    """
    budget = 2**18 if jax.default_backend() == "cpu" else 2**25
    block = max(128, min(classes, budget // max(batch, 1)))
    fewest = -(-classes // block)
    return -(-classes // _dividing(classes, fewest))


@functools.cache
def _dividing(classes: int, fewest: int) -> int:
    """The first count of blocks that divides the classes, if there is one nearby."""
    counts = range(fewest, 2 * fewest)
    return next((count for count in counts if classes % count == 0), fewest)


# --- classes spread over devices ------------------------------------------------------


def count_classes(rows: int, class_axis: Axis | None) -> int:
    """How many classes all devices have together, `rows` on each."""
    return rows if class_axis is None else rows * jax.lax.axis_size(class_axis)


def rows_of(labels: Array, rows: int, class_axis: Axis | None) -> Array:
    """Labels as rows of this device's classes; -1 if another has it, or none."""
    labels = labels.astype(jnp.int32)
    if class_axis is not None:
        labels = labels - rows * jax.lax.axis_index(class_axis)
    return jnp.where((labels >= 0) & (labels < rows), labels, -1)


def from_owner(values: Array, own: Array, class_axis: Axis | None) -> Array:
    """Values `[batch]` of the device that has the class of each label, on all devices.

    Args:
        values: what this device has; it counts where the label is one of its rows.
        own: the labels as `rows_of` gives them.
        class_axis: the mesh axis of the classes.
    """
    if class_axis is None:
        return values
    return jax.lax.psum(jnp.where(own >= 0, values, 0), class_axis)


def merge(found: Statistics, class_axis: Axis | None) -> Statistics:
    """Statistics over the classes of all devices."""
    if class_axis is None:
        return found
    constants = jax.lax.stop_gradient((found.peak, found.rival))
    peak, rival = jax.lax.pmax(constants, class_axis)
    total, mean = jax.lax.psum(
        (found.total * jnp.exp(found.peak - peak), found.mean), class_axis
    )
    return Statistics(peak, total, mean, rival)


def whole_batch(tree: Any, axis_name: Axis | None, class_axis: Axis | None) -> Any:
    """Leaves `[batch, ...]` of all devices among which the classes are spread too.

    Each example has to meet every class. Over an axis of the classes alone the batch is
    the same on every device already.
    """
    shared = _shared(axis_name, class_axis)
    return jax.lax.all_gather(tree, shared, tiled=True) if shared else tree


def own_part(
    tree: Any, size: int, axis_name: Axis | None, class_axis: Axis | None
) -> Any:
    """The `size` rows of this device among those that `whole_batch` gathered."""
    shared = _shared(axis_name, class_axis)
    if not shared:
        return tree
    first = jax.lax.axis_index(shared) * size
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, size), tree)


def target_cosine(
    x: Array,
    class_weights: Array,
    labels: Array,
    *,
    axis_name: Axis | None = None,
    class_axis: Axis | None = None,
) -> Array:
    """Cosine `[batch]` of unit vectors to their class, wherever it is."""
    size = x.shape[0]
    x, labels = whole_batch((x, labels), axis_name, class_axis)
    own = rows_of(labels, class_weights.shape[0], class_axis)
    cosine = _classes.target_cosine(x, class_weights, own)
    cosine = from_owner(cosine, own, class_axis)
    return own_part(cosine, size, axis_name, class_axis)


def known(
    labels: Array,
    rows: int,
    where: ArrayLike | None,
    log_weights: Array | None,
    *,
    axis_name: Axis | None = None,
    class_axis: Axis | None = None,
) -> Array:
    """Bool `[batch]`: the label is a class, none of padding, and the row is real."""
    found = _classes.known(labels, count_classes(rows, class_axis), where)
    if log_weights is None:
        return found
    own = rows_of(whole_batch(labels, axis_name, class_axis), rows, class_axis)
    real = log_weights.at[own].get(mode="clip") > -jnp.inf
    real = from_owner(real.astype(jnp.int32), own, class_axis)
    return found & (own_part(real, labels.shape[0], axis_name, class_axis) > 0)


def _shared(axis_name: Axis | None, class_axis: Axis | None) -> tuple[str, ...]:
    return tuple(name for name in _names(axis_name) if name in _names(class_axis))


def _names(axis: Axis | None) -> tuple[str, ...]:
    if axis is None:
        return ()
    return (axis,) if isinstance(axis, str) else tuple(axis)
