"""The pictures of a split: what training did to classes that it never saw."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax.tree_util import Partial

from metricjax import plots, similarities
from metricjax.metrics import retrieval, verification
from metricjax.training._worst import worst_pairs
from metricjax.training.evaluate import Similarity, raw_pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PICTURES", "draw", "draw_examples"]

PICTURES = {
    "embeddings": "Embeddings before and after training",
    "distances": "Distances of pairs of the same and of different classes",
    "roc": "ROC curves of raw pixels and of embeddings before and after training",
    "det": "DET curves of the same: false rejects against false accepts",
    "retrievals": "Nearest neighbours of some images",
    "worst": "The worst pairs: the most similar of two classes, the least of one",
    "task": "A one-shot task: which of these is of the query's class?",
    "examples": "Examples as the encoder saw them in training",
}
"""The files that `draw` and `draw_examples` make, and what they show."""

_WAYS = 5
_WORST = 4
_QUERIES = 6
_NEIGHBOURS = 7
_PAIRS = 20_000
_POINTS = 1000
_SEEN = "As the encoder saw them in training"
# Those of the ROC curves beside them.
_COLOURS, _DASHES = ("#0072B2", "#D55E00", "#009E73"), ("-", "--", "-.")


def draw(
    folder: str | os.PathLike[str],
    images: np.ndarray,
    labels: np.ndarray,
    embeddings: Mapping[str, np.ndarray],
    *,
    names: Mapping[int, str],
    seen: bool = False,
    similarity: Similarity = similarities.cosine,
    threshold: float | None = None,
) -> None:
    """Save the pictures of a set of images, as PNG files.

    Those that show images are left out if there are none, the task below three classes.

    Args:
        folder: where to.
        images: `[n, height, width, channels]` uint8.
        labels: `[n]` int.
        embeddings: "before" and "after" training, `[n, dim]` each.
        names: of the classes, by label.
        seen: whether other images of these classes were trained on.
        similarity: embeddings that are compared by cosine are drawn by direction.
        threshold: of the similarity, where pairs are accepted; drawn if given.

    Example:
        >>> import tempfile
        >>> rng = np.random.default_rng(0)
        >>> images = rng.integers(0, 256, (20, 4, 4, 1), dtype=np.uint8)
        >>> x = rng.normal(size=(20, 3))
        >>> path, names = Path(tempfile.mkdtemp()), {0: "a", 1: "b", 2: "c"}
        >>> draw(path, images, np.arange(20) % 3, dict(before=x, after=x), names=names)
        >>> sorted({*PICTURES} - {file.stem for file in path.iterdir()})
        ['examples']
    """
    folder = Path(folder)
    # Drawn as they are compared: by direction.
    if similarity is similarities.cosine:
        embeddings = {name: _unit(x) for name, x in embeddings.items()}
    listed = [_drawable(names.get(label, "")) for label in range(max(names) + 1)]
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
            *_distances(embeddings["after"], labels, similarity),
            threshold=_as_distance(threshold, similarity),
            title=title,
        ),
        "roc": plots.roc(curves, title=title),
        "det": _det(curves, title),
    }
    if images.ndim == 4:
        shown = images, embeddings["after"], labels, listed, similarity
        figures["retrievals"] = _retrievals(*shown, title)
        figures["worst"] = _worst_pairs(*shown)
        figures["task"] = _task(*shown)
    for name, figure in figures.items():
        if figure is not None:
            _save(figure, folder / f"{name}.png")


def draw_examples(
    folder: str | os.PathLike[str],
    images: np.ndarray,
    labels: np.ndarray,
    *,
    triplets: bool = False,
) -> None:
    """Save the picture of training examples, as the encoder saw them.

    Args:
        folder: where to.
        images: `[n, height, width, channels]`, uint8 or a float in 0..1; n is even, or
            divisible by three: first ones, then their partners, in the same order.
        labels: `[n]` int.
        triplets: anchors, positives and negatives instead of pairs.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> draw_examples(folder, np.zeros((4, 8, 8, 1)), np.array([0, 1, 0, 0]))
        >>> [file.name for file in folder.iterdir()]
        ['examples.png']
    """
    if triplets:
        anchors, positives, negatives = np.split(images, 3)
        figure = plots.triplets_sheet(anchors, positives, negatives, title=_SEEN)
    else:
        same = np.equal(*np.split(labels, 2))
        first, second = np.split(images, 2)
        figure = plots.pairs_sheet(first, second, same, title=_SEEN)
    _save(figure, Path(folder) / "examples.png")


def _save(figure: "Figure", path: Path) -> None:
    with warnings.catch_warnings():
        # Of names in a script that the font lacks: boxes are drawn, which is told here
        # once, not in a line for every letter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        plots.save(figure, path)


def _drawable(name: str) -> str:
    """A name that matplotlib writes as it is: between dollars it sees a formula."""
    plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
    return plain.replace("$", r"\$")


def _as_distance(threshold: float | None, similarity: Similarity) -> float | None:
    if threshold is None:
        return None
    return (1.0 if similarity is similarities.cosine else 0.0) - threshold


def _det(curves: Mapping[str, plots.RocCurve], title: str) -> "Figure | None":
    """False rejects against false accepts, on axes on which normal scores are lines."""
    from matplotlib.figure import Figure
    from sklearn.metrics import DetCurveDisplay

    figure = Figure(figsize=(6.4, 6.0), layout="constrained", facecolor="white")
    axes = figure.subplots()
    for i, (name, curve) in enumerate(curves.items()):
        far, frr = np.asarray(curve.far), 1.0 - np.asarray(curve.tar)
        # The axes have no place for rates of nothing and of everything.
        shown = (far > 0) & (far < 1) & (frr > 0) & (frr < 1)
        rows = np.flatnonzero(shown)
        if not len(rows):
            continue
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, _POINTS).astype(int))]
        DetCurveDisplay(fpr=far[rows], fnr=frr[rows]).plot(
            ax=axes,
            name=f"{name}: EER {100 * curve.eer:.1f} %",
            color=_COLOURS[i],
            linestyle=_DASHES[i],
            linewidth=2.0,
        )
    if not axes.lines:
        return None
    axes.set_xlabel("false accept rate", fontsize=11)
    axes.set_ylabel("false reject rate", fontsize=11)
    # Deviates of 0.1 % and of 69 %: beyond, nobody works.
    axes.set_xlim(-3.0, 0.5)
    axes.set_ylim(-3.0, 0.5)
    legend = axes.get_legend()
    if legend is not None:
        legend.remove()
    figure.legend(loc="outside lower center", fontsize=10, frameon=False)
    axes.set_title(title, fontsize=12)
    axes.grid(color="0.9", lw=0.8)
    return figure


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


def _worst_pairs(
    images: np.ndarray,
    embeddings: np.ndarray,
    labels: np.ndarray,
    names: list[str],
    similarity: Similarity,
) -> "Figure":
    found = worst_pairs(embeddings, labels, similarity=similarity, count=_WORST)
    first, second, scores = (
        np.concatenate(column) for column in zip(*found, strict=True)
    )
    return plots.pairs_sheet(
        images[first],
        images[second],
        labels[first] == labels[second],
        scores=scores,
        title="Worst pairs: the most similar of two classes, the least similar of one",
    )


def _task(
    images: np.ndarray,
    embeddings: np.ndarray,
    labels: np.ndarray,
    names: list[str],
    similarity: Similarity,
) -> "Figure | None":
    """A random task of five classes, or as many as there are; None below three."""
    classes, counts = np.unique(labels, return_counts=True)
    ways = min(_WAYS, len(classes))
    if ways < 3 or counts.max() < 2:
        return None
    rng = np.random.default_rng(0)
    asked = rng.choice(classes[counts > 1])
    others = rng.permutation(classes[classes != asked])[: ways - 1]
    chosen = rng.permutation([asked, *others])
    query, own = rng.permutation(np.flatnonzero(labels == asked))[:2]
    support = np.array(
        [own if c == asked else rng.choice(np.flatnonzero(labels == c)) for c in chosen]
    )
    scores = np.asarray(similarity(embeddings[[query]], embeddings[support]))[0]
    return plots.nway_task(
        images[query],
        images[support],
        truth=int(np.flatnonzero(chosen == asked)[0]),
        chosen=int(scores.argmax()),
        scores=scores,
        names=[names[c] for c in chosen],
    )


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
