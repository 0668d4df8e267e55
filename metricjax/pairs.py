"""Which candidates are positives and which are negatives of an anchor.

Pair losses take, in the place of `labels`, class indices or `Pairs` masks that you made
yourself: several labels per item, relevance judgements, known duplicates.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from metricjax import _checks

__all__ = [
    "Items",
    "Pairs",
    "Triplets",
    "between",
    "from_labels",
    "shares_label",
    "view_labels",
    "without_false_negatives",
]


class Pairs(NamedTuple):
    """Masks of anchors against candidates.

    Attributes:
        positive: bool `[batch, n]`, True where the candidate should be close.
        negative: bool `[batch, n]`, True where it should be far. A candidate may be
            neither; it must not be both.
    """

    positive: Array
    negative: Array


class Triplets(NamedTuple):
    """A fixed number `k` of triplets for each anchor; the anchor is the row.

    Attributes:
        positive: int32 `[batch, k]`, index of a candidate.
        negative: int32 `[batch, k]`, index of a candidate.
        valid: bool `[batch, k]`; where False the indices mean nothing (they are 0).
    """

    positive: Array
    negative: Array
    valid: Array


class Items(NamedTuple):
    """What decides which pairs exist; one entry for each row of embeddings.

    Attributes:
        labels: int `[rows]`; a negative label is in no pair.
        where: bool `[rows]`; False marks padding, which is in no pair.
        ids: int `[rows]`; two rows of equal id are one item, which is no pair. None if
            no row of one side can be a row of the other.
    """

    labels: Array
    where: Array
    ids: Array | None = None


def between(anchors: Items, candidates: Items) -> Pairs:
    """Masks from the labels of both sides.

    Args:
        anchors: items `[batch]`.
        candidates: items `[n]`.

    Returns:
        `Pairs` of bool `[batch, n]`.

    Example:
        >>> anchors = Items(jnp.array([0]), jnp.array([True]))
        >>> others = Items(jnp.array([0, 1, -1]), jnp.array([True, True, True]))
        >>> between(anchors, others).negative.tolist()
        [[False, True, False]]
    """
    same = anchors.labels[:, None] == candidates.labels[None, :]
    usable = allowed(
        anchors._replace(where=anchors.where & (anchors.labels >= 0)),
        candidates._replace(where=candidates.where & (candidates.labels >= 0)),
    )
    return Pairs(same & usable, ~same & usable)


def allowed(anchors: Items, candidates: Items) -> Array:
    """Bool `[batch, n]`: neither row is padding, and they are not one item."""
    usable = anchors.where[:, None] & candidates.where[None, :]
    if anchors.ids is None or candidates.ids is None:
        return usable
    return usable & (anchors.ids[:, None] != candidates.ids[None, :])


def from_labels(
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
    ref_labels: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    ref_ids: ArrayLike | None = None,
) -> Pairs:
    """All positive and negative pairs of a batch, as masks.

    Losses need no such `[batch, n]` masks, they build them block by block; this is for
    mining or counting by hand.

    Args:
        labels: int `[batch]`; a negative label is in no pair.
        where: bool `[batch]`, False for padding.
        ref_labels: int `[n]` of other candidates; by default the batch itself, where
            no row is paired with itself.
        ref_where: bool `[n]`, False for padding.
        ids: int `[batch]`; rows of equal id are one item, which is no pair.
        ref_ids: int `[n]`, likewise; needed only where the candidates hold rows of the
            batch, as a queue may.

    Returns:
        `Pairs` of bool `[batch, n]`.

    Raises:
        ValueError: if shapes disagree, with one-hot labels among them.
        TypeError: if labels are not integers or masks not bool.

    Example:
        >>> from_labels(jnp.array([0, 0, 1])).positive.tolist()
        [[False, True, False], [True, False, False], [False, False, False]]
    """
    rows = jnp.shape(labels)[0] if jnp.ndim(labels) else 0
    anchors = items("", labels, where, ids, rows=rows)
    if ref_labels is None:
        candidates = anchors = with_ids(anchors)
    else:
        rows = jnp.shape(ref_labels)[0] if jnp.ndim(ref_labels) else 0
        candidates = items("ref_", ref_labels, ref_where, ref_ids, rows=rows)
    return between(anchors, candidates)


def items(
    prefix: str,
    labels: ArrayLike,
    where: ArrayLike | None,
    ids: ArrayLike | None,
    *,
    rows: int,
) -> Items:
    """Checked `Items`; `prefix` is that of the argument names, for messages."""
    _checks.check_labels(f"{prefix}labels", labels, rows)
    if ids is not None:
        _checks.check_labels(f"{prefix}ids", ids, rows)
        ids = jnp.asarray(ids)
    if where is not None:
        _checks.check_mask(f"{prefix}where", where, (rows,))
    where = jnp.ones(rows, bool) if where is None else jnp.asarray(where)
    return Items(jnp.asarray(labels), where, ids)


def with_ids(items: Items) -> Items:
    """The items with their position as id, unless they have ids."""
    if items.ids is not None:
        return items
    return items._replace(ids=jnp.arange(items.labels.shape[0], dtype=jnp.int32))


def shares_label(multi_hot: ArrayLike, ref_multi_hot: ArrayLike | None = None) -> Pairs:
    """Masks for items of several labels: positive if they share one, else negative.

    An item without a label is in no pair.

    Args:
        multi_hot: bool or 0/1 `[batch, labels]`.
        ref_multi_hot: `[n, labels]` of other candidates; by default the batch.

    Returns:
        `Pairs` of bool `[batch, n]`, to pass in the place of labels.

    Raises:
        ValueError: if an argument is not a matrix, or the numbers of labels differ.

    Example:
        >>> tags = jnp.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]], bool)
        >>> shares_label(tags).negative.tolist()
        [[False, False, True], [False, False, True], [True, True, False]]
    """
    ref = multi_hot if ref_multi_hot is None else ref_multi_hot
    for name, x in (("multi_hot", multi_hot), ("ref_multi_hot", ref)):
        if jnp.ndim(x) != 2:
            raise ValueError(
                f"Expected `{name}` of shape [rows, labels], got "
                f"{_checks.describe(x)}; for one label per item pass class indices."
            )
    _checks.check_same_dim("multi_hot", multi_hot, "ref_multi_hot", ref)
    x = jnp.asarray(multi_hot).astype(bool).astype(jnp.float32)
    y = jnp.asarray(ref).astype(bool).astype(jnp.float32)
    shares = x @ y.T > 0.5
    labelled = (x.sum(axis=1) > 0)[:, None] & (y.sum(axis=1) > 0)[None, :]
    if ref_multi_hot is None:
        labelled = labelled & ~jnp.eye(x.shape[0], dtype=bool)
    return Pairs(shares & labelled, ~shares & labelled)


def view_labels(items: int, views: int) -> Array:
    """Labels of stacked views: row `v * items + i` is view `v` of item `i`.

    For embeddings `[views, items, dim]` that were reshaped to `[views * items, dim]`:
    the views of an item are each other's positives, all else is negative.

    Args:
        items: number of items.
        views: number of views of each.

    Returns:
        int32 `[views * items]`, to pass in the place of labels.

    Raises:
        ValueError: if a number is not a positive integer.

    Example:
        >>> view_labels(3, 2).tolist()
        [0, 1, 2, 0, 1, 2]
    """
    _checks.check_positive_int("items", items, "pass the size of the batch")
    _checks.check_positive_int("views", views, "pass the number of views of an item")
    return jnp.tile(jnp.arange(items, dtype=jnp.int32), views)


def without_false_negatives(
    pairs: Pairs, guide: ArrayLike, *, margin: ArrayLike = 0.0
) -> Pairs:
    """The pairs without the negatives that a guide takes for positives.

    A negative is dropped if it is more similar to the anchor, in the eyes of another
    model, than the anchor's most similar positive, less a margin. The result goes in
    the place of labels to any pair loss, or through further masks. An anchor without
    positives keeps its negatives.

    Args:
        pairs: masks `[batch, n]`, for instance of `from_labels`.
        guide: similarities `[batch, n]` by the guide, larger is closer.
        margin: in units of the similarity; the larger, the more is dropped.

    Returns:
        `Pairs` of bool `[batch, n]`.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if the guide is not floating.

    Example:
        >>> pairs = from_labels(jnp.array([0, 0, 1, 2]))
        >>> guide = jnp.array([[1, .5, .9, .1]] * 4)
        >>> without_false_negatives(pairs, guide).negative[0].tolist()
        [False, False, False, True]

    References:
        Solatorio, "GISTEmbed: Guided In-sample Selection of Training Negatives for Text
        Embedding Fine-tuning", 2024, arXiv:2402.16829.
    """
    shape = jnp.shape(pairs.positive)
    _checks.check_shape("guide", guide, shape, "one similarity for each pair")
    _checks.check_float("guide", guide)
    guide = jnp.asarray(guide)
    near = jnp.where(pairs.positive, guide, -jnp.inf)
    limit = jnp.max(near, axis=-1, keepdims=True)
    limit = jnp.where(jnp.isfinite(limit), limit, jnp.inf)
    return pairs._replace(negative=pairs.negative & (guide <= limit - margin))
