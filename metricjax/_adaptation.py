"""State of the adaptive class losses: pure updates, seen through `metricjax.memory`."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from metricjax import (
    _blocks,
    _checks,
    _class_blocks,
    _classes,
    _problem,
    numerics,
)

Axis = str | tuple[str, ...]


class NormStatistics(NamedTuple):
    """Running mean and standard deviation of the lengths of embeddings, for AdaFace.

    Attributes:
        mean: a scalar.
        std: a scalar.
    """

    mean: Array
    std: Array


def init_norm_statistics(
    *, mean: ArrayLike = 20.0, std: ArrayLike = 100.0
) -> NormStatistics:
    """Statistics before the first batch, those of the AdaFace authors' code.

    The large deviation makes AdaFace begin near CosFace.

    Args:
        mean: of the lengths.
        std: of the lengths.

    Returns:
        `NormStatistics` of two scalars, in at least float32.

    Example:
        >>> float(init_norm_statistics().mean)
        20.0

    References:
        Kim et al., "AdaFace", CVPR 2022, arXiv:2204.00964, the authors' code.
    """
    return NormStatistics(numerics.promote(mean), numerics.promote(std))


def update_norm_statistics(
    statistics: NormStatistics,
    embeddings: ArrayLike,
    *,
    rate: ArrayLike = 0.01,
    where: ArrayLike | None = None,
    axis_name: Axis | None = None,
) -> NormStatistics:
    """Move the statistics towards those of a batch, for `losses.adaface`.

    `mu <- r mean(|x|) + (1 - r) mu`, and alike for the standard deviation of the sample
    (divided by n - 1).

    Args:
        statistics: the old ones.
        embeddings: `[batch, dim]`, as given to the loss; no gradient flows.
        rate: `r`, the share of the batch; 0.01 as in the authors' training (the default
            of their class is 1: no average over steps).
        where: bool `[batch]`; False marks padding.
        axis_name: inside `jax.shard_map`, the mesh axis over which the batch is
            sharded; the statistics are then those of the whole batch, on every device.

    Returns:
        The new statistics. With no row the mean stays, with one the deviation.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> old = init_norm_statistics()
        >>> new = update_norm_statistics(old, jnp.array([[3.0], [5.0]]), rate=0.5)
        >>> round(float(new.mean), 4), round(float(new.std), 4)
        (12.0, 50.7071)

    References:
        Kim et al., "AdaFace", CVPR 2022, arXiv:2204.00964.
    """
    _checks.check_embeddings("embeddings", embeddings)
    norms = numerics.norm(numerics.mask_rows(embeddings, where))
    norms = jax.lax.stop_gradient(norms)
    used = jnp.ones_like(norms) if where is None else jnp.asarray(where, norms.dtype)
    count = _sum(used, axis_name)
    mean = numerics.divide(_sum(used * norms, axis_name), count)
    spread = _sum(used * jnp.square(norms - mean), axis_name)
    std = jnp.sqrt(spread / jnp.maximum(count - 1.0, 1.0))
    return NormStatistics(
        _move(statistics.mean, mean, rate, count > 0),
        _move(statistics.std, std, rate, count > 1),
    )


def update_curriculum(
    curriculum: ArrayLike,
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    labels: ArrayLike,
    *,
    rate: ArrayLike = 0.01,
    where: ArrayLike | None = None,
    axis_name: Axis | None = None,
    class_axis: Axis | None = None,
) -> Array:
    """Move CurricularFace's `t` towards the mean cosine of examples to their class.

    `t <- r mean(cos(theta_y)) + (1 - r) t`, from 0 at the start.

    Args:
        curriculum: `t`, a scalar.
        embeddings: `[batch, dim]`; normalised inside. No gradient flows.
        class_weights: as given to `losses.curricularface`.
        labels: int `[batch]`; a value outside of [0, classes) counts nothing.
        rate: `r`.
        where: bool `[batch]`; False marks padding.
        axis_name: see `update_norm_statistics`.
        class_axis: as given to the loss; see `losses.SoftmaxOptions`.

    Returns:
        The new `t`, a scalar; the old one if no example has a class.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, w, y = jnp.array([[2.0, 0.0]]), jnp.eye(2), jnp.array([0])
        >>> round(float(update_curriculum(0.5, x, w, y, rate=0.1)), 4)
        0.55

    References:
        Huang et al., "CurricularFace", CVPR 2020, arXiv:2004.00288.
    """
    x, labels = _classes.check(embeddings, class_weights, labels, where)
    axes = {"axis_name": axis_name, "class_axis": class_axis}
    w = numerics.promote(class_weights)
    cosine = jax.lax.stop_gradient(_class_blocks.target_cosine(x, w, labels, **axes))
    used = _class_blocks.known(labels, w.shape[0], where, None, **axes)
    used = used.astype(cosine.dtype)
    count = _sum(used, axis_name)
    mean = numerics.divide(_sum(used * cosine, axis_name), count)
    return _move(curriculum, mean, rate, count > 0)


def init_adacos_scale(classes: int) -> Array:
    """The fixed scale of AdaCos, where the dynamic one begins: `sqrt(2) log(C - 1)`.

    Args:
        classes: `C`, at least 3.

    Returns:
        A scalar, float32.

    Raises:
        ValueError: if there are fewer than 3 classes, for which the scale is zero.

    Example:
        >>> round(float(init_adacos_scale(1000)), 4)
        9.7676

    References:
        Zhang et al., "AdaCos", CVPR 2019, arXiv:1905.00292.
    """
    return jnp.asarray(fixed_adacos_scale(classes), jnp.float32)


def fixed_adacos_scale(classes: int) -> float:
    """`sqrt(2) log(C - 1)`; raises ValueError for less than 3 classes."""
    if classes < 3:
        raise ValueError(
            f"Expected at least 3 classes, got {classes}; the scale of AdaCos would be "
            "zero: use losses.normface with a scale of your own."
        )
    return math.sqrt(2.0) * math.log(classes - 1)


def update_adacos_scale(
    scale: ArrayLike,
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
    block_size: int | None = None,
    axis_name: Axis | None = None,
    class_axis: Axis | None = None,
) -> Array:
    """The next dynamic scale of AdaCos, from the scale before and a batch.

    `s <- log(B) / cos(min(pi / 4, median(theta_y)))`, where `B` is the mean over the
    batch of `sum_{j != y} exp(s cos(theta_j))`. The cosines exist a block at a time.

    Args:
        scale: `s`, a scalar; see `init_adacos_scale`.
        embeddings: `[batch, dim]`; normalised inside. No gradient flows.
        class_weights: as given to `losses.adacos`.
        labels: int `[batch]`; a value outside of [0, classes) counts nothing.
        where: bool `[batch]`; False marks padding.
        block_size: examples in a block. Static.
        axis_name: see `update_norm_statistics`.
        class_axis: as given to the loss; see `losses.SoftmaxOptions`.

    Returns:
        The new scale, a scalar; the old one if no example has a class.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, w, y = jnp.array([[1.0, 0.0, 0.0]]), jnp.eye(3), jnp.array([0])
        >>> round(float(update_adacos_scale(5.0, x, w, y)), 4)
        0.6931

    References:
        Zhang et al., "AdaCos", CVPR 2019, arXiv:1905.00292.
    """
    x, w, labels = _classes.unit_vectors(embeddings, class_weights, labels, where)
    x, w, scale = jax.lax.stop_gradient((x, w, jnp.asarray(scale, x.dtype)))
    axes = {"axis_name": axis_name, "class_axis": class_axis}
    gathered = (
        _all_log_others(x, w, labels, scale, block_size, **axes),
        _class_blocks.target_cosine(x, w, labels, **axes),
        _class_blocks.known(labels, w.shape[0], where, None, **axes),
    )
    if axis_name is not None:
        gathered = jax.lax.all_gather(gathered, axis_name, tiled=True)
    others, cosine, used = gathered
    count = jnp.maximum(jnp.sum(used), 1)
    some = jnp.any(used)
    log_mean = jnp.where(some, numerics.logsumexp(others, used), 0.0) - jnp.log(count)
    angle = jnp.arctan2(numerics.sine(cosine), cosine)
    ordered = jnp.sort(jnp.where(used, angle, jnp.inf))
    median = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2.0
    new = log_mean / jnp.cos(jnp.minimum(median, jnp.pi / 4.0))
    new = jnp.where(some, new, scale)
    # The same on every device already; this tells JAX so.
    return new if axis_name is None else jax.lax.pmax(new, axis_name)


def _all_log_others(
    x: Array,
    w: Array,
    labels: Array,
    scale: Array,
    block_size: int | None,
    *,
    axis_name: Axis | None,
    class_axis: Axis | None,
) -> Array:
    """`log sum_{j != y} exp(s cos(theta_j))` over the classes of all devices."""
    size = x.shape[0]
    x, labels = _class_blocks.whole_batch((x, labels), axis_name, class_axis)
    own = _class_blocks.rows_of(labels, w.shape[0], class_axis)
    block = block_size or _problem.default_block(x.shape[0], w.shape[0])
    _checks.check_positive_int("block_size", block, "leave it out for the default")
    others = _blocks.stack(_log_others, (w, scale), (x, own), min(block, x.shape[0]))
    if class_axis is not None:
        peak = jax.lax.pmax(others, class_axis)
        # There are no others where there is one class.
        peak = jnp.where(jnp.isfinite(peak), peak, 0.0)
        others = peak + jnp.log(jax.lax.psum(jnp.exp(others - peak), class_axis))
    return _class_blocks.own_part(others, size, axis_name, class_axis)


def _log_others(shared: tuple[Array, Array], rows: tuple[Array, Array]) -> Array:
    """`log sum_{j != y} exp(s cos(theta_j))` of a block of examples."""
    (w, scale), (x, labels) = shared, rows
    first, measure = _classes.candidates(w)
    classes = jnp.arange(w.shape[0], dtype=labels.dtype)
    return numerics.logsumexp(scale * measure(x, first), labels[:, None] != classes)


def _sum(x: Array, axis_name: Axis | None) -> Array:
    total = jnp.sum(x)
    return total if axis_name is None else jax.lax.psum(total, axis_name)


def _move(old: ArrayLike, new: Array, rate: ArrayLike, defined: Array) -> Array:
    old = numerics.promote(old)
    return jnp.where(defined, rate * new + (1.0 - rate) * old, old)
