"""Few-shot episodes to train on, one at each step."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metricjax import _checks
from metricjax.samplers import _draws, _random
from metricjax.samplers._classes import ClassTable
from metricjax.samplers._group_table import GroupTable, as_group_table


class Episode(NamedTuple):
    """Examples of one episode; way w is one class.

    Attributes:
        support: `[ways, shots]` int, example indices.
        queries: `[ways, queries]` int, example indices.
    """

    support: NDArray[np.intp]
    queries: NDArray[np.intp]


def episode_batch(
    labels: ArrayLike | ClassTable | GroupTable,
    *,
    ways: int,
    shots: int,
    queries: int,
    seed: int,
    step: int,
    groups: ArrayLike | None = None,
) -> Episode:
    """Draw the N-way K-shot episode of step `step`, to train on.

    With groups, all classes of an episode are of one group. Each class takes its turn
    once in an epoch and is joined by others of its group, as in `grouped_pk_batch`, so
    that all classes are equally likely. (`metrics.fewshot.sample_episodes` draws groups
    evenly, as tests do, and makes many episodes at once.)

    Args:
        labels: `[n]` int, or the table made of them by `class_table` or `group_table`
            with `at_least = shots + queries`. Build the table once.
        ways: N, the classes of the episode, at least 2.
        shots: K, the support examples of each class.
        queries: the queries of each class.
        seed: `0 <= seed < 2**64`.
        step: the number of the step, from 0.
        groups: `[n]` int, the group of each label, where labels are given.

    Returns:
        An `Episode` of indices into the labels; no example is twice in it. Of a table
        with contexts, the examples of a class are of distinct contexts. Classes with
        fewer than `shots + queries` examples are left out where labels are given.

    Raises:
        ValueError: if there are too few classes or examples.
        TypeError: if the labels, seed or step are not integers.

    Example:
        >>> labels = np.repeat(np.arange(6), 4)
        >>> one = episode_batch(labels, ways=5, shots=1, queries=2, seed=0, step=0)
        >>> one.support.shape, one.queries.shape
        ((5, 1), (5, 2))

    References:
        Vinyals et al., "Matching networks for one shot learning", NeurIPS 2016,
        arXiv:1606.04080, section 2.2 (training as one is tested).
    """
    _draws.check_two("ways", ways, "with one way there is nothing to choose")
    _checks.check_positive_int("shots", shots, "a class needs a support example")
    _checks.check_positive_int("queries", queries, "a class needs a query")
    examples = shots + queries
    table = as_group_table(labels, groups, at_least=examples)
    seed, step = _random.check_seed(seed), _random.check_step(step)
    usable = _draws.large_groups(table, "ways", ways)
    rng = _random.generator(seed, _random.EPISODE_EXAMPLES, step)
    turn = _draws.turns(table, usable, step, step + 1, seed, _random.EPISODE_CLASSES)
    chosen = _draws.with_others(table, turn, ways, rng)
    cells = _draws.distinct_cells(table, chosen, examples, rng)
    drawn = _draws.one_of_each(table, cells, rng)
    return Episode(drawn[:, :shots], drawn[:, shots:])
