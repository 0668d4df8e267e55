"""The pictures of a split: what training did to classes that it never saw."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax.tree_util import Partial

from metricjax import plots, similarities
from metricjax.metrics import retrieval, verification
from metricjax.training.evaluate import Similarity, raw_pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PICTURES", "draw"]

PICTURES = {
    "embeddings": "Embeddings before and after training",
    "distances": "Distances of pairs of the same and of different classes",
    "roc": "ROC curves of raw pixels and of embeddings before and after training",
    "retrievals": "Nearest neighbours of some images",
}
"""The files that `draw` makes, without their ending, and what they show."""

_QUERIES = 6
_NEIGHBOURS = 7
_PAIRS = 20_000


def draw(
    folder: str | os.PathLike[str],
    images: np.ndarray,
    labels: np.ndarray,
    embeddings: Mapping[str, np.ndarray],
    *,
    names: Mapping[int, str],
    seen: bool = False,
    similarity: Similarity = similarities.cosine,
) -> None:
    """Save the pictures of a set of images, as PNG files.

    Args:
        folder: where to.
        images: `[n, height, width, channels]` uint8.
        labels: `[n]` int.
        embeddings: "before" and "after" training, `[n, dim]` each.
        names: of the classes, by label.
        seen: whether other images of these classes were trained on.
        similarity: embeddings that are compared by cosine are drawn by direction.

    Example:
        >>> import tempfile
        >>> rng = np.random.default_rng(0)
        >>> images = rng.integers(0, 256, (20, 4, 4, 1), dtype=np.uint8)
        >>> x = rng.normal(size=(20, 3))
        >>> path, names = Path(tempfile.mkdtemp()), {0: "cat", 1: "dog"}
        >>> draw(path, images, np.arange(20) % 2, dict(before=x, after=x), names=names)
        >>> sorted(file.stem for file in path.iterdir()) == sorted(PICTURES)
        True
    """
    folder = Path(folder)
    # Drawn as they are compared: by direction.
    if similarity is similarities.cosine:
        embeddings = {name: _unit(x) for name, x in embeddings.items()}
    listed = [names.get(label, "") for label in range(max(names) + 1)]
    curves = {
        "raw pixels": _curve(raw_pixels(images), labels, similarities.cosine),
        "untrained": _curve(embeddings["before"], labels, similarity),
        "trained": _curve(embeddings["after"], labels, similarity),
    }
    title = "Images never trained on" if seen else "Classes never seen in training"
    figures = {
        "embeddings": plots.before_after(
            embeddings["before"],
            embeddings["after"],
            labels,
            names=listed,
            seen=np.full(len(labels), seen),
            titles=(
                f"Before training: EER {100 * curves['untrained'].eer:.1f} %",
                f"After training: EER {100 * curves['trained'].eer:.1f} %",
            ),
        ),
        "distances": plots.distance_histograms(
            *_distances(embeddings["after"], labels, similarity), title=title
        ),
        "roc": plots.roc(curves, title=title),
    }
    if images.ndim == 4:
        figures["retrievals"] = _retrievals(
            images, embeddings["after"], labels, listed, similarity, title
        )
    for name, figure in figures.items():
        plots.save(figure, folder / f"{name}.png")


def _unit(embeddings: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings / np.maximum(length, np.finfo(np.float32).tiny)


def _curve(
    embeddings: np.ndarray, labels: np.ndarray, similarity: Similarity
) -> plots.RocCurve:
    curve = verification.roc_of_embeddings(embeddings, labels, similarity=similarity)
    return plots.RocCurve(
        curve.far, curve.tar, verification.auc(curve), verification.eer(curve).rate
    )


def _distances(
    embeddings: np.ndarray, labels: np.ndarray, similarity: Similarity
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of random pairs of the same and of different classes."""
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, len(labels), (2, _PAIRS))
    first, second = first[first != second], second[first != second]
    found = _paired(Partial(similarity), embeddings[first], embeddings[second])
    distances = -np.asarray(found)
    if similarity is similarities.cosine:
        distances += 1.0
    same = labels[first] == labels[second]
    return distances[same], distances[~same]


@jax.jit
def _paired(similarity: Similarity, x: jax.Array, y: jax.Array) -> jax.Array:
    """The similarity of each row of x to the same row of y."""
    return jax.vmap(lambda a, b: similarity(a[None], b[None])[0, 0])(x, y)


def _retrievals(
    images: np.ndarray,
    embeddings: np.ndarray,
    labels: np.ndarray,
    names: list[str],
    similarity: Similarity,
    title: str,
) -> "Figure":
    # Evenly spread over the set, whose classes lie side by side.
    queries = np.linspace(0, len(labels) - 1, _QUERIES).astype(int)
    found = retrieval.nearest(
        embeddings[queries], embeddings, k=_NEIGHBOURS + 1, similarity=similarity
    )
    neighbours = [
        [i for i in row if i != query][:_NEIGHBOURS]
        for query, row in zip(queries, np.asarray(found.indices), strict=True)
    ]
    return plots.retrievals(
        images,
        np.array(neighbours),
        labels,
        queries=queries,
        names=names,
        title=f"Nearest neighbours. {title}",
    )
