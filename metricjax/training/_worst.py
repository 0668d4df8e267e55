"""The pairs that an encoder gets most wrong."""

from typing import NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial

from metricjax.training.evaluate import Similarity

_BLOCK = 256
# Of each block so many are looked at, of which one of each pair of classes is kept.
_KEPT = 256


class Worst(NamedTuple):
    """Pairs of images, the worst first.

    Attributes:
        first: `[k]` int, rows of the images.
        second: `[k]` int.
        similarities: `[k]`.
    """

    first: np.ndarray
    second: np.ndarray
    similarities: np.ndarray


def worst_pairs(
    embeddings: np.ndarray,
    labels: np.ndarray,
    *,
    similarity: Similarity,
    count: int = 8,
) -> tuple[Worst, Worst]:
    """The most similar pairs of two classes, and the least similar of one.

    Of each two classes, and of each class, the worst pair alone is taken, so that one
    bad image does not fill the list.

    Args:
        embeddings: `[n, dim]`.
        labels: `[n]` int.
        similarity: larger is closer.
        count: how many of each kind at most.

    Returns:
        Impostor pairs and genuine pairs.

    Example:
        >>> from metricjax import similarities
        >>> x = np.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6], [0.0, 1.0]], np.float32)
        >>> y = np.array([0, 0, 1, 1])
        >>> impostors, genuine = worst_pairs(x, y, similarity=similarities.cosine)
        >>> impostors.first.tolist(), impostors.second.tolist()
        ([1], [2])
        >>> [round(float(value), 2) for value in genuine.similarities]
        [0.6, 0.6]
    """
    impostors, genuine = [], []
    for start in range(0, len(labels), _BLOCK):
        block = embeddings[start : start + _BLOCK]
        filled = np.pad(block, [(0, _BLOCK - len(block)), (0, 0)])
        found = np.asarray(_similarities(Partial(similarity), filled, embeddings))
        found = found[: len(block)]
        own = labels[start : start + _BLOCK, None]
        # Each pair once: of a row with the rows after it.
        later = np.arange(len(labels)) > start + np.arange(len(block))[:, None]
        same = own == labels
        impostors.append(_largest(found, later & ~same, start))
        genuine.append(_largest(-found, later & same, start))
    wrong = _one_of_each(impostors, labels, count)
    right = _one_of_each(genuine, labels, count)
    return wrong, right._replace(similarities=-right.similarities)


@jax.jit
def _similarities(similarity: Similarity, x: jax.Array, y: jax.Array) -> jax.Array:
    return similarity(x, y)


def _largest(values: np.ndarray, where: np.ndarray, start: int) -> Worst:
    """The largest of some entries of a block, in any order."""
    rows, columns = np.nonzero(where)
    chosen = values[rows, columns]
    kept = (
        np.argpartition(-chosen, _KEPT)[:_KEPT] if len(chosen) > _KEPT else slice(None)
    )
    return Worst(start + rows[kept], columns[kept], chosen[kept])


def _one_of_each(parts: list[Worst], labels: np.ndarray, count: int) -> Worst:
    whole = Worst(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    taken, rows = set(), []
    for i in np.argsort(-whole.similarities, kind="stable"):
        classes = frozenset((labels[whole.first[i]], labels[whole.second[i]]))
        if classes not in taken:
            taken.add(classes)
            rows.append(i)
        if len(rows) == count:
            break
    return Worst(*(column[rows] for column in whole))
