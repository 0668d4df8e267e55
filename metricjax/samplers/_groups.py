"""Batches of P classes with K examples each, all classes of one group."""

import numpy as np
from numpy.typing import NDArray

from metricjax.samplers import _draws, _random
from metricjax.samplers._group_table import GroupTable, check_sizes


def grouped_pk_batch(
    table: GroupTable,
    *,
    classes: int,
    examples: int,
    seed: int,
    step: int,
    shared_contexts: bool = False,
) -> NDArray[np.intp]:
    """Draw P classes of one group with K examples each: the batch of step `step`.

    Classes of one group (characters of an alphabet, species of a genus) are the hard
    negatives that batches of any classes seldom hold.

    A group is drawn with a probability that is proportional to its number of classes
    g, and then P of its classes: `g / total * P / g` makes every class equally likely,
    where groups drawn evenly would show the classes of small groups more often. To
    make it exact, each class takes its turn, once in an epoch of as many steps as
    there are classes: the batch is of its group, and holds it along with P - 1 others
    drawn at random. Groups with fewer than P classes are left out.

    No example is twice in a batch. With contexts in the table, the K examples of a
    class are of K distinct contexts, each set equally likely, and one example is drawn
    of each.

    Args:
        table: the `GroupTable` of the labels.
        classes: P, at least 2.
        examples: K, at least 2.
        seed: `0 <= seed < 2**64`.
        step: the number of the step, from 0.
        shared_contexts: whether all classes take the same K contexts, in the same
            order, as in the official one-shot runs of Omniglot, where one person drew
            all supports and another all queries. Contexts that some class of the group
            lacks are not drawn, and groups with fewer than K others are left out.

    Returns:
        `[classes * examples]` int, indices into the labels; the K examples of a class
        are side by side, in random order.

    Raises:
        ValueError: if no positive or no negative pair would be possible, a class of
            the table is too small, or no group is large enough.
        TypeError: if the seed or step is not an integer.

    Example:
        >>> from metricjax.samplers import group_table
        >>> labels, alphabets = np.repeat(np.arange(6), 4), np.repeat([0, 1], 12)
        >>> table = group_table(labels, alphabets)
        >>> batch = grouped_pk_batch(table, classes=3, examples=2, seed=0, step=0)
        >>> len(set(batch.tolist())), len(set(alphabets[batch].tolist()))
        (6, 1)

    References:
        Lake, Salakhutdinov and Tenenbaum, "Human-level concept learning through
        probabilistic program induction", Science 350(6266), 2015 (one-shot tasks
        within an alphabet).
    """
    _draws.check_two("classes", classes, "a batch of one class has no negative pair")
    _draws.check_two("examples", examples, "one example has no positive pair")
    check_sizes(table, examples)
    seed, step = _random.check_seed(seed), _random.check_step(step)
    usable = _draws.large_groups(table, "classes", classes)
    if shared_contexts:
        usable = _draws.sharing_groups(table, usable, examples)
    rng = _random.generator(seed, _random.GROUP_EXAMPLES, step)
    turn = _draws.turns(table, usable, step, step + 1, seed, _random.GROUP_CLASSES)
    chosen = _draws.with_others(table, turn, classes, rng)
    if shared_contexts:
        cells = _draws.shared_cells(table, int(turn.groups[0]), chosen, examples, rng)
    else:
        cells = _draws.distinct_cells(table, chosen, examples, rng)
    return _draws.one_of_each(table, cells, rng).reshape(-1)
