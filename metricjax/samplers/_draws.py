"""Classes of a group, contexts of a class, examples of a context: how each is drawn."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metricjax import _checks
from metricjax.samplers import _random
from metricjax.samplers._group_table import GroupTable


class Turns(NamedTuple):
    """Classes whose turn it is, and the group of each."""

    classes: NDArray[np.intp]
    groups: NDArray[np.intp]


def check_two(name: str, value: int, reason: str) -> None:
    """Raise unless `value` is an integer of at least two."""
    _checks.check_positive_int(name, value, "give how many a batch holds")
    if value < 2:
        raise ValueError(f"Expected `{name}` of at least 2, got {value}; {reason}.")


def large_groups(table: GroupTable, name: str, classes: int) -> NDArray[np.intp]:
    """The groups that have as many classes, or an error about the argument `name`."""
    usable = np.flatnonzero(table.groups.counts >= classes)
    if usable.size == 0:
        raise ValueError(
            f"Expected `{name}` of at most {table.groups.counts.max()}, the classes "
            f"with enough examples in the largest group, got {classes}; lower `{name}`."
        )
    return usable


def sharing_groups(
    table: GroupTable, groups: NDArray[np.intp], examples: int
) -> NDArray[np.intp]:
    """Those of the groups whose classes all have as many contexts in common."""
    if table.shared is None:
        raise ValueError(
            "Expected a table with contexts for `shared_contexts`, got one without; "
            "make it with group_table(labels, groups, contexts=...)."
        )
    counts = table.shared.counts[groups]
    if counts.max() < examples:
        raise ValueError(
            f"Expected a group whose classes all have {examples} contexts in common, "
            f"got at most {counts.max()}; lower `examples` or give `at_least` to "
            "group_table, which leaves out classes of few contexts."
        )
    return groups[counts >= examples]


def turns(
    table: GroupTable,
    groups: NDArray[np.intp],
    start: int,
    stop: int,
    seed: int,
    purpose: int,
) -> Turns:
    """The classes of the groups in shuffled epochs: entries `start, ..., stop - 1`."""
    counts = table.groups.counts[groups]
    ends = np.cumsum(counts)
    places = _random.shuffled_epochs(start, stop, int(ends[-1]), seed, purpose)
    which = np.searchsorted(ends, places, side="right")
    within = places - (ends - counts)[which]
    return Turns(table.groups.starts[groups[which]] + within, groups[which])


def with_others(
    table: GroupTable, turn: Turns, classes: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """The first class whose turn it is, then others of its group; `[classes]`."""
    start, count = (runs[turn.groups[0]] for runs in table.groups)
    own = turn.classes[0] - start
    others = rng.choice(count - 1, classes - 1, replace=False)
    return start + np.append(own, others + (others >= own))


def distinct_cells(
    table: GroupTable,
    classes: NDArray[np.intp],
    examples: int,
    rng: np.random.Generator,
) -> NDArray[np.intp]:
    """Cells of each class, none twice; `[classes, examples]`."""
    starts, counts = (runs[classes] for runs in table.classes)
    return starts[:, None] + _random.draw(counts, examples, rng)


def shared_cells(
    table: GroupTable,
    group: int,
    classes: NDArray[np.intp],
    examples: int,
    rng: np.random.Generator,
) -> NDArray[np.intp]:
    """Cells of the same contexts for all classes; `[classes, examples]`."""
    assert table.shared is not None
    assert table.shared_contexts is not None
    assert table.cell_keys is not None
    start, count = (runs[group] for runs in table.shared)
    picked = rng.choice(count, examples, replace=False)
    contexts = table.shared_contexts[start + picked]
    keys = classes[:, None] * table.contexts + contexts
    return np.searchsorted(table.cell_keys, keys)


def one_of_each(
    table: GroupTable, cells: NDArray[np.intp], rng: np.random.Generator
) -> NDArray[np.intp]:
    """An example of each cell, as an index into the labels."""
    if table.cells is None:
        return table.order[cells]
    starts, counts = (runs[cells] for runs in table.cells)
    return table.order[starts + (rng.random(cells.shape) * counts).astype(np.intp)]
