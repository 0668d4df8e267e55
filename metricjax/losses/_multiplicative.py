"""Margin softmax with a factor on the angle: the SphereFace family."""

from typing import Any, Unpack

import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import _checks, _class_blocks, _classes, margins, numerics, reductions
from metricjax.losses._classification import (
    SoftmaxOptions,
    margin_softmax,
    softmax_loss,
)
from metricjax.reductions import Reduction


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
    **options: Unpack[SoftmaxOptions],
) -> Any:
    """SphereFace with normalised embeddings: a multiplicative angular margin.

    The target logit is `s psi(theta_y)`, where psi is `cos(m theta)` continued
    downwards; the others `s cos(theta_j)`. The paper's logits carry the length of the
    embedding instead of `s`, its m is 4, and it anneals: that is `a_softmax`. 1.35 with
    a scale is the form in which ArcFace compares it.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        class_weights: `[classes, dim]`; see `margin_softmax`.
        labels: int `[batch]`; see `margin_softmax`.
        margin: `m >= 1`, a factor; a number or `[batch]`.
        scale: `s`.
        monotone: psi (default) or the plain `cos(m theta)`. Static.
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


def sphereface_r_v1(
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 1.5,
    scale: ArrayLike = 30.0,
    detached: bool = True,
    label_smoothing: ArrayLike = 0.0,
    penalty: ArrayLike = 0.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[SoftmaxOptions],
) -> Any:
    """SphereFace-R, version 1: the target is `s cos(min(m theta_y, pi))`.

    The others are `s cos(theta_j)`. The authors' code also multiplies the loss by `50 /
    s`, which is left to the learning rate here. Its version 0 is `margin_softmax` with
    the margin `Partial(margins.straight_through, margin=margins.sphereface)`.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        class_weights: `[classes, dim]`; see `margin_softmax`.
        labels: int `[batch]`; see `margin_softmax`.
        margin: `m >= 1`, a factor; a number or `[batch]`; 1.5 in the authors' code.
        scale: `s`, a number for the hard normalisation of features. Without feature
            normalisation pass their length, `numerics.norm(embeddings)`.
        detached: whether logits have the value with margin and the gradient without
            (the paper's "characteristic gradient detachment", default), or both with.
            Static.
        label_smoothing: see `margin_softmax`.
        penalty: see `margin_softmax`. For the soft normalisation of features `0.01 *
            abs(norms - 30)`, with the norms as scale.
        reduction: see `margin_softmax`.
        **options: see `SoftmaxOptions`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, w, y = jnp.array([[1.0, 0.5]]), jnp.eye(2), jnp.array([0])
        >>> round(float(sphereface_r_v1(x, w, y, scale=10.0)), 4)
        0.0397

    References:
        Liu et al., "SphereFace Revived: Unifying Hyperspherical Face Recognition",
        TPAMI 2022, arXiv:2109.05565; defaults of the authors' code (opensphere).
    """
    target = Partial(margins.sphereface_r, margin=margin)
    return margin_softmax(
        embeddings,
        class_weights,
        labels,
        margin=Partial(margins.straight_through, margin=target) if detached else target,
        scale=scale,
        label_smoothing=label_smoothing,
        penalty=penalty,
        reduction=reduction,
        **options,
    )


def sphereface_r_v2(
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 1.5,
    scale: ArrayLike = 30.0,
    detached: bool = True,
    label_smoothing: ArrayLike = 0.0,
    penalty: ArrayLike = 0.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[SoftmaxOptions],
) -> Any:
    """SphereFace-R, version 2: the other classes are `s cos(theta_j / m)`.

    The target is `s cos(theta_y)`: the margin is on the other classes, which seem
    nearer than they are.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        class_weights: `[classes, dim]`; see `margin_softmax`.
        labels: int `[batch]`; see `margin_softmax`.
        margin: `m >= 1`, a factor; 1.5 in the authors' code.
        scale: see `sphereface_r_v1`.
        detached: see `sphereface_r_v1`. Static.
        label_smoothing: see `margin_softmax`.
        penalty: see `sphereface_r_v1`.
        reduction: see `margin_softmax`.
        **options: see `SoftmaxOptions`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, w, y = jnp.array([[1.0, 0.5]]), jnp.eye(2), jnp.array([0])
        >>> round(float(sphereface_r_v2(x, w, y, scale=10.0)), 4)
        0.193

    References:
        Liu et al., "SphereFace Revived: Unifying Hyperspherical Face Recognition",
        TPAMI 2022, arXiv:2109.05565; defaults of the authors' code (opensphere).
    """
    others = Partial(margins.sphereface_r_others, margin=margin)
    if detached:
        others = Partial(margins.straight_through_others, others=others)
    return margin_softmax(
        embeddings,
        class_weights,
        labels,
        margin=numerics.promote,
        others=others,
        scale=scale,
        label_smoothing=label_smoothing,
        penalty=penalty,
        reduction=reduction,
        **options,
    )


def a_softmax(
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 4.0,
    annealing: ArrayLike = 5.0,
    label_smoothing: ArrayLike = 0.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[SoftmaxOptions],
) -> Any:
    """A-Softmax, the loss of SphereFace as published: the length of `x` is the scale.

    The target logit is `|x| (lambda cos(theta_y) + psi(theta_y)) / (1 + lambda)`, with
    psi as in `margins.sphereface`; the others `|x| cos(theta_j)`. The weights are
    normalised, the embeddings not.

    Args:
        embeddings: `[batch, dim]`; their length counts.
        class_weights: `[classes, dim]`; see `margin_softmax`.
        labels: int `[batch]`; see `margin_softmax`.
        margin: `m >= 1`, a factor; the paper's is 4.
        annealing: `lambda`; the authors train with `margins.sphereface_annealing(step)`
            which falls to the 5 that is the default here. 0 is the equation of the
            paper.
        label_smoothing: see `margin_softmax`.
        reduction: see `margin_softmax`.
        **options: see `SoftmaxOptions`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, w, y = jnp.array([[10.0, 5.0]]), jnp.eye(2), jnp.array([0])
        >>> round(float(a_softmax(x, w, y)), 4)
        0.0584

    References:
        Liu et al., "SphereFace: Deep Hypersphere Embedding for Face Recognition", CVPR
        2017, arXiv:1704.08063, eq. 6 and 7; `lambda` from the authors' code.
    """
    psi = Partial(margins.sphereface, margin=margin)
    return margin_softmax(
        embeddings,
        class_weights,
        labels,
        margin=Partial(margins.annealed, margin=psi, annealing=annealing),
        scale=numerics.norm(numerics.mask_rows(embeddings, options.get("where"))),
        label_smoothing=label_smoothing,
        reduction=reduction,
        **options,
    )


def l_softmax(
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 4.0,
    annealing: ArrayLike = 0.0,
    label_smoothing: ArrayLike = 0.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[SoftmaxOptions],
) -> Any:
    """L-Softmax: a multiplicative angular margin on plain inner products.

    The target logit is `|w_y| |x| (lambda cos(theta_y) + psi(theta_y)) / (1 + lambda)`,
    with psi as in `margins.sphereface`; the others `w_j . x`. Nothing is normalised.

    Args:
        embeddings: `[batch, dim]`; their length counts.
        class_weights: `[classes, dim]`; their length counts.
        labels: int `[batch]`; see `margin_softmax`.
        margin: `m >= 1`, a factor; the paper's are the integers 1 to 4.
        annealing: `lambda`; 0, the default, is the equation of the paper. Training
            starts with a large one, see `margins.sphereface_annealing`.
        label_smoothing: see `margin_softmax`.
        reduction: see `margin_softmax`.
        **options: see `SoftmaxOptions`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, w, y = jnp.array([[4.0, 2.0]]), 2.0 * jnp.eye(2), jnp.array([0])
        >>> round(float(l_softmax(x, w, y, margin=2.0)), 4)
        0.2271

    References:
        Liu et al., "Large-Margin Softmax Loss for Convolutional Neural Networks", ICML
        2016, arXiv:1612.02295, eq. 4 to 6.
    """
    _check_one_center(class_weights)
    x, w, labels = _classes.unit_vectors(
        embeddings, class_weights, labels, options.get("where")
    )
    psi = Partial(margins.sphereface, margin=margin)
    target = Partial(margins.annealed, margin=psi, annealing=annealing)
    norms = numerics.norm(class_weights)
    axes = options.get("axis_name"), options.get("class_axis")
    all_labels = _class_blocks.whole_batch(labels, *axes)
    own = _class_blocks.rows_of(all_labels, norms.shape[0], axes[1])
    own_norms = norms.at[own].get(mode="clip")
    own_norms = _class_blocks.from_owner(own_norms, own, axes[1])
    own_norms = _class_blocks.own_part(own_norms, x.shape[0], *axes)
    return softmax_loss(
        x,
        w,
        labels,
        margin=Partial(_lengthened, margin=target, norms=own_norms),
        others=_lengthen_others,
        lengths=norms,
        scale=numerics.norm(numerics.mask_rows(embeddings, options.get("where"))),
        label_smoothing=label_smoothing,
        reduction=reduction,
        **options,
    )


def _lengthened(cosine: Array, *, margin: margins.Margin, norms: Array) -> Array:
    return norms * margin(cosine)


def _lengthen_others(cosine: Array, target: Array, *, lengths: Array) -> Array:
    del target
    return lengths[None, :] * cosine


def _check_one_center(class_weights: ArrayLike) -> None:
    if jnp.ndim(class_weights) != 2:
        raise ValueError(
            "Expected `class_weights` of shape [classes, dim], got "
            f"{_checks.describe(class_weights)}; the nearest sub-center is chosen by "
            "angle, which L-Softmax does not do: use a_softmax."
        )
