"""Divide a data set by class, as metric learning is tested, or by image.

An embedding has to be measured on classes that it never saw. `split_by_class` sets
whole classes aside; `hold_out` sets images of the remaining classes aside.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metricjax import _checks


class ClassSplit(NamedTuple):
    """Example indices, ascending, of three sets that share no class.

    Attributes:
        train: examples of the classes to train on.
        validation: examples of the classes to tune and to calibrate thresholds on.
        test: examples of the classes to report on.
    """

    train: NDArray[np.intp]
    validation: NDArray[np.intp]
    test: NDArray[np.intp]


class HoldOut(NamedTuple):
    """Example indices, ascending, of two sets that share classes but no example.

    Attributes:
        train: the examples to train on.
        held_out: the examples set aside.
    """

    train: NDArray[np.intp]
    held_out: NDArray[np.intp]


def split_by_class(
    labels: ArrayLike,
    *,
    test: int | float | Sequence[int],
    validation: int | float | Sequence[int] = 0,
    seed: int = 0,
) -> ClassSplit:
    """Divide the examples so that train, validation and test share no class.

    Args:
        labels: `[n]` int. Examples with a negative label are in no set.
        test: the test classes: a number of classes, a share of them (a float between
            0 and 1, rounded to at least one class), or the class labels themselves.
        validation: the validation classes, given in the same way; none by default.
        seed: which classes are taken where their labels are not given.

    Returns:
        The index arrays. The test classes are taken first, so that asking for
        validation classes leaves the test set as it was.

    Raises:
        ValueError: if a class does not exist or is in two sets, or no class is left
            to train on.
        TypeError: if the labels are not integers.

    Example:
        >>> split = split_by_class([0, 0, 1, 1, 2, 2], test=[1], validation=[2])
        >>> split.train.tolist(), split.validation.tolist(), split.test.tolist()
        ([0, 1], [4, 5], [2, 3])
    """
    labels = _labels(labels)
    classes = np.unique(labels[labels >= 0])
    shuffled = np.random.default_rng(seed).permutation(classes)
    test_ids = _chosen(test, shuffled, len(classes), "test")
    rest = shuffled[~np.isin(shuffled, test_ids)]
    validation_ids = _chosen(validation, rest, len(classes), "validation")
    train_ids = rest[~np.isin(rest, validation_ids)]
    if train_ids.size == 0:
        raise ValueError(
            f"Expected a class to train on, got {len(test_ids)} test and "
            f"{len(validation_ids)} validation classes of {len(classes)}; lower them."
        )
    sets = (train_ids, validation_ids, test_ids)
    return ClassSplit(*(np.flatnonzero(np.isin(labels, ids)) for ids in sets))


def hold_out(labels: ArrayLike, *, fraction: float, seed: int = 0) -> HoldOut:
    """Set aside a share of the images of each class.

    Each class gives `fraction` of its examples, rounded, but at least one, and keeps
    at least one. A class of a single example keeps it.

    Args:
        labels: `[n]` int. Examples with a negative label are in no set.
        fraction: the share to set aside, between 0 and 1.
        seed: which examples are taken.

    Returns:
        The index arrays.

    Raises:
        ValueError: if the fraction is out of range.
        TypeError: if the labels are not integers.

    Example:
        >>> labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
        >>> labels[hold_out(labels, fraction=0.25).held_out].tolist()
        [0, 1]
    """
    labels = _labels(labels)
    if not 0.0 < fraction < 1.0:
        raise ValueError(
            f"Expected `fraction` between 0 and 1, got {fraction}; 0.2 sets a fifth of "
            "each class aside."
        )
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(labels), bool)
    for members in _members(labels):
        if len(members) > 1:
            count = min(max(round(fraction * len(members)), 1), len(members) - 1)
            held_out[rng.permutation(members)[:count]] = True
    kept = ~held_out & (labels >= 0)
    return HoldOut(np.flatnonzero(kept), np.flatnonzero(held_out))


def _labels(labels: ArrayLike) -> NDArray[np.integer]:
    labels = np.asarray(labels)
    _checks.check_labels("labels", labels, labels.shape[0] if labels.ndim else 0)
    if not (labels >= 0).any():
        raise ValueError("Expected an example with a label of 0 or more, got none.")
    return labels


def _members(labels: NDArray[np.integer]) -> list[NDArray[np.intp]]:
    """The example indices of each class, by ascending label."""
    order = np.argsort(labels, kind="stable")
    order = order[labels[order] >= 0]
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def _chosen(
    spec: ArrayLike, candidates: NDArray[np.integer], classes: int, name: str
) -> NDArray[np.integer]:
    """The class labels that `spec` names, or the first candidates."""
    given = np.asarray(spec)
    if given.ndim:
        ids = np.unique(given)
        unknown = np.setdiff1d(ids, candidates)
        if unknown.size:
            raise ValueError(
                f"Expected `{name}` to name classes of `labels` that no other set has "
                f"taken, got {unknown.tolist()}; free are "
                f"{np.sort(candidates).tolist()}."
            )
        return candidates[np.isin(candidates, ids)]
    count = _count(given, classes, name)
    if count > len(candidates):
        raise ValueError(
            f"Expected `{name}` of at most {len(candidates)} classes, got {count}."
        )
    return candidates[:count]


def _count(spec: np.ndarray, classes: int, name: str) -> int:
    if np.issubdtype(spec.dtype, np.integer) and spec >= 0:
        return int(spec)
    if np.issubdtype(spec.dtype, np.floating) and 0.0 < spec < 1.0:
        return max(round(float(spec) * classes), 1)
    raise ValueError(
        f"Expected `{name}` to be a number of classes, a share between 0 and 1, or "
        f"class labels, got {spec}."
    )
