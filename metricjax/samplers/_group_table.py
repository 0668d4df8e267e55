"""Examples by group, class and context."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metricjax import _checks
from metricjax.samplers._classes import ClassTable, class_table


class Runs(NamedTuple):
    """Where each item begins in the level below, and how many it has there."""

    starts: NDArray[np.intp]
    counts: NDArray[np.intp]


class GroupTable(NamedTuple):
    """Examples by group, class and context, made once by `group_table`.

    Each level is a pair `(starts, counts)` of runs in the level below: a cell holds
    the examples of a class in one context, a class its cells, a group its classes.

    Attributes:
        order: `[examples]` int, example indices, those of a cell side by side.
        cells: the runs of each cell in `order`; None if each example is a cell.
        classes: the runs of each class in the cells.
        groups: the runs of each group in the classes.
        labels: `[classes]` int, the label of each class.
        group_values: `[groups]` int, the value of each group, ascending.
        cell_keys: `[cells]` int, `class * contexts + context`, ascending; None without
            contexts.
        shared: the runs of each group in `shared_contexts`; None without contexts.
        shared_contexts: int, the contexts that every class of a group has.
        contexts: the number of different contexts.
    """

    order: NDArray[np.intp]
    cells: Runs | None
    classes: Runs
    groups: Runs
    labels: NDArray[np.integer]
    group_values: NDArray[np.integer]
    cell_keys: NDArray[np.intp] | None = None
    shared: Runs | None = None
    shared_contexts: NDArray[np.intp] | None = None
    contexts: int = 0


def group_table(
    labels: ArrayLike,
    groups: ArrayLike,
    *,
    contexts: ArrayLike | None = None,
    at_least: int = 2,
) -> GroupTable:
    """Group examples by class, and classes by group, so that drawing needs no search.

    Args:
        labels: `[n]` int. Examples with a negative label belong to no class.
        groups: `[n]` int, such as the alphabet of a character; the same for all
            examples of a class.
        contexts: `[n]` int, the circumstances of each example, such as who drew it.
            The examples that are drawn of a class then come from distinct contexts.
        at_least: classes with fewer examples, or with `contexts` fewer contexts, are
            left out. Give as many as a batch draws of a class.

    Returns:
        The table; its indices point into `labels`.

    Raises:
        ValueError: if a shape is wrong, a class is in two groups, or none is left.
        TypeError: if the arrays are not of integers.

    Example:
        >>> table = group_table([0, 0, 1, 1, 2, 2], [5, 5, 9, 9, 5, 5])
        >>> table.group_values.tolist(), table.labels.tolist()
        ([5, 9], [0, 2, 1])
    """
    labels, groups = np.asarray(labels), np.asarray(groups)
    size = labels.shape[0] if labels.ndim else 0
    _checks.check_labels("labels", labels, size)
    _checks.check_labels("groups", groups, size)
    _checks.check_positive_int("at_least", at_least, "a class needs an example")
    if contexts is None:
        places = np.arange(size)
    else:
        contexts = np.asarray(contexts)
        _checks.check_labels("contexts", contexts, size)
        places = np.unique(contexts, return_inverse=True)[1]
    order = np.lexsort((places, labels, groups))
    order = order[labels[order] >= 0]
    _check_groups(labels[order], groups[order])
    order = _large_enough(order, labels[order], places[order], at_least)
    return _table(order, labels[order], groups[order], places[order], contexts is None)


def _table(
    order: NDArray[np.intp],
    labels: NDArray[np.integer],
    groups: NDArray[np.integer],
    places: NDArray[np.intp],
    alone: bool,
) -> GroupTable:
    """The table of examples that are sorted by group, class and context already."""
    cells = _runs(labels, places)
    classes = _runs(labels[cells.starts])
    firsts = cells.starts[classes.starts]
    by_group = _runs(groups[firsts])
    values = groups[firsts][by_group.starts]
    table = GroupTable(order, None, classes, by_group, labels[firsts], values)
    if alone:
        return table
    size = int(places.max()) + 1
    cell_places = places[cells.starts]
    of_class = np.repeat(np.arange(len(classes.counts)), classes.counts)
    of_group = np.repeat(np.arange(len(by_group.counts)), by_group.counts)[of_class]
    keys, found = np.unique(of_group * size + cell_places, return_counts=True)
    everywhere = keys[found == by_group.counts[keys // size]]
    counts = np.bincount(everywhere // size, minlength=len(values))
    return table._replace(
        cells=cells,
        cell_keys=of_class * size + cell_places,
        shared=Runs(np.cumsum(counts) - counts, counts),
        shared_contexts=everywhere % size,
        contexts=size,
    )


def _runs(*columns: NDArray[np.integer]) -> Runs:
    """Runs of rows that are equal in all columns."""
    changes = [np.diff(column, prepend=column[0]) != 0 for column in columns]
    starts = np.flatnonzero(np.any(changes, axis=0))
    starts = np.concatenate([[0], starts])
    return Runs(starts, np.diff(starts, append=len(columns[0])))


def _large_enough(
    order: NDArray[np.intp],
    labels: NDArray[np.integer],
    places: NDArray[np.intp],
    at_least: int,
) -> NDArray[np.intp]:
    """The entries of `order` whose class has enough contexts."""
    counts = _runs(labels[_runs(labels, places).starts]).counts
    kept = counts >= at_least
    if not kept.any():
        raise ValueError(
            f"Expected a class with at least {at_least} examples (of distinct "
            f"contexts, if given), got {counts.size} classes of at most "
            f"{counts.max()}; lower `at_least`, and check that labels are class "
            "indices and not example numbers."
        )
    return order[np.repeat(kept, _runs(labels).counts)]


def _check_groups(labels: NDArray[np.integer], groups: NDArray[np.integer]) -> None:
    if labels.size == 0:
        raise ValueError(
            "Expected at least one example with a label of 0 or more, got none; "
            "check `labels`."
        )
    firsts = _runs(labels, groups).starts
    values, counts = np.unique(labels[firsts], return_counts=True)
    if (counts > 1).any():
        label = values[counts > 1][0]
        raise ValueError(
            f"Expected each class in one group, got label {label} in groups "
            f"{np.unique(groups[labels == label]).tolist()}; give equal classes of "
            "different groups different labels."
        )


def as_group_table(
    labels: ArrayLike | ClassTable | GroupTable,
    groups: ArrayLike | None,
    *,
    at_least: int,
) -> GroupTable:
    """A table of groups, whatever form the labels have; all one group without groups.

    Raises:
        ValueError: if the table has classes that are too small to draw from.
    """
    if isinstance(labels, ClassTable | GroupTable) and groups is not None:
        raise ValueError(
            "Expected `groups` along with labels, got them along with a table; make "
            "the table of both: group_table(labels, groups)."
        )
    if isinstance(labels, GroupTable):
        table = labels
    elif isinstance(labels, ClassTable):
        table = _one_group(labels)
    elif groups is None:
        table = _one_group(class_table(labels, at_least=at_least))
    else:
        table = group_table(labels, groups, at_least=at_least)
    check_sizes(table, at_least)
    return table


def _one_group(table: ClassTable) -> GroupTable:
    zero = np.zeros(1, np.intp)
    every = Runs(zero, np.array([len(table.counts)]))
    classes = Runs(table.starts, table.counts)
    return GroupTable(table.order, None, classes, every, table.classes, zero)


def check_sizes(table: GroupTable, examples: int) -> None:
    """Raise if a class of the table is too small."""
    smallest = table.classes.counts.min()
    if examples > smallest:
        what = "examples" if table.cells is None else "distinct contexts"
        raise ValueError(
            f"Expected classes of at least {examples} {what}, got one of {smallest}; "
            f"leave out smaller ones by making the table with at_least={examples}, or "
            "draw fewer."
        )
