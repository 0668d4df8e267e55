"""Classification heads: one row of class weights for each class.

Rows shard on axis 0. The softmax over them, with its margin, is in
`metricjax.losses`.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from metricjax import _checks, similarities
from metricjax.numerics import HIGHEST, Precision

__all__ = ["cosine_logits", "init_class_weights"]


def init_class_weights(
    key: Array, classes: int, dim: int, *, dtype: DTypeLike = jnp.float32
) -> Array:
    """Random class weights, `N(0, 1 / dim)`: rows of length about one.

    Only the direction of a row enters the losses, but its length divides its gradient,
    so that rows of length one make the learning rate mean the same at any `dim`.

    Args:
        key: a typed random key.
        classes: number of rows.
        dim: of the embeddings.
        dtype: of the result.

    Returns:
        `[classes, dim]`.

    Raises:
        ValueError: if `classes` or `dim` is not a positive integer.

    Example:
        >>> init_class_weights(jax.random.key(0), 10, 64).shape
        (10, 64)
    """
    _checks.check_positive_int("classes", classes, "pass the number of classes")
    _checks.check_positive_int("dim", dim, "pass the size of the embeddings")
    scale = jnp.asarray(dim**-0.5, dtype)
    return jax.random.normal(key, (classes, dim), dtype) * scale


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
        class_weights: `[classes, dim]`; rows normalised inside.
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
    _checks.check_embeddings("embeddings", embeddings)
    _checks.check_embeddings("class_weights", class_weights)
    _checks.check_same_dim("embeddings", embeddings, "class_weights", class_weights)
    cosine = similarities.cosine(embeddings, class_weights, precision=precision)
    return jnp.asarray(scale * cosine)
