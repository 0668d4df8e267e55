"""Classes by the mean of their items; public in `identification`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from metricjax import _checks, numerics, similarities
from metricjax.metrics._per_query import per_query


class OpenSetAccuracy(NamedTuple):
    """How pure the items nearest to each class mean are."""

    accuracy: Array  # scalar
    per_class: Array  # [classes], share of the class's n nearest items that are its own
    classes: np.ndarray  # [classes], their labels, ascending
    counts: np.ndarray  # [classes], items n of each class


def class_means(embeddings: ArrayLike, labels: ArrayLike, *, num_classes: int) -> Array:
    """The mean of the unit vectors of each class.

    `mu_c = (1/n_c) sum_{y_i = c} x_i / ||x_i||`, not normalised again.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        labels: `[batch]` int in [0, num_classes); others are in no class.
        num_classes: static under `jit`.

    Returns:
        `[num_classes, dim]`; zeros for a class without items.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x = jnp.array([[2.0, 0.0], [0.0, 3.0], [0.0, 1.0]])
        >>> class_means(x, jnp.array([0, 0, 1]), num_classes=2).tolist()
        [[0.5, 0.5], [0.0, 1.0]]
    """
    _checks.check_embeddings("embeddings", embeddings)
    _checks.check_labels("labels", labels, jnp.shape(embeddings)[0])
    x, labels = numerics.l2_normalize(embeddings), jnp.asarray(labels)
    # A negative index would wrap around; one past the end is dropped.
    labels = jnp.where(labels < 0, num_classes, labels)
    sums = jax.ops.segment_sum(x, labels, num_classes)
    counts = jax.ops.segment_sum(jnp.ones(len(x), x.dtype), labels, num_classes)
    return numerics.divide(sums, counts[:, None])


def class_similarities(
    embeddings: ArrayLike, labels: ArrayLike, *, num_classes: int
) -> Array:
    """Cosine of each class mean to every item.

    Args:
        embeddings: `[batch, dim]`.
        labels: `[batch]` int in [0, num_classes); others are in no class.
        num_classes: static under `jit`.

    Returns:
        `[num_classes, batch]`, whole in memory.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> class_similarities(x, jnp.array([0, 1]), num_classes=2).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    means = class_means(embeddings, labels, num_classes=num_classes)
    return similarities.cosine(means, embeddings)


def open_set_accuracy(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    leave_one_out: bool = False,
    block_size: int | None = None,
) -> OpenSetAccuracy:
    """Share of the items nearest to each class mean that belong to the class.

    All items are ranked by their cosine to the mean of class c; of the first n_c, as
    many as the class has, those of class c are hits: `sum_c hits_c / sum_c n_c`. It is
    the R-precision of class means as queries. An item may be claimed by several classes
    or by none, and nothing is rejected.

    The mean of a class holds the very items that are then looked for, which flatters,
    the more the smaller the class: a class of one item is always right. With
    `leave_one_out` an item is compared with the mean of the others of its class, and
    classes of one item are left out. Ties count as their mean over all orders.

    Args:
        embeddings: `[batch, dim]`; cosine is used.
        labels: `[batch]` int, values even inside `jit`; a negative label is in no
            class, but its item is ranked.
        leave_one_out: whether an item is taken out of the mean that it is compared to.
        block_size: classes compared at once.

    Returns:
        An `OpenSetAccuracy`, classes in ascending order of label.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, labels = jnp.eye(4), jnp.array([0, 0, 1, 1])
        >>> float(open_set_accuracy(x, labels).accuracy)
        1.0
        >>> float(open_set_accuracy(x, labels, leave_one_out=True).accuracy)
        0.5
    """
    _checks.check_embeddings("embeddings", embeddings)
    _checks.check_labels("labels", labels, jnp.shape(embeddings)[0])
    values, places, counts = np.unique(
        np.asarray(labels), return_inverse=True, return_counts=True
    )
    unknown = int(np.count_nonzero(values < 0))
    classes, counts, places = values[unknown:], counts[unknown:], places - unknown
    x = numerics.l2_normalize(embeddings)
    means = class_means(x, places, num_classes=len(classes))
    own = _left_out(x, means, places, counts)
    numbers = np.arange(len(classes))
    kept = counts > 1 if leave_one_out else counts > 0
    result = per_query(
        _marked(means, numbers, jnp.zeros(len(means), x.dtype)),
        numbers,
        where=kept,
        ref_embeddings=_marked(x, places, own),
        ref_labels=places,
        similarity=_without_itself if leave_one_out else _to_mean,
        block_size=block_size,
    )
    weights = jnp.asarray(np.where(kept, counts, 0), x.dtype)
    per_class = jnp.where(kept, result.r_precision, jnp.nan)
    accuracy = jnp.sum(result.r_precision * weights) / jnp.sum(weights)
    return OpenSetAccuracy(accuracy, per_class, classes, counts)


def _left_out(x: Array, means: Array, places: np.ndarray, counts: np.ndarray) -> Array:
    """Cosine of each item to the mean of the others of its class."""
    known = np.maximum(places, 0)
    sums = means[known] * jnp.asarray(counts[known], x.dtype)[:, None]
    return jnp.sum(numerics.l2_normalize(sums - x) * x, axis=1)


def _marked(x: Array, places: ArrayLike, own: Array) -> Array:
    """Rows with two more columns: the number of the class, and `_left_out`."""
    places = jnp.asarray(places).astype(x.dtype)  # exact to 16 million classes
    return jnp.concatenate([x, places[:, None], own[:, None]], axis=1)


def _to_mean(means: Array, items: Array) -> Array:
    return similarities.cosine(means[:, :-2], items[:, :-2])


def _without_itself(means: Array, items: Array) -> Array:
    same_class = means[:, -2:-1] == items[None, :, -2]
    return jnp.where(same_class, items[None, :, -1], _to_mean(means, items))
