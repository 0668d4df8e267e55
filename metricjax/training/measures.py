"""Further figures of a split, beside retrieval and verification.

Each function gives `{what was measured: value}`, in words that stand in a report.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from metricjax import gallery, similarities
from metricjax.metrics import fewshot, identification, retrieval
from metricjax.training.evaluate import Similarity

__all__ = ["classified", "few_shot", "identified", "thresholded"]

_ENROLLED = 5
_NEIGHBOURS = 5


def classified(
    embeddings: np.ndarray,
    labels: np.ndarray,
    known: np.ndarray,
    known_labels: np.ndarray,
    *,
    similarity: Similarity = similarities.cosine,
) -> dict[str, float]:
    """Accuracy of naming images by other images of the same classes.

    Args:
        embeddings: `[n, dim]`, to be named.
        labels: `[n]` int in `[0, classes)`.
        known: `[m, dim]`, whose classes are known (the training images).
        known_labels: `[m]` int.
        similarity: larger is closer.

    Returns:
        The accuracy of the nearest class mean and of the 5 nearest neighbours (by
        vote; the nearest of the tied classes wins), and the open-set accuracy of the
        images among themselves.

    Example:
        >>> x, y = np.eye(2, dtype=np.float32), np.array([0, 1])
        >>> found = classified(x, y, np.repeat(x, 5, axis=0), np.repeat(y, 5))
        >>> found["accuracy by nearest class mean"]
        1.0
    """
    classes = int(known_labels.max()) + 1
    rows, asked = known.astype(np.float32), embeddings.astype(np.float32)
    if similarity is similarities.cosine:
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    sums = np.zeros((classes, rows.shape[1]), np.float32)
    np.add.at(sums, known_labels, rows)
    means = sums / np.maximum(np.bincount(known_labels, minlength=classes), 1)[:, None]
    nearest_mean = np.asarray(similarity(jnp.asarray(asked), jnp.asarray(means)))
    found = retrieval.nearest(asked, rows, k=_NEIGHBOURS, similarity=similarity)
    voted = _vote(known_labels[np.asarray(found.indices)], classes)
    return {
        "accuracy by nearest class mean": float(
            np.mean(nearest_mean.argmax(axis=1) == labels)
        ),
        f"accuracy by {_NEIGHBOURS} nearest neighbours": float(
            np.mean(voted == labels)
        ),
        **_open_set(embeddings, labels),
    }


def _vote(labels: np.ndarray, classes: int) -> np.ndarray:
    votes = np.zeros((len(labels), classes))
    # An earlier neighbour counts a little more, which decides ties alone.
    for place in range(labels.shape[1]):
        votes[np.arange(len(labels)), labels[:, place]] += 1.0 - 0.01 * place
    return votes.argmax(axis=1)


def _open_set(embeddings: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    plain = identification.open_set_accuracy(embeddings, labels)
    fair = identification.open_set_accuracy(embeddings, labels, leave_one_out=True)
    return {
        "open-set accuracy": float(plain.accuracy),
        "open-set accuracy, leaving one out": float(fair.accuracy),
    }


def identified(embeddings: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Rank-1 identification with one enrolled image of each class.

    The mean over enrolling the first, the second, ... the fifth image of each class;
    all other images are looked up.

    Args:
        embeddings: `[n, dim]`, compared by cosine.
        labels: `[n]` int.

    Returns:
        The share that is nearest to its own class.

    Example:
        >>> x = np.eye(2, dtype=np.float32)[[0, 0, 1, 1]]
        >>> identified(x, np.array([0, 0, 1, 1]))["rank 1, one enrolled image"]
        1.0
    """
    members = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    rates = []
    for turn in range(min(_ENROLLED, *(len(rows) for rows in members))):
        rows = np.array([own[turn] for own in members])
        others = np.setdiff1d(np.arange(len(labels)), rows)
        if not len(others):
            continue
        found = identification.search(
            embeddings[others], labels[others], embeddings[rows], labels[rows]
        )
        rates.append(float(identification.cmc(found, max_rank=1)[0]))
    return {"rank 1, one enrolled image": float(np.mean(rates))} if rates else {}


def thresholded(
    calibration: gallery.Calibration, embeddings: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """What the threshold that some classes chose does to others.

    Args:
        calibration: from classes neither trained nor tested on.
        embeddings: `[n, dim]`, those of the test.
        labels: `[n]` int.

    Returns:
        The false accept and true accept rates of the test.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> labels = np.repeat(np.arange(20), 5)
        >>> x = rng.normal(size=(20, 8))[labels] + 0.3 * rng.normal(size=(100, 8))
        >>> sorted(thresholded(gallery.calibrate(x, labels, far=0.01), x, labels))[0]
        'false accept rate at the threshold calibrated for 0.01'
    """
    rates = gallery.rates_at(embeddings, labels, calibration.threshold)
    where = f"at the threshold calibrated for {calibration.far:g}"
    return {
        f"false accept rate {where}": rates.far,
        f"true accept rate {where}": rates.tar,
    }


def few_shot(
    embeddings: np.ndarray,
    labels: np.ndarray,
    *,
    ways: int,
    episodes: int = 400,
    groups: np.ndarray | None = None,
    classify: fewshot.Classifier = fewshot.nearest_neighbor,
) -> Mapping[str, float]:
    """Accuracy of one-shot tasks.

    Args:
        embeddings: `[n, dim]`.
        labels: `[n]` int.
        ways: classes of a task.
        episodes: number of tasks.
        groups: `[n]` int; the classes of a task are of one group.
        classify: as in `metricjax.metrics.fewshot`; cosine by default.

    Returns:
        The accuracy; nothing if no group has so many classes.

    Example:
        >>> x = np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 2, 2]]
        >>> few_shot(x, np.array([0, 0, 1, 1, 2, 2]), ways=3)
        {'3-way one-shot accuracy': 1.0}
    """
    groups = np.zeros_like(labels) if groups is None else groups
    if max(len(np.unique(labels[groups == group])) for group in set(groups)) < ways:
        return {}
    drawn = fewshot.sample_episodes(
        labels, ways=ways, shots=1, episodes=episodes, seed=0, groups=groups
    )
    found = fewshot.evaluate(embeddings, drawn, classify=classify)
    return {f"{ways}-way one-shot accuracy": float(found.accuracy)}
