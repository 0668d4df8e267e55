"""Margin softmax: cross-entropy over the cosines to class weights."""

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
            softmax, examples (or proxies) in the other losses. Static.
        axis_name: inside `jax.shard_map`, the mesh axis over which the batch is
            sharded; the class weights are whole on every device.
    """

    where: ArrayLike | None
    weights: ArrayLike | None
    block_size: int | None
    axis_name: str | tuple[str, ...] | None


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
    **options: Unpack[ClassOptions],
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
        **options: see `ClassOptions`.

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
    x, labels = _classes.check(embeddings, class_weights, labels, options.get("where"))
    w = numerics.promote(class_weights)
    target = margin(_classes.target_cosine(x, w, labels))
    terms = _softmax_terms(
        x, w, labels, target, others, scale, penalty, label_smoothing, **options
    )
    return rows.reduce(terms, reduction, axis_name=options.get("axis_name"))


def _softmax_terms(
    x: Array,
    class_weights: Array,
    labels: Array,
    target: Array,
    others: margins.Others | None,
    scale: ArrayLike,
    penalty: ArrayLike,
    label_smoothing: ArrayLike,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    block_size: int | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> Terms:
    """Terms of each example, weighted."""
    del axis_name
    batch, classes = x.shape[0], class_weights.shape[0]
    block = _class_blocks.default_block(batch, classes)
    block = block if block_size is None else block_size
    _checks.check_positive_int("block_size", block, "leave it out for the default")
    scale = jnp.broadcast_to(jnp.asarray(scale, jnp.result_type(scale, x)), (batch,))
    known = _classes.known(labels, classes, where)
    others = None if others is None else _problem.as_partial(others)
    # Compiled here, so that an eager call does not trace its loop anew each time.
    found = _blocks.compiled(
        _statistics,
        x,
        class_weights,
        labels,
        target,
        others,
        scale,
        min(block, classes),
    )
    hit = (1.0 - label_smoothing) * (scale * target)
    loss = found.peak + jnp.log(found.total) - hit - label_smoothing * found.mean
    count = known.astype(x.dtype)
    if weights is not None:
        _checks.check_shape("weights", weights, (batch,), "one weight for each example")
        count = count * jax.lax.stop_gradient(numerics.promote(weights))
    wrong = (found.rival >= scale * target).astype(x.dtype)
    return Terms(jnp.where(known, loss + penalty, 0.0) * count, count, count * wrong)


def _statistics(
    x: Array,
    class_weights: Array,
    labels: Array,
    target: Array,
    others: Partial | None,
    scale: Array,
    block: int,
) -> _class_blocks.Statistics:
    def logits_of(cosine: Array, is_target: Array) -> Array:
        if others is not None:
            cosine = others(cosine, target[:, None])
        # A comparison of label and column, fused into this select: no one-hot array.
        return scale[:, None] * jnp.where(is_target, target[:, None], cosine)

    return _class_blocks.statistics(x, class_weights, labels, logits_of, block=block)


def normface(
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    labels: ArrayLike,
    *,
    scale: ArrayLike = 20.0,
    label_smoothing: ArrayLike = 0.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[ClassOptions],
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
        **options: see `ClassOptions`.

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
