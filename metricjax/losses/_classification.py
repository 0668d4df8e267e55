"""Margin softmax: cross-entropy over the cosines to class weights."""

from collections.abc import Callable
from typing import Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import (
    _blocks,
    _checks,
    _class_blocks,
    _classes,
    _problem,
    margins,
    numerics,
    reductions,
    rows,
)
from metricjax.reductions import Reduction, Terms


class ClassOptions(TypedDict, total=False):
    """What every loss against class weights takes, by keyword.

    Attributes:
        where: bool `[batch]`; False marks padding.
        weights: float `[batch]`; importance of each example, a constant.
        block_size: how many rows of logits are made at a time: classes in the margin
            softmax, examples (or proxies) in the other losses. Static. In the margin
            softmax class weights are copied unless it divides their number.
        axis_name: inside `jax.shard_map`, the mesh axis over which the batch is
            sharded; the class weights are whole on every device.
    """

    where: ArrayLike | None
    weights: ArrayLike | None
    block_size: int | None
    axis_name: str | tuple[str, ...] | None


class SoftmaxOptions(ClassOptions, total=False):
    """What every margin softmax takes besides, for more classes than one device has.

    With `class_axis` the embeddings and labels are those of the same examples on every
    device of that axis; if `axis_name` holds it too, the batch is sharded over it and
    gathered inside. Neither logits nor class weights are ever sent: what is merged over
    the devices are numbers of each example, and the gradient of the embeddings.

    Attributes:
        class_axis: inside `jax.shard_map`, the mesh axis over which the rows of
            `class_weights` are sharded. Labels count the classes of all devices.
        class_log_weights: float `[classes]`, sharded as `class_weights`, constants: the
            logarithm of how many classes each row stands for when it is not the true
            class. Minus infinity marks padding, which makes any number of classes a
            multiple of the devices. `heads.sample_classes` makes it for a sample.
    """

    class_axis: str | tuple[str, ...] | None
    class_log_weights: ArrayLike | None


def margin_softmax(
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    labels: ArrayLike,
    *,
    margin: margins.Margin,
    others: margins.Others | None = None,
    scale: ArrayLike = 64.0,
    label_smoothing: ArrayLike = 0.0,
    penalty: ArrayLike = 0.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[SoftmaxOptions],
) -> Any:
    """Softmax cross-entropy over scaled cosines, with a margin on the true class.

    `-log(exp(s t(c_y)) / (exp(s t(c_y)) + sum_{j != y} exp(s o(c_j, t(c_y)))))`, with
    the margin `t` and, where given, `o`. The margin is applied to `[batch]` target
    cosines; logits exist for a block of classes at a time.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        class_weights: `[classes, dim]`; rows normalised inside. With sub-centers,
            `[classes, subcenters, dim]`: the cosine of a class is then that of the
            nearest of its sub-centers.
        labels: int `[batch]` in [0, classes). Another value is no class: its example
            costs nothing and is not counted.
        margin: `t`, a function of `metricjax.margins` or your own, of cosines
            `[batch]`; configured with `jax.tree_util.Partial`, its parameters may be
            learned, and may be `[batch]`.
        others: `o`, `(cosine [b, classes], target with margin [b, 1]) -> [b, classes]`,
            for methods that also change the other classes (`margins.*_others`); by
            default they are unchanged.
        scale: `s`, the inverse temperature; a number or `[batch]`. The length of the
            embedding is one: `numerics.norm(embeddings)`.
        label_smoothing: share of the target spread evenly over all classes.
        penalty: a number or `[batch]`, added to what each example costs.
        reduction: of `Terms`, whose terms are examples; active are those for which
            another class has at least the logit of the true one.
        **options: see `SoftmaxOptions`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, w, y = jnp.array([[1.0, 0.5]]), jnp.eye(2), jnp.array([0])
        >>> margin = Partial(margins.cosface, margin=0.2)
        >>> round(float(margin_softmax(x, w, y, margin=margin, scale=10.0)), 4)
        0.081

    References:
        Deng et al., "ArcFace", CVPR 2019, arXiv:1801.07698, eq. 4; sub-centers: Deng et
        al., "Sub-center ArcFace: Boosting Face Recognition by Large-Scale Noisy Web
        Faces", ECCV 2020.
    """
    return softmax_loss(
        embeddings,
        class_weights,
        labels,
        margin=margin,
        others=others,
        scale=scale,
        label_smoothing=label_smoothing,
        penalty=penalty,
        reduction=reduction,
        **options,
    )


def softmax_loss(
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    labels: ArrayLike,
    *,
    margin: margins.Margin,
    others: Callable[..., Array] | None,
    lengths: Array | None = None,
    scale: ArrayLike,
    label_smoothing: ArrayLike,
    penalty: ArrayLike = 0.0,
    reduction: Reduction | None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    block_size: int | None = None,
    axis_name: _class_blocks.Axis | None = None,
    class_axis: _class_blocks.Axis | None = None,
    class_log_weights: ArrayLike | None = None,
) -> Any:
    """`margin_softmax`; with `lengths [classes]`, `others` gets them as `lengths`."""
    x, labels = _classes.check(embeddings, class_weights, labels, where)
    w, size, axes = numerics.promote(class_weights), x.shape[0], (axis_name, class_axis)
    log_weights = class_log_weights_of(class_log_weights, w)
    everyone, all_labels = _class_blocks.whole_batch((x, labels), *axes)
    own = _class_blocks.rows_of(all_labels, w.shape[0], class_axis)

    def here(values: Array) -> Array:
        """What the device with the class of each label knows, for our examples."""
        values = _class_blocks.from_owner(values, own, class_axis)
        return _class_blocks.own_part(values, size, *axes)

    target = margin(here(_classes.target_cosine(everyone, w, own)))
    scale = jnp.broadcast_to(jnp.asarray(scale, jnp.result_type(scale, x)), (size,))
    found = _all_statistics(
        everyone,
        w,
        own,
        _class_blocks.whole_batch((target, scale), *axes),
        None if others is None else _problem.as_partial(others),
        (log_weights, lengths),
        block_size,
        class_axis,
    )
    found = _class_blocks.own_part(found, size, *axes)
    known = _class_blocks.known(
        labels,
        w.shape[0],
        where,
        log_weights,
        axis_name=axis_name,
        class_axis=class_axis,
    )
    terms = _terms(found, scale * target, known, label_smoothing, penalty)
    return rows.reduce(_weighted(terms, weights), reduction, axis_name=axis_name)


def class_log_weights_of(log_weights: ArrayLike | None, w: Array) -> Array | None:
    """Checked, as constants."""
    if log_weights is None:
        return None
    shape = (w.shape[0],)
    _checks.check_shape("class_log_weights", log_weights, shape, "one for each class")
    return jax.lax.stop_gradient(numerics.promote(log_weights))


def _all_statistics(
    x: Array,
    class_weights: Array,
    labels: Array,
    target_and_scale: tuple[Array, Array],
    others: Partial | None,
    per_class: tuple[Array | None, Array | None],
    block_size: int | None,
    class_axis: _class_blocks.Axis | None,
) -> _class_blocks.Statistics:
    """Statistics over the classes of all devices."""
    batch, classes = x.shape[0], class_weights.shape[0]
    block = _class_blocks.default_block(batch, classes)
    block = block if block_size is None else block_size
    _checks.check_positive_int("block_size", block, "leave it out for the default")
    total = _class_blocks.count_classes(classes, class_axis)
    if per_class[0] is not None:
        total = jnp.sum(jnp.exp(per_class[0]))
        total = total if class_axis is None else jax.lax.psum(total, class_axis)
    # Compiled here, so that an eager call does not trace its loop anew each time.
    found = _blocks.compiled(
        _statistics,
        x,
        class_weights,
        labels,
        target_and_scale,
        others,
        per_class,
        total,
        min(block, classes),
    )
    return _class_blocks.merge(found, class_axis)


def _statistics(*arguments: Any) -> _class_blocks.Statistics:
    leaves, treedef = jax.tree.flatten(arguments)
    # Else a gradient would be summed over the devices in each step of the loop.
    arguments = jax.tree.unflatten(treedef, _blocks.vary_alike(leaves))
    x, class_weights, labels, (target, scale), others, per_class, total, block = (
        arguments
    )
    log_weights, lengths = per_class

    def logits_of(cosine: Array, is_target: Array, lengths: Array | None) -> Array:
        if others is not None:
            more = {} if lengths is None else {"lengths": lengths}
            cosine = others(cosine, target[:, None], **more)
        # A comparison of label and column, fused into this select: no one-hot array.
        return scale[:, None] * jnp.where(is_target, target[:, None], cosine)

    return _class_blocks.statistics(
        x,
        class_weights,
        labels,
        logits_of,
        block=block,
        classes=total,
        log_weights=log_weights,
        per_class=lengths,
    )


def _terms(
    found: _class_blocks.Statistics,
    hit: Array,
    known: Array,
    label_smoothing: ArrayLike,
    penalty: ArrayLike,
) -> Terms:
    """Terms of each example, whose true class has the logit `hit`."""
    loss = found.peak + jnp.log(found.total)
    loss = loss - (1.0 - label_smoothing) * hit - label_smoothing * found.mean
    count = known.astype(hit.dtype)
    wrong = (found.rival >= hit).astype(hit.dtype)
    return Terms(jnp.where(known, loss + penalty, 0.0), count, count * wrong)


def _weighted(terms: Terms, weights: ArrayLike | None) -> Terms:
    if weights is None:
        return terms
    shape = terms.total.shape
    _checks.check_shape("weights", weights, shape, "one weight for each example")
    weights = jax.lax.stop_gradient(numerics.promote(weights))
    return Terms(*(x * weights for x in terms))


def normface(
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    labels: ArrayLike,
    *,
    scale: ArrayLike = 20.0,
    label_smoothing: ArrayLike = 0.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[SoftmaxOptions],
) -> Any:
    """NormFace (normalised softmax): softmax over scaled cosines, without margin.

    With C classes that are equally far apart the loss can't fall below `log(1 + (C - 1)
    exp(-s C / (C - 1)))`: too small a scale can't be trained.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        class_weights: `[classes, dim]`; rows normalised inside.
        labels: int `[batch]`; see `margin_softmax`.
        scale: `s`, fixed or a parameter of yours; 20 is the temperature 0.05 of Zhai
            and Wu.
        label_smoothing: see `margin_softmax`.
        reduction: see `margin_softmax`.
        **options: see `SoftmaxOptions`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, w, y = jnp.array([[1.0, 0.5]]), jnp.eye(2), jnp.array([0])
        >>> round(float(normface(x, w, y, scale=10.0)), 4)
        0.0114

    References:
        Wang et al., "NormFace: L2 Hypersphere Embedding for Face Verification", ACM
        Multimedia 2017, arXiv:1704.06369, eq. 4 and 6; Zhai and Wu, "Classification is
        a Strong Baseline for Deep Metric Learning", BMVC 2019, arXiv:1811.12649.
    """
    return margin_softmax(
        embeddings,
        class_weights,
        labels,
        margin=numerics.promote,
        scale=scale,
        label_smoothing=label_smoothing,
        reduction=reduction,
        **options,
    )
