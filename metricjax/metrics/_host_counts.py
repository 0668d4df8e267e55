"""Counts of a block of queries by NumPy's sort, twelve times faster than XLA's.

Both ways give what `_ranking.Counts` holds, the relevant candidates in ascending order:
`above`, `tied`, `relevant_above`, `relevant_tied`, `valid`, each `[block, size]`.
"""

import numpy as np


def count_scores(scores: np.ndarray, relevant: np.ndarray) -> tuple[np.ndarray, ...]:
    """From the similarities `[block, N]`, and those to the relevant `[block, size]`."""
    wanted = np.sort(relevant, axis=1)
    valid = wanted < np.inf
    start, stop = _runs(wanted)
    relevant_above = valid.sum(axis=1, keepdims=True, dtype=np.int32) - stop
    above, tied = _search(np.sort(scores, axis=1), wanted)
    return above, tied, relevant_above, stop - start, valid


def _runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and past-the-last place of the equals of each value, in sorted rows."""
    size = values.shape[1]
    new = np.ones((len(values), size + 1), bool)
    new[:, 1:-1] = values[:, 1:] != values[:, :-1]
    places = np.arange(size, dtype=np.int32)
    start = np.maximum.accumulate(np.where(new[:, :-1], places, 0), axis=1)
    ends = np.where(new[:, 1:], places + 1, np.int32(size))
    return start, np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]


def _search(values: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many of the sorted `values` are above, and equal to, each wanted one."""
    stop = np.empty(wanted.shape, np.int32)
    for row, value, out in zip(values, wanted, stop, strict=True):
        out[:] = np.searchsorted(row, value, side="right")
    start = stop - 1
    # A second search only where the value before the last equal one is equal too.
    before = np.take_along_axis(values, np.maximum(start - 1, 0), axis=1)
    for i in np.flatnonzero(((before == wanted) & (start > 0)).any(axis=1)):
        start[i] = np.searchsorted(values[i], wanted[i], side="left")
    return values.shape[1] - stop, stop - start


def count_keys(keys: np.ndarray, size: int) -> tuple[np.ndarray, ...]:
    """From integers `[block, N]` in the order of the similarities, odd if relevant.

    The sort itself says where the relevant lie: a search for each costs more than it.
    """
    keys = np.sort(keys, axis=1)
    rows, width = keys.shape
    relevant = (keys & 1) == 1
    number = relevant.sum(axis=1, dtype=np.int32)
    valid = np.arange(size) < number[:, None]
    place = np.flatnonzero(relevant)
    start = np.zeros((rows, size), np.int32)
    start[valid] = place - np.repeat(width * np.arange(rows), number)
    first = np.tile(np.arange(size, dtype=np.int32), (rows, 1))
    stop, last = start + 1, first + 1
    tied = np.zeros(valid.shape, bool)
    tied[valid] = _beside_an_equal(keys >> 1, place)
    for i in np.flatnonzero(tied.any(axis=1)):
        values, some = keys[i] >> 1, tied[i]
        known = values[start[i, : number[i]]]
        wanted = values[start[i, some]]
        start[i, some] = np.searchsorted(values, wanted, side="left")
        stop[i, some] = np.searchsorted(values, wanted, side="right")
        first[i, some] = np.searchsorted(known, wanted, side="left")
        last[i, some] = np.searchsorted(known, wanted, side="right")
    return width - stop, stop - start, number[:, None] - last, last - first, valid


def _beside_an_equal(values: np.ndarray, place: np.ndarray) -> np.ndarray:
    # The end of a row and the start of the next may seem tied: the search finds not.
    known = values.take(place)
    before, behind = (values.take(place + i, mode="wrap") for i in (-1, 1))
    return (before == known) | (behind == known)
