"""Heads: what turns embeddings into the logits of classes, or of a match.

Class weights have one row for each class, or one for each of its sub-centers; rows
shard on axis 0. The softmax over them, with its margin, is in `metricjax.losses`.

A pair head maps `x [n, dim]` and `y [n, dim]`, row by row, to logits `[n]` of "the
same"; `losses.siamese` trains one.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from metricjax import _checks, _classes, similarities
from metricjax._class_sample import ClassSample, sample_classes
from metricjax._fused import FusedUpdate, fused_update
from metricjax._pair_heads import (
    PairHead,
    PairNetwork,
    WeightedL1,
    drop_units,
    init_pair_network,
    init_weighted_l1,
    pair_network_logits,
    pairwise,
    weighted_l1_logits,
)
from metricjax.numerics import HIGHEST, Precision

__all__ = [
    "ClassSample",
    "FusedUpdate",
    "PairHead",
    "PairNetwork",
    "WeightedL1",
    "cosine_logits",
    "drop_units",
    "fused_update",
    "init_class_weights",
    "init_pair_network",
    "init_sphereface2_bias",
    "init_uniface_threshold",
    "init_weighted_l1",
    "nearest_subcenter",
    "pair_network_logits",
    "pairwise",
    "sample_classes",
    "weighted_l1_logits",
]


def init_class_weights(
    key: Array,
    classes: int,
    dim: int,
    *,
    subcenters: int | None = None,
    dtype: DTypeLike = jnp.float32,
) -> Array:
    """Random class weights, `N(0, 1 / dim)`: rows of length about one.

    Only the direction of a row enters the losses, but its length divides its gradient,
    so that rows of length one make the learning rate mean the same at any `dim`.

    Args:
        key: a typed random key.
        classes: number of rows.
        dim: of the embeddings.
        subcenters: rows of each class, of which the nearest counts; 3 in sub-center
            ArcFace. None for one row without an axis of its own.
        dtype: of the result.

    Returns:
        `[classes, dim]`, or `[classes, subcenters, dim]`.

    Raises:
        ValueError: if a size is not a positive integer.

    Example:
        >>> init_class_weights(jax.random.key(0), 10, 64).shape
        (10, 64)
        >>> init_class_weights(jax.random.key(0), 10, 64, subcenters=3).shape
        (10, 3, 64)
    """
    _checks.check_positive_int("classes", classes, "pass the number of classes")
    _checks.check_positive_int("dim", dim, "pass the size of the embeddings")
    shape = (classes, dim)
    if subcenters is not None:
        _checks.check_positive_int("subcenters", subcenters, "the paper has 3")
        shape = (classes, subcenters, dim)
    scale = jnp.asarray(dim**-0.5, dtype)
    return jax.random.normal(key, shape, dtype) * scale


def cosine_logits(
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    *,
    scale: ArrayLike = 1.0,
    precision: Precision = HIGHEST,
) -> Array:
    """Scaled cosine of each embedding to each class, `s cos(theta_j)`, without margin.

    For prediction, and for accuracy during training: logits with a margin know the
    label, and flatter.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        class_weights: `[classes, dim]`, or `[classes, subcenters, dim]`, where the
            nearest sub-center counts; rows normalised inside.
        scale: `s`.
        precision: of the matrix product.

    Returns:
        `[batch, classes]`, in at least float32.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if one is not floating.

    Example:
        >>> cosine_logits(jnp.array([[2.0, 0.0]]), jnp.eye(2), scale=30.0).tolist()
        [[30.0, 0.0]]

    References:
        Wang et al., "NormFace", ACM Multimedia 2017, arXiv:1704.06369, eq. 4.
    """
    _classes.check_class_weights(embeddings, class_weights)
    w = jnp.asarray(class_weights)
    if w.ndim == 2:
        cosine = similarities.cosine(embeddings, w, precision=precision)
        return jnp.asarray(scale * cosine)
    each = similarities.cosine(
        embeddings, w.reshape(-1, w.shape[2]), precision=precision
    )
    return jnp.asarray(scale * jnp.max(each.reshape(-1, *w.shape[:2]), axis=2))


def nearest_subcenter(
    embeddings: ArrayLike, class_weights: ArrayLike, labels: ArrayLike
) -> tuple[Array, Array]:
    """Which sub-center of its own class each embedding is nearest to, and its cosine.

    The sub-center that most examples of a class choose is its clean one; the paper then
    drops the others, and examples more than 75 degrees from the clean one as noise, and
    trains again with one center.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        class_weights: `[classes, subcenters, dim]`; rows normalised inside.
        labels: int `[batch]`; a value outside of [0, classes) gives index -1, cosine 0.

    Returns:
        Index int32 `[batch]`; cosine `[batch]`, in at least float32.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, w = jnp.array([[1.0, 0.1]]), jnp.array([[[0.0, 1.0], [1.0, 0.0]]])
        >>> index, cosine = nearest_subcenter(x, w, jnp.array([0]))
        >>> int(index[0]), round(float(cosine[0]), 4)
        (1, 0.995)

    References:
        Deng et al., "Sub-center ArcFace: Boosting Face Recognition by Large-Scale Noisy
        Web Faces", ECCV 2020.
    """
    if jnp.ndim(class_weights) != 3:
        raise ValueError(
            "Expected `class_weights` of shape [classes, subcenters, dim], got "
            f"{_checks.describe(class_weights)}; there is nothing to choose without "
            "sub-centers."
        )
    x, w, labels = _classes.unit_vectors(embeddings, class_weights, labels, None)
    cosine = jnp.sum(x[:, None] * w.at[labels].get(mode="clip"), axis=2)
    known = _classes.known(labels, w.shape[0], None)
    index = jnp.argmax(cosine, axis=1).astype(jnp.int32)
    return jnp.where(known, index, -1), jnp.where(known, jnp.max(cosine, axis=1), 0.0)


def init_uniface_threshold(classes: int) -> Array:
    """Where UniFace's threshold starts: `log(10 C)`.

    Args:
        classes: `C`.

    Returns:
        A scalar, float32.

    Raises:
        ValueError: if `classes` is not a positive integer.

    Example:
        >>> round(float(init_uniface_threshold(1000)), 4)
        9.2103

    References:
        Zhou et al., "UniFace", ICCV 2023, the authors' code.
    """
    _checks.check_positive_int("classes", classes, "pass the number of classes")
    return jnp.asarray(math.log(10.0 * classes), jnp.float32)


def init_sphereface2_bias(
    classes: int,
    *,
    margin: float = 0.4,
    scale: float = 40.0,
    balance: float = 0.7,
    exponent: float = 3.0,
) -> Array:
    """Where SphereFace2's bias starts: the best one while all cosines are zero.

    The solution of `l sigmoid(-a - b) = (1 - l) (C - 1) sigmoid(d + b)`, with the
    logits `a = r (g(0) - m)` of the true class and `d = r (g(0) + m)` of the others.

    Args:
        classes: `C`, at least 2.
        margin: `m`; this and the rest as given to `losses.sphereface2`.
        scale: `r`.
        balance: `l`.
        exponent: of `g`.

    Returns:
        A scalar, float32.

    Raises:
        ValueError: if there are fewer than 2 classes.

    Example:
        >>> round(float(init_sphereface2_bias(1000)), 4)
        7.9429

    References:
        Wen et al., "SphereFace2", ICLR 2022, arXiv:2108.01513; the authors' code
        (opensphere).
    """
    if classes < 2:
        raise ValueError(
            f"Expected at least 2 classes, got {classes}; with one class there are no "
            "negative decisions."
        )
    middle = 2.0 * 0.5**exponent - 1.0
    true, other = scale * (middle - margin), scale * (middle + margin)
    # A quadratic in exp(b); the form without cancellation is taken on each side.
    odds = balance / ((1.0 - balance) * (classes - 1.0))
    root = math.sqrt((1.0 - odds) ** 2 + 4.0 * odds * math.exp(true - other))
    if odds < 1.0:
        bias = math.log(2.0 * odds) - other - math.log(1.0 - odds + root)
    else:
        bias = math.log(odds - 1.0 + root) - math.log(2.0) - true
    return jnp.asarray(bias, jnp.float32)
