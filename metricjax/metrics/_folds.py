"""Accuracy on folds of pairs, and the LFW lists; public in `verification`."""

import pathlib
from os import PathLike
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from metricjax import _checks
from metricjax.metrics._roc import accepted


class FoldAccuracy(NamedTuple):
    """Accuracy of each fold, at the threshold that the other folds chose."""

    mean: float
    standard_error: float  # standard deviation over folds / sqrt(folds)
    accuracy: np.ndarray  # [folds]
    thresholds: np.ndarray  # [folds]


class LfwPairs(NamedTuple):
    """Pairs of images in folds, as the Labeled Faces in the Wild lists give them."""

    first: tuple[str, ...]  # "Name/Name_0001", without the ending of the file
    second: tuple[str, ...]
    is_same: np.ndarray  # bool [pairs]
    folds: np.ndarray  # int [pairs]


def fold_accuracy(
    similarities: ArrayLike, is_same: ArrayLike, folds: ArrayLike
) -> FoldAccuracy:
    """Pair accuracy with the threshold chosen on the other folds; on the host.

    For each fold, the threshold that is right most often on all other folds is applied
    to it. The mean over folds and its standard error are the two numbers of the LFW
    protocol (10 folds of 600 pairs). Of equally good thresholds the strictest is taken,
    half-way to the next lower similarity.

    Args:
        similarities: `[pairs]`, larger is closer.
        is_same: bool `[pairs]`, True for genuine pairs.
        folds: `[pairs]` int, the fold of each pair.

    Returns:
        A `FoldAccuracy`, folds in ascending order.

    Raises:
        ValueError: if shapes disagree, a similarity is not finite, or there are fewer
            than two folds.
        TypeError: if a dtype is wrong.

    Example:
        >>> scores = [0.9, 0.2, 0.8, 0.3]
        >>> fold_accuracy(scores, [True, False, True, False], [0, 0, 1, 1]).mean
        1.0

    References:
        Huang et al., "Labeled Faces in the Wild", UMass TR 07-49, 2007, section IV.
    """
    scores, same = np.asarray(similarities), np.asarray(is_same)
    folds = np.asarray(folds)
    _checks.check_labels("folds", folds, scores.size)
    numbers = np.unique(folds)
    if len(numbers) < 2:
        raise ValueError(
            f"Expected at least two folds, got {len(numbers)}; the threshold for a "
            "fold is chosen on the others."
        )
    thresholds = np.array(
        [best_threshold(scores[folds != n], same[folds != n]) for n in numbers]
    )
    accuracy = np.array(
        [
            np.mean((scores[folds == n] >= t) == same[folds == n])
            for n, t in zip(numbers, thresholds, strict=True)
        ]
    )
    error = accuracy.std(ddof=1) / np.sqrt(len(numbers))
    return FoldAccuracy(float(accuracy.mean()), float(error), accuracy, thresholds)


def best_threshold(similarities: ArrayLike, is_same: ArrayLike) -> float:
    """The threshold that is right about most pairs; on the host.

    Chosen and tested on the same pairs it flatters: see `fold_accuracy`. Of equally
    good thresholds the strictest is taken, half-way to the next lower similarity.

    Args:
        similarities: `[pairs]`, larger is closer.
        is_same: bool `[pairs]`, True for genuine pairs.

    Returns:
        The threshold; infinite where rejecting every pair is best.

    Raises:
        ValueError: if shapes disagree or a similarity is not finite.

    Example:
        >>> best_threshold([1.0, 0.5, 0.25], [True, True, False])
        0.375
    """
    thresholds, genuine, impostors = accepted(similarities, is_same)
    best = int(np.argmax(genuine - impostors))
    if best in (0, len(thresholds) - 1):
        return float(thresholds[best])
    return float(thresholds[best : best + 2].mean())


def read_lfw_pairs(path: str | PathLike[str]) -> LfwPairs:
    r"""Read a list of pairs in the format of LFW: `pairs.txt`, `pairsDevTest.txt`.

    The first line holds the number of folds (1 if it is left out) and the number n of
    pairs of each kind in a fold. Each fold is n lines `name number number` (the same
    person) and n lines `name number name number`, split by tabs.

    Args:
        path: of the text file.

    Returns:
        `LfwPairs` in the order of the file; images are named `Name/Name_0001`.

    Raises:
        ValueError: if a line has another form, or their number another value.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        ...     _ = file.write("1\t1\nAda\t1\t2\nAda\t1\tBob\t3\n")
        ...     file.flush()
        ...     read_lfw_pairs(file.name).second
        ('Ada/Ada_0002', 'Bob/Bob_0003')

    References:
        Huang et al., "Labeled Faces in the Wild", UMass TR 07-49, 2007.
    """
    lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    rows = [line.split() for line in lines if line.strip()]
    folds, size = _lfw_size(path, rows)
    pairs = [_lfw_pair(path, row) for row in rows[1:]]
    is_same = np.array([a.split("/")[0] == b.split("/")[0] for a, b in pairs], bool)
    # Counted first: a first line may claim more than memory holds.
    whole = len(pairs) == 2 * folds * size > 0
    if not whole or (is_same.reshape(folds, 2, size) != [[True], [False]]).any():
        raise ValueError(
            f"Expected {path} to hold {folds} times {size} pairs of one person and "
            f"{size} of two, as its first line says, got {len(pairs)} pairs in another "
            "order or number; is the file cut short?"
        )
    first, second = zip(*pairs, strict=True)
    return LfwPairs(first, second, is_same, np.repeat(np.arange(folds), 2 * size))


def _lfw_size(path: str | PathLike[str], rows: list[list[str]]) -> tuple[int, int]:
    head = rows[0] if rows else []
    if len(head) not in (1, 2) or not all(word.isdecimal() for word in head):
        raise ValueError(
            f"Expected {path} to begin with the number of folds and of pairs, got "
            f"{' '.join(head)!r}; is it a list of pairs of LFW?"
        )
    folds, size = ["1", *head][-2:]
    return int(folds), int(size)


def _lfw_pair(path: str | PathLike[str], row: list[str]) -> tuple[str, str]:
    if len(row) == 3:
        row = [row[0], row[1], row[0], row[2]]
    if len(row) != 4 or not (row[1].isdecimal() and row[3].isdecimal()):
        raise ValueError(
            f"Expected lines 'name number number' or 'name number name number' in "
            f"{path}, got {' '.join(row)!r}."
        )
    first, one, second, two = row
    return f"{first}/{first}_{int(one):04d}", f"{second}/{second}_{int(two):04d}"
