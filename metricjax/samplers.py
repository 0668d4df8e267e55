"""Which examples form the batch of a step: pure functions of (labels, seed, step).

Nothing is kept between steps, so a resumed run needs the step number alone, and any
batch can be made again at any time. All of this runs on the host, in NumPy.

Random numbers come from one Philox generator per purpose and step: the seed is its
key, the step its counter (Salmon et al., "Parallel random numbers: as easy as 1, 2,
3", SC 2011). A batch costs about 0.1 ms for any number of examples and of classes.
"""

import math
import operator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metricjax import _checks

__all__ = [
    "ClassTable",
    "class_table",
    "pk_batch",
    "shuffled_batch",
    "steps_per_epoch",
]

# One random stream per purpose, so that no two draws share their numbers.
_CLASSES, _EXAMPLES, _SHUFFLE = range(3)

# Up to this size a permutation is drawn whole; above it, entry by entry.
_WHOLE_PERMUTATION = 4096
_FEISTEL_ROUNDS = 6


class ClassTable(NamedTuple):
    """Examples grouped by class, made once by `class_table`.

    Attributes:
        order: `[examples]` int, example indices, those of a class side by side.
        starts: `[classes]` int, where each class begins in `order`.
        counts: `[classes]` int, how many examples each class has.
        classes: `[classes]` int, the label of each class, ascending.
    """

    order: NDArray[np.intp]
    starts: NDArray[np.intp]
    counts: NDArray[np.intp]
    classes: NDArray[np.integer]


def class_table(
    labels: ArrayLike, *, where: ArrayLike | None = None, at_least: int = 2
) -> ClassTable:
    """Group examples by class, so that drawing a batch needs no search.

    Args:
        labels: `[n]` int. Examples with a negative label belong to no class.
        where: `[n]` bool, the examples that may be drawn; all if None.
        at_least: classes with fewer examples are left out. The default leaves out
            single examples, which can make no positive pair; give the `examples` of
            `pk_batch` to leave out all classes that would have to repeat some.

    Returns:
        The table; its indices point into `labels`.

    Raises:
        ValueError: if a shape is wrong or no class is left.
        TypeError: if the labels are not integers or `where` is not bool.

    Example:
        >>> table = class_table([3, 1, 3, 1, 2])
        >>> table.classes.tolist(), table.counts.tolist(), table.order.tolist()
        ([1, 3], [2, 2], [1, 3, 0, 2])
    """
    labels = np.asarray(labels)
    _checks.check_labels("labels", labels, labels.shape[0] if labels.ndim else 0)
    _checks.check_positive_int("at_least", at_least, "a class needs an example")
    drawable = labels >= 0
    if where is not None:
        where = np.asarray(where)
        _checks.check_mask("where", where, labels.shape)
        drawable &= where
    indices = np.flatnonzero(drawable)
    classes, group, counts = np.unique(
        labels[indices], return_inverse=True, return_counts=True
    )
    kept = counts >= at_least
    if not kept.any():
        raise ValueError(_no_class_left(counts, at_least))
    group_kept = kept[group]
    indices, group = indices[group_kept], group[group_kept]
    counts = counts[kept]
    starts = np.cumsum(counts) - counts
    return ClassTable(
        indices[np.argsort(group, kind="stable")], starts, counts, classes[kept]
    )


def _no_class_left(counts: NDArray[np.intp], at_least: int) -> str:
    if counts.size == 0:
        return (
            "Expected at least one example with a label of 0 or more, got none; "
            "check `labels` and `where`."
        )
    return (
        f"Expected a class with at least {at_least} examples, got {counts.size} "
        f"classes of at most {counts.max()}; no positive pair can be made of classes "
        "of one example: check that labels are class indices and not example numbers."
    )


def pk_batch(
    labels: ArrayLike | ClassTable,
    *,
    classes: int,
    examples: int,
    seed: int,
    step: int,
) -> NDArray[np.intp]:
    """Draw P classes with K examples each: the batch of step `step`.

    Classes are visited in a shuffled order without repetition: an epoch is
    `number of classes // P` steps, and its order depends on (seed, epoch) alone. The
    remainder of that division sits the epoch out, so that a batch never holds a
    class twice; the next epoch has another order.

    A class with at least K examples gives K different ones, each subset equally
    likely. A smaller class gives all of its examples and fills its places by
    repeating them evenly (set `at_least` in `class_table` to leave it out instead).
    Classes of one example are left out: they can make no positive pair.

    Args:
        labels: `[n]` int, or the `ClassTable` made of them. Build the table once: it
            takes milliseconds, the batch a tenth of one.
        classes: P, at least 2.
        examples: K, at least 2.
        seed: `0 <= seed < 2**64`.
        step: the number of the step, from 0.

    Returns:
        `[classes * examples]` int, indices into `labels`; the K examples of a class
        are side by side, in random order.

    Raises:
        ValueError: if no positive or no negative pair would be possible, if there
            are fewer than P classes, or if K exceeds the size of every class.
        TypeError: if the labels, seed or step are not integers.

    Example:
        >>> labels = [0, 0, 0, 1, 1, 1, 2, 2, 2]
        >>> batch = pk_batch(labels, classes=2, examples=2, seed=0, step=5)
        >>> len(set(batch.tolist())), len({labels[i] for i in batch})
        (4, 2)

    References:
        Hermans, Beyer and Leibe, "In defense of the triplet loss for person
        re-identification", 2017, arXiv:1703.07737, section 2 (P x K batches).
    """
    table = labels if isinstance(labels, ClassTable) else class_table(labels)
    _check_pk(table, classes, examples)
    seed, step = _seed(seed), _step(step)
    total = len(table.counts)
    epoch, batch = divmod(step, total // classes)
    positions = np.arange(batch * classes, (batch + 1) * classes)
    chosen = _permuted(positions, total, seed, _CLASSES, epoch)
    drawn = _draw(table.counts[chosen], examples, _generator(seed, _EXAMPLES, step))
    return table.order[table.starts[chosen][:, None] + drawn].reshape(-1)


def shuffled_batch(size: int, *, batch: int, seed: int, step: int) -> NDArray[np.intp]:
    """Draw the batch of step `step` from shuffled epochs: each example once in each.

    The epochs' permutations follow one another without a gap, and step t takes the
    entries `t * batch, ..., (t + 1) * batch - 1` of that sequence. A batch at the end
    of an epoch is therefore filled from the next one: every batch is full, no example
    is lost, and only such a batch can hold an example twice.

    Args:
        size: the number of examples.
        batch: the number of indices to return.
        seed: `0 <= seed < 2**64`.
        step: the number of the step, from 0.

    Returns:
        `[batch]` int, indices in `[0, size)`.

    Raises:
        ValueError: if an argument is out of range.
        TypeError: if the seed or step is not an integer.

    Example:
        >>> epoch = [shuffled_batch(6, batch=2, seed=0, step=t) for t in range(3)]
        >>> sorted(np.concatenate(epoch).tolist())
        [0, 1, 2, 3, 4, 5]

    References:
        Above 4096 examples the permutation is a Feistel network of random tables on
        a mixed-radix domain, so that a step costs the batch and not the epoch. Black
        and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, section 5.
    """
    _checks.check_positive_int("size", size, "give the number of examples")
    _checks.check_positive_int("batch", batch, "give the number of examples per step")
    seed, step = _seed(seed), _step(step)
    first, last = divmod(step * batch, size), divmod((step + 1) * batch - 1, size)
    parts = []
    for epoch in range(first[0], last[0] + 1):
        start = first[1] if epoch == first[0] else 0
        stop = last[1] + 1 if epoch == last[0] else size
        positions = np.arange(start, stop)
        parts.append(_permuted(positions, size, seed, _SHUFFLE, epoch))
    return np.concatenate(parts)


def steps_per_epoch(size: int, *, batch: int) -> int:
    """Steps after which as many examples have been drawn as there are, or more.

    Args:
        size: the number of examples.
        batch: the number of examples per step; for `pk_batch`, classes * examples.

    Returns:
        `size / batch`, rounded up.

    Raises:
        ValueError: if an argument is below one.

    Example:
        >>> steps_per_epoch(5000, batch=128)
        40
    """
    _checks.check_positive_int("size", size, "give the number of examples")
    _checks.check_positive_int("batch", batch, "give the number of examples per step")
    return math.ceil(size / batch)


def _check_pk(table: ClassTable, classes: int, examples: int) -> None:
    _checks.check_positive_int("classes", classes, "give the classes of a batch")
    _checks.check_positive_int("examples", examples, "give the examples of a class")
    if examples < 2:
        raise ValueError(
            "Expected `examples` of at least 2, got 1; a class with one example in "
            "the batch makes no positive pair."
        )
    if classes < 2:
        raise ValueError(
            "Expected `classes` of at least 2, got 1; a batch of one class makes no "
            "negative pair."
        )
    if classes > len(table.counts):
        raise ValueError(
            f"Expected `classes` of at most {len(table.counts)}, the classes with "
            f"enough examples to make a pair, got {classes}; lower `classes`."
        )
    if examples > table.counts.max():
        raise ValueError(
            f"Expected `examples` of at most {table.counts.max()}, the size of the "
            f"largest class, got {examples}; lower `examples`."
        )


def _seed(seed: int) -> int:
    seed = operator.index(seed)
    if not 0 <= seed < 2**64:
        raise ValueError(f"Expected `seed` in [0, 2**64), got {seed}.")
    return seed


def _step(step: int) -> int:
    step = operator.index(step)
    if not 0 <= step < 2**63:
        raise ValueError(f"Expected `step` in [0, 2**63), got {step}.")
    return step


def _generator(seed: int, purpose: int, step: int) -> np.random.Generator:
    # The step is the counter's highest word: no step can run into the next one's.
    return np.random.Generator(
        np.random.Philox(key=seed + (purpose << 64), counter=step << 192)
    )


def _permuted(
    positions: NDArray[np.intp], size: int, seed: int, purpose: int, epoch: int
) -> NDArray[np.intp]:
    """The entries at `positions` of the permutation of `size` items of this epoch."""
    rng = _generator(seed, purpose, epoch)
    if size <= _WHOLE_PERMUTATION:
        return rng.permutation(size)[positions]
    height = math.isqrt(size - 1) + 1
    width = -(-size // height)
    tables = rng.integers(0, height * width, size=(_FEISTEL_ROUNDS, height))
    values = _feistel(positions, tables, height, width)
    # The grid has up to height - 1 cells too many. Walking on from such a cell until
    # one inside is met keeps the mapping one to one.
    outside = np.flatnonzero(values >= size)
    while outside.size:
        values[outside] = _feistel(values[outside], tables, height, width)
        outside = outside[values[outside] >= size]
    return values


def _feistel(
    values: NDArray[np.intp], tables: NDArray[np.int64], height: int, width: int
) -> NDArray[np.intp]:
    """A permutation of `height * width` cells: rounds of adding a random function."""
    row, column = np.divmod(values, width)
    for even, odd in zip(tables[::2], tables[1::2], strict=True):
        row = (row + even[column]) % height
        column = (column + odd[row]) % width
    return row * width + column


def _draw(
    counts: NDArray[np.intp], examples: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """`[classes, examples]` places within each class, distinct where it is large."""
    uniform = rng.random((examples, len(counts)))
    picked = np.empty((examples, len(counts)), np.intp)
    # Floyd's algorithm, for all classes at once: place i draws from the first
    # counts - examples + i + 1, and takes the last of these if its draw is taken.
    # Bentley and Floyd, "A sample of brilliance", CACM 1987.
    last = counts - examples
    for i in range(examples):
        draw = (uniform[i] * (last + i + 1)).astype(np.intp)
        taken = (picked[:i] == draw).any(axis=0)
        picked[i] = np.where(taken, last + i, draw)
    small = np.flatnonzero(last < 0)
    if small.size:
        picked[:, small] = _repeat(counts[small], examples, rng)
    return rng.permuted(picked, axis=0).T


def _repeat(
    counts: NDArray[np.intp], examples: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """`[examples, classes]`: all places of each small class, evenly repeated."""
    keys = rng.random((examples, len(counts)))
    rows = np.arange(examples)[:, None]
    # Places beyond the class sort last, so that the first `counts` are a permutation.
    order = np.argsort(np.where(rows < counts, keys, 2.0), axis=0)
    return np.take_along_axis(order, rows % counts, axis=0)
