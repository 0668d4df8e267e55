"""Margin softmax that adapts: to the length of embeddings, to chance, to training."""

from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import (
    _adaptation,
    _class_blocks,
    _classes,
    margins,
    memory,
    numerics,
    reductions,
)
from metricjax.losses._classification import SoftmaxOptions, margin_softmax, normface
from metricjax.reductions import Reduction


def curricularface(
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    curriculum: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 0.5,
    scale: ArrayLike = 64.0,
    fallback: margins.Fallback = margins.safe,
    label_smoothing: ArrayLike = 0.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[SoftmaxOptions],
) -> Any:
    """CurricularFace: ArcFace that emphasises hard classes more and more.

    A class whose cosine is above `cos(theta_y + m)` has the logit `s c_j (t + c_j)`.
    The authors' code updates `t` before it uses it:
    `t = memory.update_curriculum(t, x, w, y)`, then this loss.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        class_weights: `[classes, dim]`; see `margin_softmax`.
        curriculum: `t`, a scalar; 0 at the start, moved by `memory.update_curriculum`.
        labels: int `[batch]`; see `margin_softmax`.
        margin: `m` in radians; a number or `[batch]`.
        scale: `s`.
        fallback: see `arcface`. Beyond `theta + m = pi` a class is hard if it is above
            the target with its fallback.
        label_smoothing: see `margin_softmax`.
        reduction: see `margin_softmax`.
        **options: see `SoftmaxOptions`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, w, y = jnp.array([[1.0, 0.5]]), jnp.eye(2), jnp.array([1])
        >>> round(float(curricularface(x, w, 0.2, y, scale=10.0)), 4)
        10.1523

    References:
        Huang et al., "CurricularFace: Adaptive Curriculum Learning Loss for Deep Face
        Recognition", CVPR 2020, arXiv:2004.00288.
    """
    return margin_softmax(
        embeddings,
        class_weights,
        labels,
        margin=Partial(margins.arcface, margin=margin, fallback=fallback),
        others=Partial(margins.curricularface_others, curriculum=curriculum),
        scale=scale,
        label_smoothing=label_smoothing,
        reduction=reduction,
        **options,
    )


def mv_softmax(
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    labels: ArrayLike,
    *,
    margin: margins.Margin = margins.cosface,
    emphasis: ArrayLike = 1.2,
    adaptive: bool = True,
    scale: ArrayLike = 32.0,
    label_smoothing: ArrayLike = 0.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[SoftmaxOptions],
) -> Any:
    """MV-Softmax: a margin, and more weight on the classes that beat the target.

    A class whose cosine is above the target with its margin has the logit `s (t c_j + t
    - 1)`. The authors' code leaves targets with a negative cosine without margin, which
    the equation and this do not.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        class_weights: `[classes, dim]`; see `margin_softmax`.
        labels: int `[batch]`; see `margin_softmax`.
        margin: a function of `metricjax.margins`; `cosface` with 0.35 is MV-AM-Softmax,
            `arcface` with 0.5 MV-Arc-Softmax.
        emphasis: `t >= 1`; 1.2 in the authors' code.
        adaptive: see `margins.mv_softmax_others`. Static.
        scale: `s`; 32 in the paper.
        label_smoothing: see `margin_softmax`.
        reduction: see `margin_softmax`.
        **options: see `SoftmaxOptions`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, w, y = jnp.array([[1.0, 0.5]]), jnp.eye(2), jnp.array([1])
        >>> round(float(mv_softmax(x, w, y, scale=10.0)), 4)
        11.761

    References:
        Wang et al., "Mis-classified Vector Guided Softmax Loss for Face Recognition",
        AAAI 2020, arXiv:1912.00833.
    """
    return margin_softmax(
        embeddings,
        class_weights,
        labels,
        margin=margin,
        others=Partial(margins.mv_softmax_others, emphasis=emphasis, adaptive=adaptive),
        scale=scale,
        label_smoothing=label_smoothing,
        reduction=reduction,
        **options,
    )


def magface(
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    labels: ArrayLike,
    *,
    low_norm: ArrayLike = 10.0,
    high_norm: ArrayLike = 110.0,
    low_margin: ArrayLike = 0.45,
    high_margin: ArrayLike = 0.8,
    regularization: ArrayLike = 35.0,
    scale: ArrayLike = 64.0,
    fallback: margins.Fallback = margins.easy,
    label_smoothing: ArrayLike = 0.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[SoftmaxOptions],
) -> Any:
    """MagFace: ArcFace whose margin grows with the length `a` of the embedding.

    Each example costs its ArcFace with the margin `margins.magface_margin(a)`, plus
    `lambda (a / u^2 + 1 / a)`, which rewards lengths up to `u`. Lengths are clipped to
    [l, u]; afterwards the length tells the quality of the image.

    Args:
        embeddings: `[batch, dim]`; their length counts.
        class_weights: `[classes, dim]`; see `margin_softmax`.
        labels: int `[batch]`; see `margin_softmax`.
        low_norm: `l`; no gradient flows to the length below.
        high_norm: `u`; no gradient flows to the length above.
        low_margin: at length `l`, in radians.
        high_margin: at length `u`, in radians.
        regularization: `lambda`.
        scale: `s`.
        fallback: see `arcface`; `margins.easy` as in the authors' code.
        label_smoothing: see `margin_softmax`.
        reduction: see `margin_softmax`.
        **options: see `SoftmaxOptions`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, w, y = jnp.array([[20.0, 10.0]]), jnp.eye(2), jnp.array([0])
        >>> round(float(magface(x, w, y, scale=10.0)), 4)
        1.8734

    References:
        Meng et al., "MagFace: A Universal Representation for Face Recognition and
        Quality Assessment", CVPR 2021, arXiv:2103.06627; defaults of the authors' code.
    """
    norms = numerics.norm(numerics.mask_rows(embeddings, options.get("where")))
    margin = margins.magface_margin(
        norms,
        low_norm=low_norm,
        high_norm=high_norm,
        low_margin=low_margin,
        high_margin=high_margin,
    )
    length = jnp.clip(norms, low_norm, high_norm)
    return margin_softmax(
        embeddings,
        class_weights,
        labels,
        margin=Partial(margins.arcface, margin=margin, fallback=fallback),
        scale=scale,
        label_smoothing=label_smoothing,
        penalty=regularization * (length / jnp.square(high_norm) + 1.0 / length),
        reduction=reduction,
        **options,
    )


def adaface(
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    statistics: memory.NormStatistics,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 0.4,
    concentration: ArrayLike = 0.333,
    scale: ArrayLike = 64.0,
    label_smoothing: ArrayLike = 0.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[SoftmaxOptions],
) -> Any:
    """AdaFace: a margin that depends on the quality of the image, told by the length.

    The target logit is `s (cos(theta_y - m z) - m (1 + z))`, where `z` is the length of
    the embedding, standardised (`margins.adaface_quality`); no gradient flows to it.
    The authors' code updates the statistics first:
    `statistics = memory.update_norm_statistics(statistics, x)`, then this loss. It also
    clips all cosines to 0.999 and lengths to [0.001, 100], which this does not.

    Args:
        embeddings: `[batch, dim]`; their length counts.
        class_weights: `[classes, dim]`; see `margin_softmax`.
        statistics: of the lengths of embeddings.
        labels: int `[batch]`; see `margin_softmax`.
        margin: `m`; a number or `[batch]`.
        concentration: `h`; 0 makes it CosFace.
        scale: `s`.
        label_smoothing: see `margin_softmax`.
        reduction: see `margin_softmax`.
        **options: see `SoftmaxOptions`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, w, y = jnp.array([[20.0, 10.0]]), jnp.eye(2), jnp.array([0])
        >>> statistics = memory.init_norm_statistics(mean=20.0, std=5.0)
        >>> round(float(adaface(x, w, statistics, y, scale=10.0)), 4)
        0.6412

    References:
        Kim et al., "AdaFace: Quality Adaptive Margin for Face Recognition", CVPR 2022,
        arXiv:2204.00964, eq. 17 to 19.
    """
    quality = margins.adaface_quality(
        numerics.norm(numerics.mask_rows(embeddings, options.get("where"))),
        mean=statistics.mean,
        std=statistics.std,
        concentration=concentration,
    )
    quality = jax.lax.stop_gradient(quality)
    return margin_softmax(
        embeddings,
        class_weights,
        labels,
        margin=Partial(margins.adaface, quality=quality, margin=margin),
        scale=scale,
        label_smoothing=label_smoothing,
        reduction=reduction,
        **options,
    )


def adacos(
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    labels: ArrayLike,
    *,
    scale: ArrayLike | None = None,
    label_smoothing: ArrayLike = 0.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[SoftmaxOptions],
) -> Any:
    """AdaCos: softmax over scaled cosines, whose scale needs no tuning.

    Fixed, the scale is `sqrt(2) log(classes - 1)`. Dynamic, it is a state: begin with
    `memory.init_adacos_scale(classes)`, and at each step
    `scale = memory.update_adacos_scale(scale, x, w, y)`, then this loss.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        class_weights: `[classes, dim]`, at least 3 classes; see `margin_softmax`.
        labels: int `[batch]`; see `margin_softmax`.
        scale: `s`; None for the fixed one, which counts padding as classes.
        label_smoothing: see `margin_softmax`.
        reduction: see `margin_softmax`.
        **options: see `SoftmaxOptions`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree, or if there are fewer than 3 classes.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, w, y = jnp.array([[1.0, 0.5, 0.0]]), jnp.eye(3), jnp.array([0])
        >>> round(float(adacos(x, w, y)), 4)
        0.7233

    References:
        Zhang et al., "AdaCos: Adaptively Scaling Cosine Logits for Effectively Learning
        Deep Face Representations", CVPR 2019, arXiv:1905.00292.
    """
    _classes.check_class_weights(embeddings, class_weights)
    if scale is None:
        rows, class_axis = jnp.shape(class_weights)[0], options.get("class_axis")
        classes = _class_blocks.count_classes(rows, class_axis)
        scale = _adaptation.fixed_adacos_scale(classes)
    return normface(
        embeddings,
        class_weights,
        labels,
        scale=scale,
        label_smoothing=label_smoothing,
        reduction=reduction,
        **options,
    )
