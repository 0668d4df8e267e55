"""Pairs of examples, half of the same class and half of different classes."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metricjax.samplers import _draws, _random
from metricjax.samplers._classes import ClassTable
from metricjax.samplers._group_table import GroupTable, as_group_table


class PairBatch(NamedTuple):
    """Pairs of examples.

    Attributes:
        first: `[pairs]` int, example indices.
        second: `[pairs]` int, example indices.
        same: `[pairs]` bool, whether both are of one class.
    """

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    same: NDArray[np.bool_]


def pair_batch(
    labels: ArrayLike | ClassTable | GroupTable,
    *,
    pairs: int,
    seed: int,
    step: int,
    groups: ArrayLike | None = None,
) -> PairBatch:
    """Draw pairs, half of the same class and half not: the batch of step `step`.

    The pairs are in random order. A pair of the same class is of two different
    examples, of two contexts if the table has contexts. With groups, a pair of
    different classes is of one group, which makes it harder to tell from the others;
    groups of a single class give no such pair.

    Classes are equally likely, however many examples they have: they take turns in
    shuffled epochs, in pairs of the same class and apart from that as the first of a
    pair of different classes; the second is any other class of the group.

    Args:
        labels: `[n]` int, or the table made of them by `class_table` or `group_table`.
            Build the table once. Classes of one example are left out.
        pairs: how many, at least 2; of an odd number, one more is of different classes.
        seed: `0 <= seed < 2**64`.
        step: the number of the step, from 0.
        groups: `[n]` int, the group of each label, where labels are given.

    Returns:
        A `PairBatch` of indices into the labels.

    Raises:
        ValueError: if no pair of the same class or of different ones can be made.
        TypeError: if the labels, seed or step are not integers.

    Example:
        >>> labels = np.repeat(np.arange(6), 4)
        >>> first, second, same = pair_batch(labels, pairs=8, seed=0, step=0)
        >>> int(same.sum()), bool((same == (labels[first] == labels[second])).all())
        (4, True)

    References:
        Koch, Zemel and Salakhutdinov, "Siamese neural networks for one-shot image
        recognition", ICML Deep Learning Workshop 2015, section 4.1.
    """
    _draws.check_two("pairs", pairs, "half of the pairs are of the same class")
    table = as_group_table(labels, groups, at_least=2)
    seed, step = _random.check_seed(seed), _random.check_step(step)
    rng = _random.generator(seed, _random.PAIR_EXAMPLES, step)
    alike = _alike(table, pairs // 2, seed, step, rng)
    apart = _apart(table, pairs - pairs // 2, seed, step, rng)
    cells = rng.permutation(np.concatenate([alike, apart]))
    first, second = _draws.one_of_each(table, cells[:, :2], rng).T
    return PairBatch(first, second, cells[:, 2] == 1)


def _alike(
    table: GroupTable, pairs: int, seed: int, step: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Two cells of one class, and 1; `[pairs, 3]`."""
    every = np.arange(len(table.groups.counts))
    start, stop = step * pairs, (step + 1) * pairs
    turn = _draws.turns(table, every, start, stop, seed, _random.SAME_CLASSES)
    cells = _draws.distinct_cells(table, turn.classes, 2, rng)
    return np.column_stack([cells, np.ones(pairs, np.intp)])


def _apart(
    table: GroupTable, pairs: int, seed: int, step: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Cells of two classes of one group, and 0; `[pairs, 3]`."""
    usable = np.flatnonzero(table.groups.counts >= 2)
    if usable.size == 0:
        raise ValueError(
            "Expected a group of two classes with at least two examples, to make a "
            "pair of different classes, got none; check `labels` and `groups`."
        )
    start, stop = step * pairs, (step + 1) * pairs
    turn = _draws.turns(table, usable, start, stop, seed, _random.DIFFERENT_CLASSES)
    starts, counts = (runs[turn.groups] for runs in table.groups)
    own = turn.classes - starts
    others = (rng.random(pairs) * (counts - 1)).astype(np.intp)
    others += others >= own
    classes = np.stack([turn.classes, starts + others], axis=1)
    cells = _draws.distinct_cells(table, classes.reshape(-1), 1, rng)
    return np.column_stack([cells.reshape(-1, 2), np.zeros(pairs, np.intp)])
