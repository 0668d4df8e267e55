"""Retrieval: does a query find the items of its own class first?

Every item is a query against all others (or against a separate reference set), and
items of its class are relevant. All metrics come from one exact pass, in blocks of
queries, so that memory is `block_size * N` and never `[N, N]`:

- Recall@k: the share of queries with at least one relevant item among the first k
  (also called hit rate; Recall@1 is Precision@1, nearest-neighbour accuracy);
- Precision@k: relevant items among the first k, divided by k;
- R-precision: relevant items among the first R, divided by R, where R is the number of
  relevant items that exist for the query;
- MAP@R: `(1/R) sum_{i<=R} precision(i) [item i is relevant]`;
- MAP: the same over the whole ranking; MRR: one over the rank of the first relevant
  item; nDCG: gain `1 / log2(1 + rank)`, divided by that of a perfect ranking.

**Ties** count as their mean over all orders of the tied items. It is the one rule that
neither depends on the order of the data nor favours anyone: an encoder that maps all
images to one point scores exactly chance, and a duplicate image costs half. (Stable
sorting lets the order of the files decide; the worst order would punish short codes,
which tie by nature.) Similarities that are NaN tie below all others.

**Queries without a relevant item** (the only image of its class, a negative label, a
padded row) are skipped: `queries` counts those that remain, and a mean over none of
them is NaN.

    per_query = retrieval.per_query(embeddings, labels)
    retrieval.mean(per_query)                 # micro: each query counts the same
    retrieval.class_mean(per_query, labels)   # macro: each class counts the same
    retrieval.bootstrap(per_query, labels, seed=0)

References:
    Musgrave, Belongie & Lim, "A Metric Learning Reality Check", ECCV 2020,
    arXiv:2003.08505 (R-precision, MAP@R). McSherry & Najork, "Computing Information
    Retrieval Performance Measures Efficiently in the Presence of Tied Scores", ECIR
    2008. Jarvelin & Kekalainen, "Cumulated Gain-Based Evaluation of IR Techniques",
    ACM TOIS 2002 (nDCG).
"""

from typing import Unpack

from jax import Array
from jax.typing import ArrayLike

from metricjax import _checks
from metricjax.metrics._averages import (
    Interval,
    bootstrap,
    class_mean,
    mean,
    per_class,
)
from metricjax.metrics._nearest import Neighbors, nearest
from metricjax.metrics._per_query import KS, Options, Retrieval, per_query

__all__ = [
    "Interval",
    "Neighbors",
    "Options",
    "Retrieval",
    "bootstrap",
    "class_mean",
    "cmc",
    "evaluate",
    "map_at_r",
    "mean",
    "mean_average_precision",
    "mean_reciprocal_rank",
    "ndcg",
    "nearest",
    "per_class",
    "per_query",
    "precision_at_k",
    "r_precision",
    "recall_at_k",
]


def evaluate(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    ks: tuple[int, ...] = KS,
    **options: Unpack[Options],
) -> Retrieval:
    """All retrieval metrics, averaged over the queries.

    Args:
        embeddings: `[batch, dim]`, the queries.
        labels: `[batch]` int; a negative label is in no class.
        ks: the ranks of the `_at_k` metrics.
        **options: as in `per_query`.

    Returns:
        A `Retrieval` of averages; `queries` is the number of queries they are over.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> result = evaluate(x, jnp.array([0, 0, 1, 2]), ks=(1, 2))
        >>> result.recall_at_k.tolist(), float(result.queries)
        ([1.0, 1.0], 2.0)
    """
    return mean(per_query(embeddings, labels, ks=ks, **options))


def recall_at_k(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    ks: tuple[int, ...] = KS,
    **options: Unpack[Options],
) -> Array:
    """Recall@k: the share of queries with a relevant item among their first k.

    Recall@1 is nearest-neighbour accuracy. (Not the share of the relevant items that
    are found, which information retrieval calls recall.)

    Args:
        embeddings: `[batch, dim]`, the queries.
        labels: `[batch]` int; a negative label is in no class.
        ks: the ranks.
        **options: as in `per_query`.

    Returns:
        `[len(ks)]`, averaged over the queries.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [1.0, 0.5]])
        >>> recall_at_k(x, jnp.array([0, 0, 1, 1]), ks=(1, 3)).tolist()
        [0.75, 1.0]

    References:
        Song et al., "Deep Metric Learning via Lifted Structured Feature Embedding",
        CVPR 2016, arXiv:1511.06452, section 5.
    """
    return evaluate(embeddings, labels, ks=ks, **options).recall_at_k


def precision_at_k(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    ks: tuple[int, ...] = KS,
    **options: Unpack[Options],
) -> Array:
    """Precision@k: relevant items among the first k, divided by k.

    Args:
        embeddings: `[batch, dim]`, the queries.
        labels: `[batch]` int; a negative label is in no class.
        ks: the ranks.
        **options: as in `per_query`.

    Returns:
        `[len(ks)]`, averaged over the queries; at most `R / k`.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [1.0, 0.5]])
        >>> precision_at_k(x, jnp.array([0, 0, 1, 1]), ks=(1, 2)).tolist()
        [0.75, 0.375]
    """
    return evaluate(embeddings, labels, ks=ks, **options).precision_at_k


def cmc(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    max_rank: int = 50,
    **options: Unpack[Options],
) -> Array:
    """Cumulative match characteristic over items: Recall@1, ..., Recall@max_rank.

    Ranks count items, several to a class. For ranks of identities, as in face
    recognition, use `identification.cmc`.

    Args:
        embeddings: `[batch, dim]`, the queries (probes).
        labels: `[batch]` int; a negative label is in no class.
        max_rank: the last rank.
        **options: as in `per_query`.

    Returns:
        `[max_rank]`, rising.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [1.0, 0.5]])
        >>> cmc(x, jnp.array([0, 0, 1, 1]), max_rank=3).tolist()
        [0.75, 0.75, 1.0]
    """
    _checks.check_positive_int("max_rank", max_rank, "ranks start at 1")
    return recall_at_k(embeddings, labels, ks=tuple(range(1, max_rank + 1)), **options)


def r_precision(
    embeddings: ArrayLike, labels: ArrayLike, **options: Unpack[Options]
) -> Array:
    """R-precision: relevant items among the first R, divided by R.

    R is the number of relevant items of the query, whatever it is.

    Args:
        embeddings: `[batch, dim]`, the queries.
        labels: `[batch]` int; a negative label is in no class.
        **options: as in `per_query`.

    Returns:
        A scalar, averaged over the queries.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [1.0, 0.5]])
        >>> float(r_precision(x, jnp.array([0, 0, 1, 1])))
        0.75

    References:
        Musgrave, Belongie & Lim, ECCV 2020, arXiv:2003.08505, section 2.
    """
    return evaluate(embeddings, labels, **options).r_precision


def map_at_r(
    embeddings: ArrayLike, labels: ArrayLike, **options: Unpack[Options]
) -> Array:
    """MAP@R: `(1/R) sum_{i<=R} precision(i) [item i is relevant]`.

    Divided by R, not by the number of hits.

    Args:
        embeddings: `[batch, dim]`, the queries.
        labels: `[batch]` int; a negative label is in no class.
        **options: as in `per_query`.

    Returns:
        A scalar, averaged over the queries.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [1.0, 0.5]])
        >>> float(map_at_r(x, jnp.array([0, 0, 1, 1])))
        0.75

    References:
        Musgrave, Belongie & Lim, ECCV 2020, arXiv:2003.08505, section 2.
    """
    return evaluate(embeddings, labels, **options).map_at_r


def mean_average_precision(
    embeddings: ArrayLike, labels: ArrayLike, **options: Unpack[Options]
) -> Array:
    """MAP: the mean over relevant items of the precision at their rank.

    Over the whole ranking; the mean over queries of average precision.

    Args:
        embeddings: `[batch, dim]`, the queries.
        labels: `[batch]` int; a negative label is in no class.
        **options: as in `per_query`.

    Returns:
        A scalar, averaged over the queries.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [1.0, 0.5]])
        >>> round(float(mean_average_precision(x, jnp.array([0, 0, 1, 1]))), 4)
        0.8333
    """
    return evaluate(embeddings, labels, **options).map


def mean_reciprocal_rank(
    embeddings: ArrayLike, labels: ArrayLike, **options: Unpack[Options]
) -> Array:
    """MRR: one over the rank of the first relevant item.

    Args:
        embeddings: `[batch, dim]`, the queries.
        labels: `[batch]` int; a negative label is in no class.
        **options: as in `per_query`.

    Returns:
        A scalar, averaged over the queries.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [1.0, 0.5]])
        >>> round(float(mean_reciprocal_rank(x, jnp.array([0, 0, 1, 1]))), 4)
        0.8333
    """
    return evaluate(embeddings, labels, **options).mrr


def ndcg(embeddings: ArrayLike, labels: ArrayLike, **options: Unpack[Options]) -> Array:
    """Normalised discounted cumulative gain of the whole ranking.

    `sum_i 1 / log2(1 + rank_i)` over the relevant items, divided by the same of a
    perfect ranking. Cut at k it is the field `ndcg_at_k` of `evaluate`.

    Args:
        embeddings: `[batch, dim]`, the queries.
        labels: `[batch]` int; a negative label is in no class.
        **options: as in `per_query`.

    Returns:
        A scalar, averaged over the queries.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [1.0, 0.5]])
        >>> round(float(ndcg(x, jnp.array([0, 0, 1, 1]))), 4)
        0.875

    References:
        Jarvelin & Kekalainen, "Cumulated Gain-Based Evaluation of IR Techniques", ACM
        TOIS 2002.
    """
    return evaluate(embeddings, labels, **options).ndcg
