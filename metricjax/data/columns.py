"""Which column of a data set its classes are read from."""

from collections.abc import Sequence

import numpy as np

from metricjax.data.dataset import Dataset


def relabel(
    dataset: Dataset, column: str, *, names: Sequence[str] | None = None
) -> Dataset:
    """The same examples with the values of an `extra` column as their labels.

    To learn who speaks instead of what is said, or the alphabet of a character.

    Args:
        dataset: the data set.
        column: the key of the column in `extra`.
        names: the name of each value, where it is an index; by default its digits.

    Returns:
        The data set. Classes are the values that occur, in ascending order. `extra`
        keeps the column and has the former labels as `label`.

    Raises:
        ValueError: if there is no such column, or a value has no name.

    Example:
        >>> images = np.zeros((3, 1, 1, 1), np.uint8)
        >>> speaker = {"speaker": np.array([7, 4, 7], np.int32)}
        >>> words = np.array([0, 1, 1], np.int32)
        >>> said = Dataset(images, words, ("no", "yes"), speaker)
        >>> spoken = relabel(said, "speaker")
        >>> spoken.labels.tolist(), spoken.names, spoken.extra["label"].tolist()
        ([1, 0, 1], ('4', '7'), [0, 1, 1])
    """
    if column not in dataset.extra:
        raise ValueError(
            f"Expected `column` among {sorted(dataset.extra)}, the columns in `extra`, "
            f"got {column!r}."
        )
    values, labels = np.unique(dataset.extra[column], return_inverse=True)
    if names is None:
        found = [str(value) for value in values.tolist()]
    elif values.min() >= 0 and values.max() < len(names):
        found = [names[value] for value in values.tolist()]
    else:
        raise ValueError(
            f"Expected `names` of all values of {column!r}, {values.min()} to "
            f"{values.max()}, got {len(names)} names."
        )
    return dataset._replace(
        labels=labels.astype(np.int32),
        names=tuple(found),
        extra={**dataset.extra, "label": dataset.labels},
    )
