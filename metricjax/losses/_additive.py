"""Margin softmax with a margin that is added, to the angle or to the cosine."""

from typing import Any, Unpack

from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import margins, reductions
from metricjax.losses._classification import SoftmaxOptions, margin_softmax
from metricjax.reductions import Reduction


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
    **options: Unpack[SoftmaxOptions],
) -> Any:
    """ArcFace: softmax cross-entropy with an additive angular margin.

    The target logit is `s cos(theta_y + m)`, the others `s cos(theta_j)`.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        class_weights: `[classes, dim]`; rows normalised inside. `[classes, subcenters,
            dim]` makes it sub-center ArcFace; the paper has 3 of them.
        labels: int `[batch]`; see `margin_softmax`.
        margin: `m` in radians, in [0, pi); a number or `[batch]`. With few classes or
            dimensions a smaller one is feasible: ten classes in two dimensions are 36
            degrees apart, which allows 0.628 at most.
        scale: `s`.
        fallback: beyond `theta + m = pi`; `margins.safe` (the authors' code),
            `margins.easy` or `margins.continuous`.
        label_smoothing: see `margin_softmax`.
        reduction: see `margin_softmax`.
        **options: see `SoftmaxOptions`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> import jax.numpy as jnp
        >>> x, w, y = jnp.array([[1.0, 0.5]]), jnp.eye(2), jnp.array([0])
        >>> round(float(arcface(x, w, y, scale=10.0)), 4)
        0.2557

    References:
        Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition",
        CVPR 2019, arXiv:1801.07698, eq. 3; Deng et al., "Sub-center ArcFace: Boosting
        Face Recognition by Large-Scale Noisy Web Faces", ECCV 2020.
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
    **options: Unpack[SoftmaxOptions],
) -> Any:
    """CosFace (AM-Softmax): softmax cross-entropy with an additive cosine margin.

    The target logit is `s (cos(theta_y) - m)`, the others `s cos(theta_j)`.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        class_weights: `[classes, dim]`; see `margin_softmax`.
        labels: int `[batch]`; see `margin_softmax`.
        margin: `m`, in units of the cosine; a number or `[batch]`.
        scale: `s`; 64 in CosFace, 30 in AM-Softmax.
        label_smoothing: see `margin_softmax`.
        reduction: see `margin_softmax`.
        **options: see `SoftmaxOptions`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> import jax.numpy as jnp
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
    **options: Unpack[SoftmaxOptions],
) -> Any:
    """Combined margin: the target logit is `s (cos(m1 theta_y + m2) - m3)`.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        class_weights: `[classes, dim]`; see `margin_softmax`.
        labels: int `[batch]`; see `margin_softmax`.
        angle_factor: `m1`, a factor; a number or `[batch]`.
        angle_shift: `m2` in radians; a number or `[batch]`.
        shift: `m3`, in units of the cosine; a number or `[batch]`.
        scale: `s`.
        monotone: see `margins.combined`. Static.
        label_smoothing: see `margin_softmax`.
        reduction: see `margin_softmax`.
        **options: see `SoftmaxOptions`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> import jax.numpy as jnp
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


def li_arcface(
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 0.45,
    scale: ArrayLike = 64.0,
    label_smoothing: ArrayLike = 0.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[SoftmaxOptions],
) -> Any:
    """Li-ArcFace: an additive angular margin on logits that are linear in the angle.

    The target logit is `s (1 - 2 (theta_y + m) / pi)`, the others `s (1 - 2 theta_j /
    pi)`. The paper recommends it for small networks and few dimensions.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        class_weights: `[classes, dim]`; see `margin_softmax`.
        labels: int `[batch]`; see `margin_softmax`.
        margin: `m` in radians; a number or `[batch]`.
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
        >>> import jax.numpy as jnp
        >>> x, w, y = jnp.array([[1.0, 0.5]]), jnp.eye(2), jnp.array([0])
        >>> round(float(li_arcface(x, w, y, scale=10.0)), 4)
        0.256

    References:
        Li et al., "AirFace: Lightweight and Efficient Model for Face Recognition", ICCV
        Workshops 2019, arXiv:1907.12256 (Li-ArcFace).
    """
    return margin_softmax(
        embeddings,
        class_weights,
        labels,
        margin=Partial(margins.li_arcface, margin=margin),
        others=Partial(margins.li_arcface_others),
        scale=scale,
        label_smoothing=label_smoothing,
        reduction=reduction,
        **options,
    )
