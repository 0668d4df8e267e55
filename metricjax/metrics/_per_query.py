"""All retrieval metrics of each query; public as `retrieval.per_query`."""

import functools
from types import ModuleType
from typing import NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from metricjax import _checks, numerics, similarities
from metricjax.metrics import _ranking
from metricjax.metrics._ranking import Similarity

KS = (1, 2, 4, 8)


class Retrieval(NamedTuple):
    """All retrieval metrics, of each query, of each class, or averaged.

    Each field has a leading axis of queries (from `per_query`) or classes (from
    `per_class`), and none when averaged. The last axis of the `_at_k` fields is `ks`.
    """

    recall_at_k: Array
    precision_at_k: Array
    ndcg_at_k: Array
    ndcg: Array
    r_precision: Array
    map: Array
    map_at_r: Array
    mrr: Array
    queries: Array


class Options(TypedDict, total=False):
    """The keyword arguments of `per_query` that every metric takes."""

    ref_embeddings: ArrayLike | None
    ref_labels: ArrayLike | None
    where: ArrayLike | None
    ref_where: ArrayLike | None
    similarity: Similarity
    block_size: int | None
    max_class_size: int | None


def per_query(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    ks: tuple[int, ...] = KS,
    ref_embeddings: ArrayLike | None = None,
    ref_labels: ArrayLike | None = None,
    where: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    similarity: Similarity = similarities.cosine,
    block_size: int | None = None,
    max_class_size: int | None = None,
) -> Retrieval:
    """All metrics of each query, in one exact pass.

    The relevant items are counted against each other item, one pass per relevant item.
    On a CPU, classes of more than 16 are sorted by NumPy instead, outside `jit` only;
    inside `jit` large classes are as exact and slower.

    Args:
        embeddings: `[batch, dim]`, the queries.
        labels: `[batch]` int; a negative label is in no class.
        ks: the ranks of the `_at_k` metrics.
        ref_embeddings: `[refs, dim]`, what is searched; the queries themselves if None,
            each without itself (by index, so that duplicates of it stay).
        ref_labels: `[refs]` int.
        where: bool `[batch]`, False for rows that are padding.
        ref_where: bool `[refs]`, the same for `ref_embeddings`.
        similarity: `(x [n, dim], y [m, dim]) -> [n, m]`, larger is closer. Cosine by
            default; by Euclidean distance with
            `lambda x, y: -distances.squared_euclidean(x, y)` (define it once: each new
            function is compiled anew).
        block_size: queries compared at once; by default such that a block of
            similarities has about two million entries.
        max_class_size: a bound on the items of one class in what is searched. Needed
            inside `jit` only, where labels have no values. A query with more
            gets NaN.

    Returns:
        A `Retrieval` with a leading axis `[batch]`; 0 where `queries` is 0.

    Raises:
        ValueError: if shapes disagree, or `max_class_size` is missing inside `jit`.
        TypeError: if a dtype is wrong.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> per_query(x, jnp.array([0, 0, 1, 2]), ks=(1,)).recall_at_k[:, 0].tolist()
        [1.0, 1.0, 0.0, 0.0]
    """
    check_sides(embeddings, labels, ref_embeddings, ref_labels, where, ref_where)
    for k in ks:
        _checks.check_positive_int("ks", k, "ranks start at 1")
    alone = ref_embeddings is None
    refs = embeddings if ref_embeddings is None else ref_embeddings
    ref_labels = labels if ref_labels is None else ref_labels
    ref_where = where if alone else ref_where
    ref_where = None if ref_where is None else jnp.asarray(ref_where)
    queries, order, relevant, size = _layout(
        known(labels, where), known(ref_labels, ref_where), alone, max_class_size
    )
    x, refs = numerics.promote(embeddings), numerics.promote(refs)
    tables = _ranking.make_tables(refs.shape[0], jnp.result_type(x, refs))
    sums = _ranking.run(
        queries._replace(embeddings=x),
        _ranking.Candidates(refs, order, ref_where),
        similarity,
        relevant,
        jnp.asarray(ks),
        tables,
        size=size,
        block_size=block_size,
        traced=is_traced(x, refs, ref_where, labels),
    )
    return _divide(sums, relevant, jnp.asarray(ks), tables, size=size)


def is_traced(*arrays: object) -> bool:
    """Whether one of them has no values yet, as inside `jit`."""
    return any(isinstance(x, Tracer) for x in arrays)


def known(labels: ArrayLike, where: ArrayLike | None) -> np.ndarray | Array:
    """The labels, negative where an item does not count; in NumPy if they are values.

    NumPy keeps 64-bit labels apart that would be the same in 32 bits.
    """
    xp: ModuleType = jnp if is_traced(labels, where) else np
    labels = xp.asarray(labels)
    if jnp.issubdtype(labels.dtype, jnp.unsignedinteger):
        labels = labels.astype(xp.promote_types(labels.dtype, xp.int32))
    return labels if where is None else xp.where(xp.asarray(where), labels, -1)


def _layout(
    labels: np.ndarray | Array,
    ref_labels: np.ndarray | Array,
    alone: bool,
    max_class_size: int | None,
) -> tuple[_ranking.Queries, Array, Array, int]:
    """Candidates sorted by label, and where among them the class of each query lies."""
    traced = is_traced(labels, ref_labels)
    xp: ModuleType = jnp if traced else np
    order = xp.argsort(ref_labels)
    ordered = ref_labels[order]
    start = xp.searchsorted(ordered, labels, side="left")
    stop = xp.searchsorted(ordered, labels, side="right")
    stop = xp.where(labels >= 0, stop, start)
    past_the_end = xp.full(labels.shape, ref_labels.shape[0])
    own = xp.argsort(order) if alone else past_the_end
    relevant = stop - start - ((start <= own) & (own < stop)).astype(start.dtype)
    if not traced:
        size = int(max(relevant.max(initial=0), 1))
    elif max_class_size is None:
        raise ValueError(
            "Expected `max_class_size` inside jit, got None; pass the number of items "
            "of the largest class (labels have no values inside jit)."
        )
    else:
        size = max(max_class_size - alone, 1)
    start, stop, own, order, relevant = (
        jnp.asarray(x, jnp.int32) for x in (start, stop, own, order, relevant)
    )
    return _ranking.Queries(start, start, stop, own), order, relevant, size


@functools.partial(jax.jit, static_argnames="size")
def _divide(
    sums: _ranking.Sums,
    relevant: Array,
    ks: Array,
    tables: _ranking.Tables,
    *,
    size: int,
) -> Retrieval:
    dtype = sums.gain.dtype
    mrr, recall_at_k = _ranking.first_hit(sums.first, ks, dtype)
    possible = _ranking.prefix(tables.discount, relevant)
    shown = jnp.minimum(ks[None], relevant[:, None])
    count = relevant.astype(dtype)
    out = Retrieval(
        recall_at_k=recall_at_k,
        precision_at_k=sums.hits / ks.astype(dtype)[None],
        ndcg_at_k=numerics.divide(sums.gains, _ranking.prefix(tables.discount, shown)),
        ndcg=numerics.divide(sums.gain, possible),
        r_precision=numerics.divide(sums.early_hits, count),
        map=numerics.divide(sums.precision, count),
        map_at_r=numerics.divide(sums.early_precision, count),
        mrr=mrr,
        queries=(relevant > 0).astype(dtype),
    )
    # A class larger than the bound was not counted whole: better no value than that.
    cut = relevant > size
    return jax.tree.map(lambda x: jnp.where(column(cut, x), jnp.nan, x), out)


def column(weights: Array, like: Array) -> Array:
    """`weights` with axes of length one up to the rank of `like`."""
    return weights.reshape(weights.shape + (1,) * (like.ndim - weights.ndim))


def check_sides(
    embeddings: ArrayLike,
    labels: ArrayLike,
    ref_embeddings: ArrayLike | None,
    ref_labels: ArrayLike | None,
    where: ArrayLike | None,
    ref_where: ArrayLike | None,
) -> None:
    """Raise unless queries and references are whole and fit each other."""
    _check_side("", embeddings, labels, where)
    if (ref_embeddings is None) != (ref_labels is None):
        raise ValueError(
            "Expected `ref_embeddings` and `ref_labels` together, got one of them; "
            "pass both, or neither to compare the embeddings with each other."
        )
    if ref_embeddings is not None and ref_labels is not None:
        _check_side("ref_", ref_embeddings, ref_labels, ref_where)
        _checks.check_same_dim(
            "embeddings", embeddings, "ref_embeddings", ref_embeddings
        )
    elif ref_where is not None:
        raise ValueError(
            "Expected no `ref_where` without `ref_embeddings`, got one; use `where` "
            "for rows that are padding."
        )


def _check_side(
    prefix: str, embeddings: ArrayLike, labels: ArrayLike, where: ArrayLike | None
) -> None:
    _checks.check_embeddings(f"{prefix}embeddings", embeddings)
    rows = jnp.shape(embeddings)[0]
    if not rows:
        raise ValueError(
            f"Expected at least one row in `{prefix}embeddings`, got "
            f"{_checks.describe(embeddings)}."
        )
    _checks.check_labels(f"{prefix}labels", labels, rows)
    if where is not None:
        _checks.check_mask(f"{prefix}where", where, (rows,))
