"""One binary decision for each class: sigmoids, or regression, instead of a softmax."""

from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import _classes, margins, reductions, rows
from metricjax.losses._classification import ClassOptions
from metricjax.reductions import Reduction, Terms


def margin_sigmoid(
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    bias: ArrayLike,
    labels: ArrayLike,
    *,
    margin: margins.Margin,
    others: margins.Others | None = None,
    scale: ArrayLike = 64.0,
    positive_weight: ArrayLike = 1.0,
    negative_weight: ArrayLike = 1.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[ClassOptions],
) -> Any:
    """Binary cross-entropy of each class, over scaled cosines with a margin.

    `w+ softplus(-(s t(c_y) + b)) + w- sum_{j != y} softplus(s o(c_j, t(c_y)) + b)`:
    one bias for all classes is one threshold for all of them, which a softmax lacks.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        class_weights: `[classes, dim]`; see `margin_softmax`.
        bias: `b`, a scalar parameter; far below zero at the start, since nearly all
            decisions are negative.
        labels: int `[batch]`; see `margin_softmax`.
        margin: `t`; see `margin_softmax`.
        others: `o`; see `margin_softmax`.
        scale: `s`.
        positive_weight: `w+`.
        negative_weight: `w-`.
        reduction: of `Terms`, whose terms are examples; active are those with a logit
            on the wrong side of zero.
        **options: see `ClassOptions`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, w, y = jnp.array([[1.0, 0.0]]), jnp.eye(2), jnp.array([0])
        >>> loss = margin_sigmoid(x, w, -2.0, y, margin=margins.cosface, scale=4.0)
        >>> round(float(loss), 4)
        0.5644

    References:
        Zhou et al., "UniFace: Unified Cross-Entropy Loss for Deep Face Recognition",
        ICCV 2023; Wen et al., "SphereFace2", ICLR 2022, arXiv:2108.01513.
    """
    x, w, labels = _classes.unit_vectors(
        embeddings, class_weights, labels, options.get("where")
    )
    row = Partial(
        _sigmoid_row,
        bias=bias,
        others=others,
        scale=scale,
        positive_weight=positive_weight,
        negative_weight=negative_weight,
    )
    target = margin(_classes.target_cosine(x, w, labels))
    return _apply(row, x, w, labels, target, reduction, options)


def _apply(
    row: Partial,
    x: Array,
    w: Array,
    labels: Array,
    target: Array,
    reduction: Reduction | None,
    options: ClassOptions,
) -> Any:
    candidates, measure = _classes.candidates(w)
    return rows.apply(
        row,
        x,
        labels,
        measure=measure,
        reduction=reduction,
        per_anchor=target,
        ref_embeddings=candidates,
        ref_labels=jnp.arange(w.shape[0], dtype=labels.dtype),
        **options,
    )


def _sigmoid_row(
    cosine: Array,
    positive: Array,
    negative: Array,
    target: Array,
    *,
    bias: ArrayLike,
    others: margins.Others | None,
    scale: ArrayLike,
    positive_weight: ArrayLike,
    negative_weight: ArrayLike,
) -> Terms:
    known = jnp.any(positive, axis=1)
    if others is not None:
        cosine = others(cosine, target[:, None])
    hit, logits = scale * target + bias, scale * cosine + bias
    near = positive_weight * jax.nn.softplus(-hit)
    far = jnp.sum(jnp.where(negative, jax.nn.softplus(logits), 0.0), axis=1)
    wrong = (hit <= 0) | jnp.any(negative & (logits >= 0), axis=1)
    return Terms(
        jnp.where(known, near + negative_weight * far, 0.0),
        known.astype(logits.dtype),
        (known & wrong).astype(logits.dtype),
    )


def uniface(
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    threshold: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 0.4,
    scale: ArrayLike = 64.0,
    negative_weight: ArrayLike = 1.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[ClassOptions],
) -> Any:
    """UniFace: one learned threshold between all positive and all negative cosines.

    `softplus(-(s (c_y - m) - b)) + l sum_{j != y} softplus(s c_j - b)`. The authors'
    code also clamps the arguments to [-s, s], where the hardest examples would lose
    their gradient.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        class_weights: `[classes, dim]`; see `margin_softmax`.
        threshold: `b`, a scalar parameter; starts at `heads.init_uniface_threshold`.
        labels: int `[batch]`; see `margin_softmax`.
        margin: `m`, in units of the cosine; a number or `[batch]`.
        scale: `s`.
        negative_weight: `l`.
        reduction: see `margin_sigmoid`.
        **options: see `ClassOptions`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, w, y = jnp.array([[1.0, 0.0]]), jnp.eye(2), jnp.array([0])
        >>> round(float(uniface(x, w, 2.0, y, scale=4.0)), 4)
        0.6399

    References:
        Zhou et al., "UniFace: Unified Cross-Entropy Loss for Deep Face Recognition",
        ICCV 2023; defaults of the authors' code.
    """
    return margin_sigmoid(
        embeddings,
        class_weights,
        -jnp.asarray(threshold),
        labels,
        margin=Partial(margins.cosface, margin=margin),
        scale=scale,
        negative_weight=negative_weight,
        reduction=reduction,
        **options,
    )


def sphereface2(
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    bias: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 0.4,
    scale: ArrayLike = 40.0,
    balance: ArrayLike = 0.7,
    exponent: ArrayLike = 3.0,
    detached: bool = False,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[ClassOptions],
) -> Any:
    """SphereFace2: binary decisions with a margin on both sides of the boundary.

    `l/r softplus(-(r (g(c_y) - m) + b)) + (1 - l)/r sum_{j != y} softplus(r (g(c_j) +
    m) + b)`, the form C of the paper, with `g` as in `margins.sphereface2`. For the
    others give `margin_sigmoid` an angular margin. The authors' code multiplies it by
    50.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        class_weights: `[classes, dim]`; see `margin_softmax`.
        bias: `b`, a scalar parameter; starts at `heads.init_sphereface2_bias`.
        labels: int `[batch]`; see `margin_softmax`.
        margin: `m`, in units of the stretched cosine.
        scale: `r`; 40 in the authors' code.
        balance: `l` in [0, 1], the share of the positive decision.
        exponent: `t >= 1` of `g`; 1 makes `g` the identity.
        detached: whether logits have the value above and the gradient of the plain
            cosine, as in the authors' code, or that of the equation (default). Static.
        reduction: see `margin_sigmoid`.
        **options: see `ClassOptions`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, w, y = jnp.array([[1.0, 0.5]]), jnp.eye(2), jnp.array([0])
        >>> round(float(sphereface2(x, w, 0.0, y, scale=10.0)), 4)
        0.0564

    References:
        Wen et al., "SphereFace2: Binary Classification is All You Need for Deep Face
        Recognition", ICLR 2022, arXiv:2108.01513, eq. 5; defaults of the authors' code
        (opensphere).
    """
    target = Partial(margins.sphereface2, margin=margin, exponent=exponent)
    others = Partial(margins.sphereface2_others, margin=margin, exponent=exponent)
    if detached:
        target = Partial(margins.straight_through, margin=target)
        others = Partial(margins.straight_through_others, others=others)
    return margin_sigmoid(
        embeddings,
        class_weights,
        bias,
        labels,
        margin=target,
        others=others,
        scale=scale,
        positive_weight=balance / scale,
        negative_weight=(1.0 - balance) / scale,
        reduction=reduction,
        **options,
    )


def p2sgrad(
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    labels: ArrayLike,
    *,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[ClassOptions],
) -> Any:
    """P2SGrad: the cosines regress to one for the true class and zero for the others.

    `1/2 sum_j (c_j - [j = y])^2`, the loss whose gradient in the cosines is that of the
    paper, `c_j - [j = y]`; it has no scale and no margin. pytorch-metric-learning takes
    the mean over classes, which is `2 / classes` of this, and overwrites the weights.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        class_weights: `[classes, dim]`; see `margin_softmax`.
        labels: int `[batch]`; see `margin_softmax`.
        reduction: of `Terms`, whose terms are examples; active are those for which
            another class has at least the cosine of the true one.
        **options: see `ClassOptions`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, w, y = jnp.array([[3.0, 4.0]]), jnp.eye(2), jnp.array([0])
        >>> round(float(p2sgrad(x, w, y)), 4)
        0.4

    References:
        Zhang et al., "P2SGrad: Refined Gradients for Optimizing Deep Face Models", CVPR
        2019, arXiv:1905.02479.
    """
    x, w, labels = _classes.unit_vectors(
        embeddings, class_weights, labels, options.get("where")
    )
    cosine_y = _classes.target_cosine(x, w, labels)
    return _apply(Partial(_p2sgrad_row), x, w, labels, cosine_y, reduction, options)


def _p2sgrad_row(
    cosine: Array, positive: Array, negative: Array, cosine_y: Array
) -> Terms:
    known = jnp.any(positive, axis=1)
    cost = jnp.sum(jnp.square(cosine - positive.astype(cosine.dtype)), axis=1) / 2.0
    wrong = jnp.any(negative & (cosine >= cosine_y[:, None]), axis=1)
    return Terms(
        jnp.where(known, cost, 0.0),
        known.astype(cost.dtype),
        (known & wrong).astype(cost.dtype),
    )
