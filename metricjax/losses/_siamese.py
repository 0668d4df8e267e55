"""Siamese losses: a head says whether two items match, and is trained to be right."""

from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import _checks, heads, numerics, reductions, rows
from metricjax.pairs import Pairs
from metricjax.reductions import Reduction, Terms


def siamese(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    head: heads.PairHead,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Any:
    """Binary cross-entropy of a pair head over all pairs of a batch.

    `-log sigmoid(z)` for positives, `-log(1 - sigmoid(z))` for negatives, where `z` is
    the head's logit. Negatives are many more, so the two are averaged apart: twice the
    cross-entropy on as many positive as negative pairs, which is how Koch draws them.
    Time is `batch^2` times that of a pair; memory a block of rows, and `batch * dim`.

    Args:
        embeddings: `[batch, dim]`; what the head makes of them.
        labels: int `[batch]`, or `Pairs` `[batch, n]`.
        head: `(x [n, dim], y [n, dim]) -> logits [n]`, symmetric: for instance
            `Partial(heads.weighted_l1_logits, params=params)`, with
            `jax.tree_util.Partial`, so that the parameters get their gradient.
        reduction: of `Terms` with two parts, positives and negatives, which are
            averaged apart and then added. Terms are pairs; active are those on the
            wrong side of zero, so that active over count is the error rate.
        **options: see `rows.Options`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> params = heads.WeightedL1(jnp.array([-1.0]), jnp.array(1.0))
        >>> head = Partial(heads.weighted_l1_logits, params=params)
        >>> x, y = jnp.array([[0.0], [0.5], [3.0]]), jnp.array([0, 0, 1])
        >>> round(float(siamese(x, y, head=head)), 4)
        0.6382

    References:
        Koch, Zemel and Salakhutdinov, "Siamese Neural Networks for One-shot Image
        Recognition", ICML Deep Learning Workshop 2015, section 3.2.
    """
    return rows.apply(
        rows.Fold(_siamese_row),
        embeddings,
        labels,
        measure=Partial(heads.pairwise, head=head),
        reduction=reduction,
        **options,
    )


def siamese_pairs(
    embeddings: ArrayLike,
    other_embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    head: heads.PairHead,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction | None = reductions.mean,
    axis_name: rows.Axis | None = None,
) -> Any:
    """Binary cross-entropy of a pair head over given pairs.

    `-log sigmoid(z)` where the label is 1, `-log(1 - sigmoid(z))` where it is 0.

    Args:
        embeddings: `[batch, dim]`, one item of each pair.
        other_embeddings: `[batch, dim]`, the other.
        labels: int `[batch]`: 1 for a match, 0 for none; another value is no pair.
        head: see `siamese`.
        where: bool `[batch]`; False marks padding.
        weights: float `[batch]`; importance of each pair, a constant.
        reduction: of `Terms`, whose terms are pairs; active are those on the wrong side
            of zero, so that active over count is the error rate.
        axis_name: inside `jax.shard_map`, the mesh axis over which the batch is
            sharded.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> params = heads.WeightedL1(jnp.array([-1.0]), jnp.array(1.0))
        >>> head = Partial(heads.weighted_l1_logits, params=params)
        >>> x, y, same = jnp.array([[0.0]]), jnp.array([[0.5]]), jnp.array([1])
        >>> round(float(siamese_pairs(x, y, same, head=head)), 4)
        0.4741

    References:
        Koch, Zemel and Salakhutdinov, "Siamese Neural Networks for One-shot Image
        Recognition", ICML Deep Learning Workshop 2015, section 3.2.
    """
    _checks.check_embeddings("embeddings", embeddings)
    shape = jnp.shape(embeddings)
    _checks.check_shape("other_embeddings", other_embeddings, shape, "one for each row")
    _checks.check_labels("labels", labels, shape[0])
    labels = jnp.asarray(labels)
    sides = [numerics.mask_rows(x, where) for x in (embeddings, other_embeddings)]
    positive, negative = (
        known if where is None else known & jnp.asarray(where)
        for known in (labels == 1, labels == 0)
    )
    row = _cross_entropy(head(*sides), positive, negative)
    terms = Terms(*(jnp.sum(x, axis=1) for x in row))
    if weights is not None:
        _checks.check_shape("weights", weights, shape[:1], "one weight for each pair")
        weights = jax.lax.stop_gradient(numerics.promote(weights))
        terms = Terms(*(x * weights for x in terms))
    return rows.reduce(terms, reduction, axis_name=axis_name)


def _siamese_row(logits: Array, positive: Array, negative: Array) -> Terms:
    """Parts `[b, 2]`, summed over the candidates."""
    each = _cross_entropy(logits, positive, negative)
    return Terms(*(jnp.sum(x, axis=1) for x in each))


def _cross_entropy(logits: Array, positive: Array, negative: Array) -> Terms:
    """Cost, count and mistakes of each pair, positives and negatives on a last axis."""
    masks = jnp.stack([positive, negative], axis=-1)
    logits = jnp.stack([logits, -logits], axis=-1)
    return Terms(
        jnp.where(masks, jax.nn.softplus(-logits), 0.0),
        masks.astype(logits.dtype),
        (masks & (logits <= 0)).astype(logits.dtype),
    )
