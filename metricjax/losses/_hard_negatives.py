"""Aligned pairs: row i of one set belongs to row i of the other, and to no other row.

As in duplicate questions, or any two encoders trained side by side. The candidates of
an anchor are the positives of all anchors.
"""

from collections.abc import Callable
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import _checks, numerics, reductions, rows, similarities
from metricjax.losses._classification import ClassOptions
from metricjax.reductions import Reduction, Terms


def hard_negatives(
    embeddings: ArrayLike,
    positives: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    margin: ArrayLike = 0.25,
    semi_hard: bool = True,
    reduction: Reduction | None = reductions.sum,
    **options: Unpack[ClassOptions],
) -> Any:
    """Mean-negative plus closest-negative loss on aligned pairs.

    `[mean_neg - s(a, p) + m]_+ + [closest_neg - s(a, p) + m]_+` for each anchor; see
    `mean_negative` and `closest_negative`. The course's assignment has
    `semi_hard=False` and, in its trax form, the mean over anchors.

    Args:
        embeddings: `[batch, dim]`, the anchors; normalised inside.
        positives: `[batch, dim]`, row i belongs to anchor i; normalised inside.
        labels: int `[batch]`; two rows of equal label are no negatives of each other,
            as duplicates in a batch must not be; a negative label leaves a row out. By
            default every row has its own.
        margin: `m`, in units of the cosine; a number or `[batch]`, one per anchor.
        semi_hard: see `closest_negative`. Static.
        reduction: of `Terms` with two parts, mean and closest, which are reduced apart
            and then added. Terms are anchors with a negative; active are those that
            cost something.
        **options: see `ClassOptions`.

    Returns:
        A scalar, or what `reduction` returns; 0 for a batch of one.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, p = jnp.eye(2), jnp.array([[0.6, 0.8], [0.8, 0.6]])
        >>> round(float(hard_negatives(x, p)), 4)
        0.9
        >>> round(float(hard_negatives(x, p, semi_hard=False)), 4)
        1.8

    References:
        Bensouda Mourri, Kaiser and Shyu, "Natural Language Processing with Sequence
        Models" (course), deeplearning.ai 2020, Siamese networks, L1 + L2.
    """
    row = Partial(_both_row, semi_hard=semi_hard)
    return _apply(row, embeddings, positives, labels, margin, reduction, options)


def mean_negative(
    embeddings: ArrayLike,
    positives: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    margin: ArrayLike = 0.25,
    reduction: Reduction | None = reductions.sum,
    **options: Unpack[ClassOptions],
) -> Any:
    """Mean-negative loss on aligned pairs: `[mean_neg - s(a, p) + m]_+`.

    `mean_neg` is the mean similarity of an anchor to the positives of the others. It is
    gentle: no single negative, mislabelled perhaps, decides.

    Args:
        embeddings: `[batch, dim]`, the anchors; normalised inside.
        positives: `[batch, dim]`, row i belongs to anchor i; normalised inside.
        labels: see `hard_negatives`.
        margin: `m`, in units of the cosine; a number or `[batch]`, one per anchor.
        reduction: of `Terms`, whose terms are anchors with a negative; active are those
            that cost something.
        **options: see `ClassOptions`.

    Returns:
        A scalar, or what `reduction` returns; 0 for a batch of one.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, p = jnp.eye(2), jnp.array([[0.6, 0.8], [0.8, 0.6]])
        >>> round(float(mean_negative(x, p)), 4)
        0.9

    References:
        Bensouda Mourri, Kaiser and Shyu, "Natural Language Processing with Sequence
        Models" (course), deeplearning.ai 2020, Siamese networks, L1.
    """
    return _apply(_mean_row, embeddings, positives, labels, margin, reduction, options)


def closest_negative(
    embeddings: ArrayLike,
    positives: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    margin: ArrayLike = 0.25,
    semi_hard: bool = True,
    reduction: Reduction | None = reductions.sum,
    **options: Unpack[ClassOptions],
) -> Any:
    """Closest-negative loss on aligned pairs: `[closest_neg - s(a, p) + m]_+`.

    Args:
        embeddings: `[batch, dim]`, the anchors; normalised inside.
        positives: `[batch, dim]`, row i belongs to anchor i; normalised inside.
        labels: see `hard_negatives`.
        margin: `m`, in units of the cosine; a number or `[batch]`, one per anchor.
        semi_hard: whether `closest_neg` is the most similar negative among those that
            are at most as similar as the positive, and the loss 0 if there is none; or
            the most similar of all. Static.
        reduction: of `Terms`, whose terms are anchors with a negative; active are those
            that cost something.
        **options: see `ClassOptions`.

    Returns:
        A scalar, or what `reduction` returns; 0 for a batch of one.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, p = jnp.eye(2), jnp.array([[0.6, 0.8], [0.8, 0.6]])
        >>> float(closest_negative(x, p))
        0.0
        >>> round(float(closest_negative(x, p, semi_hard=False)), 4)
        0.9

    References:
        Bensouda Mourri, Kaiser and Shyu, "Natural Language Processing with Sequence
        Models" (course), deeplearning.ai 2020, Siamese networks, L2. Semi-hard
        negatives: Schroff et al., "FaceNet", CVPR 2015, arXiv:1503.03832.
    """
    row = Partial(_closest_row, semi_hard=semi_hard)
    return _apply(row, embeddings, positives, labels, margin, reduction, options)


def _apply(
    row: Callable[..., Terms],
    embeddings: ArrayLike,
    positives: ArrayLike,
    labels: ArrayLike | None,
    margin: ArrayLike,
    reduction: Reduction | None,
    options: ClassOptions,
) -> Any:
    """The row loss with the aligned rows of all devices as candidates."""
    _checks.check_embeddings("embeddings", embeddings)
    shape = jnp.shape(embeddings)
    _checks.check_shape("positives", positives, shape, "one positive for each anchor")
    _checks.check_float("positives", positives)
    where, axis_name = options.get("where"), options.get("axis_name")
    own = jnp.arange(shape[0], dtype=jnp.int32)
    if axis_name is not None:
        own += jax.lax.axis_index(axis_name) * shape[0]
    labels = own if labels is None else labels
    _checks.check_labels("labels", labels, shape[0])
    refs = [numerics.mask_rows(positives, where), labels, where]
    if axis_name is not None:
        refs = jax.tree.map(
            lambda x: jax.lax.all_gather(jnp.asarray(x), axis_name, tiled=True), refs
        )
    margin = jnp.asarray(margin, refs[0].dtype)
    return rows.apply(
        row,
        embeddings,
        labels,
        prepare=numerics.l2_normalize,
        measure=similarities.dot,
        reduction=reduction,
        per_anchor=(own, jnp.broadcast_to(margin, shape[:1])),
        ref_embeddings=refs[0],
        ref_labels=refs[1],
        ref_where=refs[2],
        **options,
    )


def _own_similarity(cosine: Array, own: Array) -> Array:
    """Similarity of each anchor to its positive.

    Read from the row, so that a copy of the positive ties with it to the last digit.
    """
    return jnp.take_along_axis(cosine, own[:, None], axis=1)


def _terms(gap: Array, some: Array, exists: Array) -> Terms:
    cost = jnp.where(some, jnp.maximum(gap, 0.0), 0.0)
    active = some & (gap > 0)
    return Terms(cost, exists.astype(gap.dtype), active.astype(gap.dtype))


def _mean_row(
    cosine: Array, positive: Array, negative: Array, anchors: tuple[Array, Array]
) -> Terms:
    del positive
    own, margin = anchors
    count = jnp.sum(negative, axis=1, dtype=cosine.dtype)
    total = jnp.sum(jnp.where(negative, cosine, 0.0), axis=1)
    gap = numerics.divide(total, count) - _own_similarity(cosine, own)[:, 0] + margin
    return _terms(gap, count > 0, count > 0)


def _closest_row(
    cosine: Array,
    positive: Array,
    negative: Array,
    anchors: tuple[Array, Array],
    *,
    semi_hard: bool,
) -> Terms:
    del positive
    own, margin = anchors
    s_ap = _own_similarity(cosine, own)
    allowed = negative & (cosine <= s_ap) if semi_hard else negative
    # Below any cosine, so that an empty row stays finite.
    closest = jnp.max(jnp.where(allowed, cosine, -2.0), axis=1)
    gap = closest - s_ap[:, 0] + margin
    return _terms(gap, jnp.any(allowed, axis=1), jnp.any(negative, axis=1))


def _both_row(
    cosine: Array,
    positive: Array,
    negative: Array,
    anchors: tuple[Array, Array],
    *,
    semi_hard: bool,
) -> Terms:
    parts = (
        _mean_row(cosine, positive, negative, anchors),
        _closest_row(cosine, positive, negative, anchors, semi_hard=semi_hard),
    )
    return Terms(*(jnp.stack(fields, axis=1) for fields in zip(*parts, strict=True)))
