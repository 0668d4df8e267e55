"""What a run trains on and what it is measured on."""

import math
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from metricjax import data
from metricjax.data import deferred
from metricjax.gallery import _intervals
from metricjax.training import _reading
from metricjax.training.settings import Settings

__all__ = ["Examples", "Split", "divide", "divided", "split", "take"]

# The level of `metricjax.gallery.calibrate`.
_CONFIDENCE = 0.95


class Examples(NamedTuple):
    """Labelled images.

    Attributes:
        images: `[n, height, width, channels]` uint8, or what stands for it and is read
            when it is indexed: large sets that lie on disk, and streamed ones.
        labels: `[n]` int32.
        extra: further values of each image, `[n]` each, by name.
    """

    images: np.ndarray
    labels: np.ndarray
    extra: Mapping[str, np.ndarray] = MappingProxyType({})


class Split(NamedTuple):
    """What one split trains and measures on.

    Attributes:
        train: labels in `[0, len(trained_on))`.
        seen: images of the same classes that are never trained on, or None.
        unseen: images of classes that are never trained on, labels of the data set; or
            None.
        calibration: images of further such classes, to choose thresholds; or None.
        watched: what is evaluated during training: never the test; or None.
        trained_on: names of the training classes, by label.
        names: of the unseen classes, by label.
        calibrated_on: names of the calibration classes.
    """

    train: Examples
    seen: Examples | None
    unseen: Examples | None
    calibration: Examples | None
    watched: Examples | None
    trained_on: tuple[str, ...]
    names: Mapping[int, str]
    calibrated_on: tuple[str, ...] = ()

    @property
    def tested(self) -> Examples:
        """The unseen classes, or the seen ones if there are none."""
        found = self.seen if self.unseen is None else self.unseen
        assert found is not None, "a split is tested on something"
        return found


def take(dataset: data.Dataset, rows: np.ndarray) -> Examples:
    """Some images of a data set.

    Args:
        dataset: of which.
        rows: `[n]` int or bool.

    Returns:
        The examples.

    Example:
        >>> take(data.load("digits"), np.array([0, 7])).images.shape
        (2, 28, 28, 1)
    """
    extra = {name: values[rows] for name, values in dataset.extra.items()}
    return Examples(dataset.images[rows], dataset.labels[rows], extra)


def _leave(dataset: data.Dataset, rows: np.ndarray) -> Examples:
    """The same, but images that are not in memory stay where they are."""
    images: Any = dataset.images
    if isinstance(images, np.memmap):
        images = deferred.on_disk(images, rows)
    elif isinstance(images, deferred.Rows):
        images = images.select(rows)
    else:
        return take(dataset, rows)
    extra = {name: values[rows] for name, values in dataset.extra.items()}
    return Examples(images, dataset.labels[rows], extra)


def divide(
    settings: Settings, *, data_dir: str | os.PathLike[str] | None = None
) -> list[Split]:
    """Read the data that the settings name, and divide them as they say.

    Args:
        settings: of a recipe.
        data_dir: the folder of raw data files; see `metricjax.data.load`.

    Returns:
        The splits.

    Raises:
        ValueError: if there are not enough classes or groups, or a file is damaged.
        OSError: if a file cannot be read.
        ImportError: if a package that reads the data is missing.

    Example:
        >>> [list(part.names.values()) for part in divide(Settings())]
        [['7', '8', '9'], ['4', '5', '6'], ['1', '2', '3']]
    """
    reading = _reading.read(settings)
    dataset = reading.dataset if reading else _load(settings, data_dir, "train")
    return divided(dataset, settings, data_dir=data_dir)


def divided(
    dataset: data.Dataset,
    settings: Settings,
    *,
    data_dir: str | os.PathLike[str] | None = None,
) -> list[Split]:
    """Divide a data set that is read already, as `divide` does.

    Args:
        dataset: all of it.
        settings: of a recipe.
        data_dir: the folder of raw data files, where its own test images are.

    Returns:
        The splits.

    Raises:
        ValueError: if there are not enough classes or groups.

    Example:
        >>> dataset = data.load("digits")
        >>> len(divided(dataset, Settings(splits=2)))
        2
    """
    own_test = None
    if not settings.test_classes and not settings.test_groups and settings.own_test:
        own_test = _own_test(settings, data_dir)
    return [split(dataset, settings, i, own_test) for i in range(settings.splits)]


def split(
    dataset: data.Dataset,
    settings: Settings,
    index: int,
    own_test: data.Dataset | None = None,
) -> Split:
    """Divide a data set for one split, as `settings.Settings` says.

    Args:
        dataset: all of it.
        settings: their classes, groups, share held out and number of evaluated images.
        index: the split, from 0.
        own_test: other images of the same classes, to test on.

    Returns:
        The split; a pure function of its arguments.

    Raises:
        ValueError: if there are not enough classes or groups.

    Example:
        >>> dataset = data.Dataset(
        ...     np.zeros((20, 2, 2, 1), np.uint8),
        ...     np.repeat(np.arange(5), 4).astype(np.int32),
        ...     ("a", "b", "c", "d", "e"),
        ... )
        >>> first = split(dataset, Settings(test_classes=2, splits=2), 0)
        >>> first.names, first.trained_on, len(first.train.labels)
        ({3: 'd', 4: 'e'}, ('a', 'b', 'c'), 12)
    """
    parts = _classes(dataset.labels, settings, index)
    trained, of_train = np.unique(dataset.labels[parts.train], return_inverse=True)
    labelled = dataset._replace(labels=np.full_like(dataset.labels, -1))
    labelled.labels[parts.train] = of_train
    kept, held = _held_out(labelled, settings, index)
    if own_test is not None:
        seen = take(
            own_test,
            _evenly(np.arange(len(own_test.labels)), own_test.labels, settings),
        )
    else:
        seen = (
            take(labelled, _evenly(held, labelled.labels, settings))
            if held.size
            else None
        )
    shown = _evenly(parts.unseen, dataset.labels, settings)
    if seen is None and not shown.size:
        raise ValueError(
            "Expected images to test on, got classes with too few images to hold two "
            f"of one out by --held-out {settings.held_out:g}; set classes aside by "
            "--test-classes, or give more images."
        )
    unseen = take(dataset, shown) if shown.size else None
    calibration = None
    if parts.calibration.size:
        calibration = _leave(dataset, parts.calibration)
        _check_calibrates(calibration.labels, settings)
    return Split(
        train=_leave(labelled, kept),
        seen=seen,
        unseen=unseen,
        calibration=calibration,
        watched=_watched(settings, seen, unseen, own_test),
        trained_on=tuple(dataset.names[c] for c in trained),
        names={int(c): dataset.names[c] for c in np.unique(dataset.labels[shown])},
        calibrated_on=tuple(
            dataset.names[c] for c in np.unique(dataset.labels[parts.calibration])
        ),
    )


def _watched(
    settings: Settings,
    seen: Examples | None,
    unseen: Examples | None,
    own_test: data.Dataset | None,
) -> Examples | None:
    """Validation classes or groups, or images held out that are not the test."""
    if settings.validation_classes:
        return unseen
    is_test = own_test is not None or settings.test_groups
    return None if is_test and not settings.validation_groups else seen


class _Classes(NamedTuple):
    """Rows by what their class is for."""

    train: np.ndarray
    unseen: np.ndarray
    calibration: np.ndarray


def _classes(labels: np.ndarray, settings: Settings, index: int) -> _Classes:
    """Every class of the data is trained on, tested on, or calibrates."""
    present = np.unique(labels[labels >= 0])
    aside = settings.validation_classes + settings.calibration_classes
    trained = len(present) - settings.test_classes - aside
    if trained < 2:
        raise ValueError(
            f"Expected at least 2 classes to train on in each of {settings.splits} "
            f"splits of {settings.test_classes} test, {settings.validation_classes} "
            f"validation and {settings.calibration_classes} calibration classes, got "
            f"{len(present)} classes in all; lower --test-classes, "
            f"--validation-classes or --calibration-classes{_instead(len(present))}."
        )
    test = _test_classes(present, settings, index)
    parts = data.split_by_class(labels, test=test, validation=aside, seed=index)
    rest = np.unique(labels[parts.validation])
    rest = np.random.default_rng(index).permutation(rest)
    validated = np.isin(labels, rest[: settings.validation_classes])
    calibrated = np.isin(labels, rest[settings.validation_classes :])
    unseen = np.flatnonzero(validated) if settings.validation_classes else parts.test
    return _Classes(parts.train, unseen, np.flatnonzero(calibrated))


def _instead(classes: int) -> str:
    """Flags that so many classes can serve."""
    if classes < 4:
        return ", or test on images held out by --test-classes 0"
    return f"; --test-classes {max(2, classes // 4)} --splits 1 would do"


def _check_calibrates(labels: np.ndarray, settings: Settings) -> None:
    """Raise if these classes cannot show the false accept rate: before training."""
    sizes = np.bincount(labels)
    impostors = (len(labels) ** 2 - int(np.square(sizes).sum())) // 2
    needed = _intervals.needed_pairs(settings.far, _CONFIDENCE)
    if impostors < needed:
        shown = _intervals.lowest_far(max(impostors, 1), _CONFIDENCE)
        raise ValueError(
            f"Expected at least {needed} pairs of two calibration classes for a false "
            f"accept rate of {settings.far:g}, got {impostors} of "
            f"{settings.calibration_classes} classes; give more "
            f"--calibration-classes, or --far {_rounded_up(shown):g}."
        )


def _rounded_up(rate: float) -> float:
    """The next rate of one digit that counts, below 1."""
    unit = 10.0 ** math.floor(math.log10(rate))
    return min(math.ceil(rate / unit) * unit, 0.9)


def _test_classes(present: np.ndarray, settings: Settings, index: int) -> list[int]:
    count = settings.test_classes
    if settings.splits * count <= len(present):
        stop = len(present) - index * count
        chosen = present[stop - count : stop]
    else:
        chosen = np.random.default_rng(index).permutation(present)[:count]
    return [int(c) for c in np.sort(chosen)]


def _held_out(
    dataset: data.Dataset, settings: Settings, index: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the training classes: those to train on, and the others."""
    known = dataset.labels >= 0
    if settings.test_groups:
        return _held_out_groups(dataset, settings, index)
    if not settings.held_out:
        return np.flatnonzero(known), np.empty(0, int)
    held = data.hold_out(dataset.labels, fraction=settings.held_out)
    return _held_in_pairs(dataset.labels, held, only_test=not settings.test_classes)


def _held_in_pairs(
    labels: np.ndarray, held: data.HoldOut, *, only_test: bool
) -> tuple[np.ndarray, np.ndarray]:
    """No image is held out as the only one of its class, which would make no pair.

    It is trained on instead; if there is no other test, a second one joins it, where
    two are left to train on.
    """
    aside = np.zeros(len(labels), bool)
    aside[held.held_out] = True
    counts = np.bincount(labels[held.held_out])
    for label in np.flatnonzero(counts == 1):
        rows = np.flatnonzero(labels == label)
        if only_test and len(rows) >= 4:
            aside[rows[~aside[rows]][-1]] = True
        else:
            aside[rows] = False
    return np.flatnonzero(~aside & (labels >= 0)), np.flatnonzero(aside)


def _held_out_groups(
    dataset: data.Dataset, settings: Settings, index: int
) -> tuple[np.ndarray, np.ndarray]:
    groups = dataset.extra.get(settings.groups)
    if groups is None:
        raise ValueError(
            f"Expected --groups to be a column of {settings.data}, one of "
            f"{', '.join(dataset.extra) or 'none'}, got {settings.groups!r}."
        )
    present = np.unique(groups)
    count, tuning = settings.test_groups, settings.validation_groups
    stop = len(present) - index * count
    first = stop - count
    if first < 0 or len(present) - count - tuning < 1:
        raise ValueError(
            f"Expected a group to train on in each of {settings.splits} splits of "
            f"{count} test and {tuning} validation groups, got {len(present)} groups "
            f"of {settings.groups}; lower --test-groups, --validation-groups or "
            "--splits."
        )
    test = present[first:stop]
    rest = np.setdiff1d(present, test)
    validation = _validation_groups(present, rest, settings, index)
    known = dataset.labels >= 0
    train = known & np.isin(groups, np.setdiff1d(rest, validation))
    tested = known & np.isin(groups, validation if tuning else test)
    return np.flatnonzero(train), np.flatnonzero(tested)


def _validation_groups(
    present: np.ndarray, rest: np.ndarray, settings: Settings, index: int
) -> np.ndarray:
    """Other groups in each split, none that any split tests, where there are enough."""
    count = settings.validation_groups
    untested = present[: len(present) - settings.splits * settings.test_groups]
    chosen = untested if len(untested) >= count else rest
    return np.roll(chosen, -index * count)[:count]


def _evenly(rows: np.ndarray, labels: np.ndarray, settings: Settings) -> np.ndarray:
    """At most so many rows as are to be evaluated.

    Evenly spread over the rows; but where that would leave hardly two of a class, all
    rows of some classes, evenly spread over the classes: else no pair would be left.
    """
    count = settings.evaluated_images
    if len(rows) <= count:
        return rows
    classes, sizes = np.unique(labels[rows], return_counts=True)
    if count >= 4 * len(classes):
        return rows[np.linspace(0, len(rows) - 1, count).astype(int)]
    # As many classes as fit, if all were of the largest size.
    chosen = max(2, count // int(sizes.max()))
    places = np.linspace(0, len(classes) - 1, min(chosen, len(classes))).astype(int)
    return rows[np.isin(labels[rows], classes[places])]


def _load(
    settings: Settings, data_dir: str | os.PathLike[str] | None, part: str
) -> data.Dataset:
    dataset = data.load(
        settings.data, data_dir=data_dir, split=part, size=settings.image_size
    )
    return data.relabel(dataset, settings.labels) if settings.labels else dataset


def _own_test(
    settings: Settings, data_dir: str | os.PathLike[str] | None
) -> data.Dataset | None:
    """The data set's own test images, if it has such, of the same classes."""
    if settings.data not in ("mnist", "fashion_mnist"):
        return None
    return _load(settings, data_dir, "test")
