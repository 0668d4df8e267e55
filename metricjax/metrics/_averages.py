"""Averages of retrieval metrics and their confidence; public in `retrieval`."""

from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from metricjax import _checks, numerics
from metricjax.metrics._per_query import Retrieval, column, is_traced, known


class Interval(NamedTuple):
    """The two ends of a confidence interval, for every field of `Retrieval`."""

    low: Retrieval
    high: Retrieval


def mean(values: Retrieval) -> Retrieval:
    """The average over queries, each counting the same (micro average).

    Args:
        values: of each query, from `per_query`.

    Returns:
        The averages; NaN if there is no valid query. `queries` is their number.

    Example:
        >>> from metricjax.metrics.retrieval import per_query
        >>> x = jnp.eye(3)
        >>> float(mean(per_query(x, jnp.array([0, 0, 1]))).r_precision)
        0.5
    """
    return _average(values, values.queries)


def class_mean(values: Retrieval, labels: ArrayLike) -> Retrieval:
    """The average over classes of the average over their queries (macro average).

    Args:
        values: of each query, from `per_query`.
        labels: `[batch]` int, of the queries.

    Returns:
        The averages; NaN if there is no valid query. `queries` is their number.

    Raises:
        ValueError: if `labels` has another length than `values`.

    Example:
        >>> from metricjax.metrics.retrieval import per_query
        >>> x = jnp.array([[1.0, 0], [1.0, 0], [1.0, 0], [0, 1.0], [0.9, 1.0]])
        >>> labels = jnp.array([0, 0, 0, 1, 1])
        >>> float(class_mean(per_query(x, labels), labels).r_precision)
        1.0
    """
    _checks.check_labels("labels", labels, values.queries.shape[0])
    labels = known(labels, None)
    xp: ModuleType = jnp if is_traced(labels) else np
    order = xp.argsort(labels)
    start = xp.searchsorted(labels[order], labels, side="left")
    stop = xp.searchsorted(labels[order], labels, side="right")
    before = jnp.cumsum(values.queries[order])
    before = jnp.concatenate([jnp.zeros(1, before.dtype), before])
    weights = numerics.divide(values.queries, before[stop] - before[start])
    return _average(values, weights)


def _average(values: Retrieval, weights: Array) -> Retrieval:
    total = jnp.sum(weights)

    def average(x: Array) -> Array:
        return jnp.sum(x * column(weights, x), axis=0) / total

    return Retrieval(*map(average, values[:-1]), queries=jnp.sum(values.queries))


def per_class(values: Retrieval, labels: ArrayLike) -> tuple[np.ndarray, Retrieval]:
    """The average over the queries of each class; on the host.

    Args:
        values: of each query, from `per_query`.
        labels: `[batch]` int, of the queries.

    Returns:
        The labels that have a valid query, ascending, `[classes]`; and a `Retrieval`
        of NumPy arrays with a leading axis `[classes]`.

    Raises:
        ValueError: if `labels` has another length than `values`.

    Example:
        >>> from metricjax.metrics.retrieval import per_query
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0], [1.0, 0.0]])
        >>> classes, result = per_class(per_query(x, jnp.array([3, 3, 5, 5, 9])),
        ...                             jnp.array([3, 3, 5, 5, 9]))
        >>> classes.tolist(), result.queries.tolist()
        ([3, 5], [2.0, 2.0])
    """
    classes, sums = _class_sums(values, labels)
    counts = sums.queries
    averages = [x / counts.reshape(-1, *[1] * (x.ndim - 1)) for x in sums[:-1]]
    return classes, Retrieval(*averages, queries=counts)


def _class_sums(values: Retrieval, labels: ArrayLike) -> tuple[np.ndarray, Retrieval]:
    """Sums over the valid queries of each class that has one, in float64."""
    _checks.check_labels("labels", labels, values.queries.shape[0])
    valid = np.asarray(values.queries) > 0
    classes, places = np.unique(np.asarray(labels)[valid], return_inverse=True)

    def total(x: Array) -> np.ndarray:
        out = np.zeros((len(classes), *x.shape[1:]))
        np.add.at(out, places, np.asarray(x, np.float64)[valid])
        return out

    return classes, jax.tree.map(total, values)


def bootstrap(
    values: Retrieval,
    labels: ArrayLike,
    *,
    seed: int,
    samples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Confidence interval of the averages, by drawing classes anew; on the host.

    Queries of one class share their relevant items, so that drawing queries would give
    intervals that are too narrow: whole classes are drawn, with replacement, and the
    percentiles of the averages over their queries are returned. The result speaks of
    other classes of the same kind.

    Args:
        values: of each query, from `per_query`.
        labels: `[batch]` int, of the queries.
        seed: of the draws; the same seed gives the same interval.
        samples: the number of draws.
        level: the coverage of the interval.

    Returns:
        The lower and the upper ends; NumPy, without a leading axis.

    Raises:
        ValueError: if no class has a valid query, or `level` is not in (0, 1).

    Example:
        >>> from metricjax.metrics.retrieval import per_query
        >>> x = jax.random.normal(jax.random.key(0), (60, 4))
        >>> labels = jnp.arange(60) % 20
        >>> low, high = bootstrap(per_query(x, labels), labels, seed=0)
        >>> bool(low.map < high.map)
        True

    References:
        Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    if not 0 < level < 1:
        raise ValueError(f"Expected `level` in (0, 1), got {level}; 0.95 is usual.")
    classes, sums = _class_sums(values, labels)
    if not len(classes):
        raise ValueError(
            "Expected a class with at least two items, got none; "
            "without a relevant item there is no value to resample."
        )
    generator = np.random.default_rng(seed)
    draws = [_draw(generator, sums) for _ in range(samples)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *draws)
    tails = [50 * (1 - level), 50 * (1 + level)]
    ends = [
        jax.tree.map(lambda x, q=q: np.percentile(x, q, axis=0), stacked) for q in tails
    ]
    return Interval(*ends)


def _draw(generator: np.random.Generator, sums: Retrieval) -> Retrieval:
    size = len(sums.queries)
    weights = np.bincount(generator.integers(size, size=size), minlength=size)
    totals = jax.tree.map(lambda x: np.tensordot(weights, x, axes=1), sums)
    averages = [x / totals.queries for x in totals[:-1]]
    return Retrieval(*averages, queries=totals.queries)
