"""Margin softmax: cross-entropy over the cosines to class weights."""

from collections.abc import Callable
from typing import Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import _checks, margins, numerics, reductions, rows, similarities
from metricjax.reductions import Reduction, Terms


class ClassOptions(TypedDict, total=False):
    """What every loss against class weights takes, by keyword.

    Attributes:
        where: bool `[batch]`; False marks padding.
        weights: float `[batch]`; importance of each example, a constant.
        block_size: examples in a block of logits. Static.
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
    others: Callable[[Array, Array], Array] | None = None,
    scale: ArrayLike = 64.0,
    label_smoothing: ArrayLike = 0.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[ClassOptions],
) -> Array | Any:
    """Softmax cross-entropy over scaled cosines, with a margin on the true class.

    `-log(exp(s t(c_y)) / (exp(s t(c_y)) + sum_{j != y} exp(s o(c_j, c_y))))`, with the
    margin `t` and, where given, `o`. The margin is applied to `[batch]` target cosines,
    the logits exist a block at a time.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        class_weights: `[classes, dim]`; rows normalised inside.
        labels: int `[batch]` in [0, classes). Another value is no class: its example
            costs nothing and is not counted.
        margin: `t`, a function of `metricjax.margins` or your own, of cosines
            `[batch]`; configured with `jax.tree_util.Partial`, its parameters may be
            learned, and may be `[batch]`.
        others: `o`, `(cosine [b, classes], target cosine [b, 1]) -> [b, classes]`, for
            methods that also change the other classes; by default they are unchanged.
        scale: `s`; the inverse temperature.
        label_smoothing: share of the target spread evenly over all classes.
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
        Deng et al., "ArcFace", CVPR 2019, arXiv:1801.07698, eq. 4.
    """
    _checks.check_embeddings("embeddings", embeddings)
    _checks.check_embeddings("class_weights", class_weights)
    _checks.check_same_dim("embeddings", embeddings, "class_weights", class_weights)
    _checks.check_labels("labels", labels, jnp.shape(embeddings)[0])
    labels = jnp.asarray(labels)
    x = numerics.l2_normalize(numerics.mask_rows(embeddings, options.get("where")))
    w = numerics.l2_normalize(class_weights)
    cosine_y = jnp.sum(x * w.at[labels].get(mode="clip"), axis=1)
    row = Partial(
        _softmax_row, scale=scale, others=others, label_smoothing=label_smoothing
    )
    return rows.apply(
        row,
        x,
        labels,
        measure=similarities.dot,
        reduction=reduction,
        per_anchor=(cosine_y, margin(cosine_y)),
        ref_embeddings=w,
        ref_labels=jnp.arange(w.shape[0], dtype=labels.dtype),
        **options,
    )


def _softmax_row(
    cosine: Array,
    positive: Array,
    negative: Array,
    targets: tuple[Array, Array],
    *,
    scale: ArrayLike,
    others: Callable[[Array, Array], Array] | None,
    label_smoothing: ArrayLike,
) -> Terms:
    cosine_y, target = targets
    known = jnp.any(positive, axis=1)
    if others is not None:
        cosine = others(cosine, cosine_y[:, None])
    # `positive` is a comparison of the label with the column, fused into this select:
    # no one-hot array is made.
    logits = scale * jnp.where(positive, target[:, None], cosine)
    normaliser = jax.nn.logsumexp(logits, axis=1)
    hit = (1.0 - label_smoothing) * (scale * target)
    spread = label_smoothing * jnp.mean(logits, axis=1)
    wrong = jnp.any(negative & (logits >= (scale * target)[:, None]), axis=1)
    return Terms(
        jnp.where(known, normaliser - hit - spread, 0.0),
        known.astype(logits.dtype),
        (known & wrong).astype(logits.dtype),
    )


def arcface(
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 0.5,
    scale: ArrayLike = 64.0,
    fallback: margins.Fallback = margins.safe,
    label_smoothing: ArrayLike = 0.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[ClassOptions],
) -> Array | Any:
    """ArcFace: softmax cross-entropy with an additive angular margin.

    The target logit is `s cos(theta_y + m)`, the others `s cos(theta_j)`.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        class_weights: `[classes, dim]`; rows normalised inside.
        labels: int `[batch]`; see `margin_softmax`.
        margin: `m` in radians, in [0, pi); a number or `[batch]`. With few classes or
            dimensions a smaller one is feasible: ten classes in two dimensions are 36
            degrees apart, which allows 0.628 at most.
        scale: `s`.
        fallback: beyond `theta + m = pi`; `margins.safe` (the authors' code),
            `margins.easy` or `margins.continuous`.
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
        >>> round(float(arcface(x, w, y, scale=10.0)), 4)
        0.2557

    References:
        Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition",
        CVPR 2019, arXiv:1801.07698, eq. 3.
    """
    return margin_softmax(
        embeddings,
        class_weights,
        labels,
        margin=Partial(margins.arcface, margin=margin, fallback=fallback),
        scale=scale,
        label_smoothing=label_smoothing,
        reduction=reduction,
        **options,
    )


def cosface(
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 0.35,
    scale: ArrayLike = 64.0,
    label_smoothing: ArrayLike = 0.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[ClassOptions],
) -> Array | Any:
    """CosFace (AM-Softmax): softmax cross-entropy with an additive cosine margin.

    The target logit is `s (cos(theta_y) - m)`, the others `s cos(theta_j)`.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        class_weights: `[classes, dim]`; rows normalised inside.
        labels: int `[batch]`; see `margin_softmax`.
        margin: `m`, in units of the cosine; a number or `[batch]`.
        scale: `s`; 64 in CosFace, 30 in AM-Softmax.
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
        >>> round(float(cosface(x, w, y, scale=10.0)), 4)
        0.3208

    References:
        Wang et al., "CosFace: Large Margin Cosine Loss for Deep Face Recognition", CVPR
        2018, arXiv:1801.09414, eq. 4; Wang et al., "Additive Margin Softmax", 2018,
        arXiv:1801.05599.
    """
    return margin_softmax(
        embeddings,
        class_weights,
        labels,
        margin=Partial(margins.cosface, margin=margin),
        scale=scale,
        label_smoothing=label_smoothing,
        reduction=reduction,
        **options,
    )


def sphereface(
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 1.35,
    scale: ArrayLike = 30.0,
    monotone: bool = True,
    label_smoothing: ArrayLike = 0.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[ClassOptions],
) -> Array | Any:
    """SphereFace with normalised embeddings: a multiplicative angular margin.

    The target logit is `s psi(theta_y)`, where psi is `cos(m theta)` continued
    downwards; the others `s cos(theta_j)`. The paper's logits carry the length of the
    embedding instead of `s`, its m is 4, and it anneals; 1.35 with a scale is the form
    in which ArcFace compares it.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        class_weights: `[classes, dim]`; rows normalised inside.
        labels: int `[batch]`; see `margin_softmax`.
        margin: `m >= 1`, a factor; a number or `[batch]`.
        scale: `s`.
        monotone: psi (default) or the plain `cos(m theta)`. Static.
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
        >>> round(float(sphereface(x, w, y, scale=10.0)), 4)
        0.0261

    References:
        Liu et al., "SphereFace: Deep Hypersphere Embedding for Face Recognition", CVPR
        2017, arXiv:1704.08063, eq. 7.
    """
    return margin_softmax(
        embeddings,
        class_weights,
        labels,
        margin=Partial(margins.sphereface, margin=margin, monotone=monotone),
        scale=scale,
        label_smoothing=label_smoothing,
        reduction=reduction,
        **options,
    )


def combined(
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    labels: ArrayLike,
    *,
    angle_factor: ArrayLike = 1.0,
    angle_shift: ArrayLike = 0.3,
    shift: ArrayLike = 0.2,
    scale: ArrayLike = 64.0,
    monotone: bool = True,
    label_smoothing: ArrayLike = 0.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[ClassOptions],
) -> Array | Any:
    """Combined margin: the target logit is `s (cos(m1 theta_y + m2) - m3)`.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        class_weights: `[classes, dim]`; rows normalised inside.
        labels: int `[batch]`; see `margin_softmax`.
        angle_factor: `m1`, a factor; a number or `[batch]`.
        angle_shift: `m2` in radians; a number or `[batch]`.
        shift: `m3`, in units of the cosine; a number or `[batch]`.
        scale: `s`.
        monotone: see `margins.combined`. Static.
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
        >>> round(float(combined(x, w, y, scale=10.0)), 4)
        0.3865

    References:
        Deng et al., "ArcFace", CVPR 2019, arXiv:1801.07698, eq. 4 and table 2.
    """
    return margin_softmax(
        embeddings,
        class_weights,
        labels,
        margin=Partial(
            margins.combined,
            angle_factor=angle_factor,
            angle_shift=angle_shift,
            shift=shift,
            monotone=monotone,
        ),
        scale=scale,
        label_smoothing=label_smoothing,
        reduction=reduction,
        **options,
    )


def normface(
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    labels: ArrayLike,
    *,
    scale: ArrayLike = 20.0,
    label_smoothing: ArrayLike = 0.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[ClassOptions],
) -> Array | Any:
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
