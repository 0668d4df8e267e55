"""Some of the classes for one step; seen through `metricjax.heads`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from metricjax import _checks, _class_blocks, _collect

Axis = str | tuple[str, ...]


class ClassSample(NamedTuple):
    """Classes chosen for one step, with which a loss is computed in place of all.

    Attributes:
        index: int32 `[count]`, the chosen rows of the class weights, in their order.
        labels: int32 `[batch]`, the places of the examples' classes among the chosen;
            -1 for a label that is no class.
        log_weights: `[count]`, for a class of the batch 0, for another the logarithm of
            how many such classes each chosen one stands for, for padding minus
            infinity.
    """

    index: Array
    labels: Array
    log_weights: Array


def sample_classes(
    key: Array,
    labels: ArrayLike,
    *,
    classes: int,
    count: int,
    where: ArrayLike | None = None,
    class_where: ArrayLike | None = None,
    axis_name: Axis | None = None,
    class_axis: Axis | None = None,
) -> ClassSample:
    """Partial FC: the classes of a batch, and others drawn at random, `count` in all.

    A step then costs as if there were `count` classes:

        sample = sample_classes(key, labels, classes=len(w), count=count)
        loss = losses.arcface(x, w[sample.index], sample.labels)

    That is the published method. Its loss is too small, as if the other classes did not
    exist; with `class_log_weights=sample.log_weights` the sum of exponentials over the
    other classes is right on average (its logarithm is still a little too small, the
    less the larger the sample). With `count == classes` both are the full loss. The
    weights of the classes left out get a gradient of zero, but an optimiser with
    momentum or decay moves them.

    Args:
        key: a typed random key, another one at each step.
        labels: int `[batch]`.
        classes: rows of the class weights; with `class_axis`, of this device. Static.
        count: of classes to choose, on each device if there is a `class_axis`. At least
            the size of the whole batch, or all classes, so that those of the batch
            always fit. Static.
        where: bool `[batch]`; False marks padding, whose labels are not classes of the
            batch.
        class_where: bool `[classes]`; False marks rows that are padding, which are
            chosen only when there is nothing else.
        axis_name: inside `jax.shard_map`, the mesh axis over which the batch is
            sharded.
        class_axis: inside `jax.shard_map`, the mesh axis over which the classes are
            sharded; each device chooses among its own. Give it to the loss as well.

    Returns:
        `ClassSample`; its labels are for the loss on the chosen rows of all devices.

    Raises:
        ValueError: if `count` is larger than `classes`, or too small for the batch; or
            if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> labels = jnp.array([7, 2, 7])
        >>> sample = sample_classes(jax.random.key(0), labels, classes=100, count=10)
        >>> sample.index[sample.labels].tolist()
        [7, 2, 7]

    References:
        An et al., "Partial FC: Training 10 Million Identities on a Single Machine",
        ICCV Workshops 2021, arXiv:2010.05222; An et al., "Killing Two Birds with One
        Stone: Efficient and Robust Training of Face Recognition CNNs by Partial FC",
        CVPR 2022, arXiv:2203.15565. The correction is the sampled softmax of Jean et
        al., "On Using Very Large Target Vocabulary for Neural Machine Translation", ACL
        2015, arXiv:1412.2007, with a uniform proposal.
    """
    size = jnp.shape(labels)[0]
    _checks.check_labels("labels", labels, size)
    batch = size if axis_name is None else size * jax.lax.axis_size(axis_name)
    _check_count(classes, count, batch)
    labels = jnp.asarray(labels)
    if where is not None:
        _checks.check_mask("where", where, (size,))
        labels = jnp.where(jnp.asarray(where), labels, -1)
    own = _class_blocks.rows_of(_collect.whole(labels, axis_name), classes, class_axis)
    real = jnp.ones(classes, bool)
    if class_where is not None:
        _checks.check_mask("class_where", class_where, (classes,))
        real = jnp.asarray(class_where)
        own = jnp.where(real[own], own, -1)
    positive = jnp.zeros(classes, bool)
    positive = positive.at[jnp.where(own < 0, classes, own)].set(True, mode="drop")
    part = 0 if class_axis is None else jax.lax.axis_index(class_axis)
    index = _choose(jax.random.fold_in(key, part), positive, real, count)
    place = (
        jnp.zeros(classes, jnp.int32)
        .at[index]
        .set(part * count + jnp.arange(count, dtype=jnp.int32))
    )
    # One more than the place, so that what no device has stays -1.
    places = jnp.where(own < 0, 0, place[own] + 1)
    places = _class_blocks.from_owner(places, own, class_axis) - 1
    if axis_name is not None:
        first = jax.lax.axis_index(axis_name) * size
        places = jax.lax.dynamic_slice_in_dim(places, first, size)
    return ClassSample(index, places, _log_weights(index, positive, real))


def _check_count(classes: int, count: int, batch: int) -> None:
    _checks.check_positive_int("classes", classes, "pass the rows of the class weights")
    _checks.check_positive_int("count", count, "pass how many classes to choose")
    if not min(batch, classes) <= count <= classes:
        raise ValueError(
            f"Expected `count` between {min(batch, classes)} and {classes}, got "
            f"{count}; every class of the batch has to fit, and none is chosen twice."
        )


def _choose(key: Array, positive: Array, real: Array, count: int) -> Array:
    """Rows of the batch first, then random ones, then padding; in their order."""
    draws = jax.random.uniform(key, positive.shape)
    rank = jnp.where(positive, 2.0, jnp.where(real, draws, -1.0))
    return jnp.sort(jax.lax.top_k(rank, count)[1])


def _log_weights(index: Array, positive: Array, real: Array) -> Array:
    other = real & ~positive
    chosen = other[index]
    share = jnp.sum(other) / jnp.maximum(jnp.sum(chosen), 1)
    log_weights = jnp.where(chosen, jnp.log(jnp.maximum(share, 1.0)), 0.0)
    return jnp.where(real[index], log_weights, -jnp.inf)
