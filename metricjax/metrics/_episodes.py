"""Which items make up each few-shot task; public in `fewshot`."""

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from metricjax import _checks


class Episodes(NamedTuple):
    """Rows of a labelled set that make up each episode; way w is one class."""

    support: np.ndarray  # [episodes, ways, shots] int32
    queries: np.ndarray  # [episodes, ways, queries] int32


def sample_episodes(
    labels: ArrayLike,
    *,
    ways: int,
    shots: int,
    episodes: int,
    seed: int,
    queries: int = 1,
    groups: ArrayLike | None = None,
) -> Episodes:
    """Draw N-way K-shot episodes; on the host.

    Classes are drawn without repetition, then items of each. With `groups` (of an
    alphabet, a species ...) a group is drawn first, evenly among those with enough
    classes, and all classes of the episode from it: harder by far than drawing them
    anywhere. Episode i depends on the labels, the seed and i alone.

    Args:
        labels: `[batch]` int; a negative label is in no class. Classes with fewer than
            `shots + queries` items are not drawn.
        ways: the number N of classes in an episode.
        shots: the number K of support items of each class.
        episodes: how many; papers use 600 to 10,000.
        seed: of the draws.
        queries: queries of each class.
        groups: `[batch]` int, the same for all items of a class.

    Returns:
        `Episodes`; no item is twice in one episode.

    Raises:
        ValueError: if there are too few classes, or a class is in two groups.
        TypeError: if a dtype is wrong.

    Example:
        >>> labels = np.repeat(np.arange(6), 4)
        >>> drawn = sample_episodes(labels, ways=5, shots=1, episodes=10, seed=0)
        >>> drawn.support.shape, drawn.queries.shape
        ((10, 5, 1), (10, 5, 1))
    """
    for name, value in (("ways", ways), ("shots", shots), ("queries", queries)):
        _checks.check_positive_int(name, value, "an episode needs at least one")
    _checks.check_positive_int("episodes", episodes, "draw at least one")
    labels = np.asarray(labels)
    _checks.check_labels("labels", labels, labels.size)
    members = _members(labels, shots + queries)
    pools = _pools(members, groups, labels.size, ways)
    drawn = [
        _draw(np.random.default_rng([seed, i]), pools, ways, shots + queries)
        for i in range(episodes)
    ]
    rows = np.array(drawn, np.int32)
    return Episodes(rows[:, :, :shots], rows[:, :, shots:])


def context_episodes(
    labels: ArrayLike,
    contexts: ArrayLike,
    *,
    ways: int,
    seed: int,
    groups: ArrayLike | None = None,
) -> Episodes:
    """One-shot tasks between every two contexts: support of one, queries of the other.

    For Omniglot the contexts are drawers and the groups alphabets: for every alphabet
    and every ordered pair of drawers, `ways` random characters, all supports drawn by
    one person and all queries by the other. That is how the official runs are made, but
    for all alphabets and pairs of drawers instead of chosen ones: 20 alphabets of 20
    drawers give 7,600 tasks.

    Args:
        labels: `[batch]` int; a negative label is in no class.
        contexts: `[batch]` int; each class has at most one item of each context.
        ways: classes of a task, all of one group; a group with fewer gives none.
        seed: which classes, of groups that have more than `ways`.
        groups: `[batch]` int, the same for all items of a class; one group if None.

    Returns:
        `Episodes` of one support and one query of each class.

    Raises:
        ValueError: if no two contexts share `ways` classes of a group, or a class has
            two items of one context.
        TypeError: if a dtype is wrong.

    Example:
        >>> labels, drawers = np.repeat(np.arange(3), 2), np.tile(np.arange(2), 3)
        >>> tasks = context_episodes(labels, drawers, ways=3, seed=0)
        >>> tasks.support.shape, tasks.support[0, 0, 0] != tasks.queries[0, 0, 0]
        ((2, 3, 1), np.True_)

    References:
        Lake, Salakhutdinov & Tenenbaum, Science 2015, supplementary material (tasks).
    """
    _checks.check_positive_int("ways", ways, "a task needs at least one class")
    labels, contexts = np.asarray(labels), np.asarray(contexts)
    groups = np.zeros_like(labels) if groups is None else np.asarray(groups)
    for name, values in (
        ("labels", labels),
        ("contexts", contexts),
        ("groups", groups),
    ):
        _checks.check_labels(name, values, labels.size)
    support, queries = [], []
    for group in np.unique(groups[labels >= 0]):
        rows = np.flatnonzero((groups == group) & (labels >= 0))
        table = _by_context(labels[rows], contexts[rows], rows)
        generator = np.random.default_rng([seed, int(group)])
        for i, j in itertools.permutations(range(table.shape[1]), 2):
            both = np.flatnonzero((table[:, i] >= 0) & (table[:, j] >= 0))
            if len(both) >= ways:
                drawn = generator.permutation(both)[:ways]
                support.append(table[drawn, i])
                queries.append(table[drawn, j])
    if not support:
        raise ValueError(
            f"Expected a group with {ways} classes that two contexts share, got none; "
            "lower `ways`."
        )
    return Episodes(
        np.array(support, np.int32)[..., None], np.array(queries, np.int32)[..., None]
    )


def _by_context(
    labels: np.ndarray, contexts: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """The row of each class (first axis) and context, -1 where there is none."""
    classes, of_class = np.unique(labels, return_inverse=True)
    present, of_context = np.unique(contexts, return_inverse=True)
    table = np.full((len(classes), len(present)), -1)
    table[of_class, of_context] = rows
    if np.count_nonzero(table >= 0) != len(rows):
        raise ValueError(
            "Expected at most one item of each class in each context, got more; number "
            "the contexts apart."
        )
    return table


def _members(labels: np.ndarray, needed: int) -> list[np.ndarray]:
    """Rows of each class that has as many as needed."""
    order = np.argsort(labels, kind="stable")
    values, starts = np.unique(labels[order], return_index=True)
    parts = zip(values, np.split(order, starts[1:]), strict=True)
    return [rows for value, rows in parts if value >= 0 and len(rows) >= needed]


def _pools(
    members: list[np.ndarray], groups: ArrayLike | None, rows: int, ways: int
) -> list[list[np.ndarray]]:
    """Classes that may meet in an episode, by group."""
    if groups is None:
        pools = [members]
    else:
        groups = np.asarray(groups)
        _checks.check_labels("groups", groups, rows)
        by_group: dict[int, list[np.ndarray]] = {}
        for items in members:
            group, *others = np.unique(groups[items])
            if others:
                raise ValueError(
                    f"Expected each class in one group, got groups {[group, *others]} "
                    f"for the class of row {items[0]}; give equal classes of different "
                    "groups different labels."
                )
            by_group.setdefault(int(group), []).append(items)
        pools = [by_group[group] for group in sorted(by_group)]
    enough = [pool for pool in pools if len(pool) >= ways]
    if not enough:
        raise ValueError(
            f"Expected at least {ways} classes with enough items, got "
            f"{max(map(len, pools), default=0)}; lower `ways`, `shots` or `queries`."
        )
    return enough


def _draw(
    generator: np.random.Generator,
    pools: list[list[np.ndarray]],
    ways: int,
    items: int,
) -> list[np.ndarray]:
    pool = pools[generator.integers(len(pools))]
    chosen = generator.choice(len(pool), ways, replace=False)
    return [generator.choice(pool[c], items, replace=False) for c in chosen]
