"""Examples grouped by class, and batches of P classes with K examples each."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metricjax import _checks
from metricjax.samplers import _random


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
    cure = "lower `at_least`."
    if counts.max() == 1:
        cure = (
            "no positive pair can be made of classes of one example: check that labels "
            "are class indices and not example numbers."
        )
    return (
        f"Expected a class with at least {at_least} examples, got {counts.size} "
        f"classes of at most {counts.max()}; {cure}"
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
    seed, step = _random.check_seed(seed), _random.check_step(step)
    total = len(table.counts)
    epoch, batch = divmod(step, total // classes)
    positions = np.arange(batch * classes, (batch + 1) * classes)
    chosen = _random.permuted(positions, total, seed, _random.CLASSES, epoch)
    rng = _random.generator(seed, _random.EXAMPLES, step)
    drawn = _random.draw(table.counts[chosen], examples, rng)
    return table.order[table.starts[chosen][:, None] + drawn].reshape(-1)


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
