"""Random numbers and permutations that any step can make anew."""

import math
import operator

import numpy as np
from numpy.typing import NDArray

# One random stream per purpose, so that no two draws share their numbers. The numbers
# are part of what a seed means: never renumber them.
CLASSES, EXAMPLES, SHUFFLE = 0, 1, 2
GROUP_CLASSES, GROUP_EXAMPLES = 3, 4
EPISODE_CLASSES, EPISODE_EXAMPLES = 5, 6
SAME_CLASSES, DIFFERENT_CLASSES, PAIR_EXAMPLES = 7, 8, 9

# Up to this size a permutation is drawn whole; above it, entry by entry.
_WHOLE_PERMUTATION = 4096
_FEISTEL_ROUNDS = 6


def check_seed(seed: int) -> int:
    """The seed as a Python integer, or an error."""
    seed = operator.index(seed)
    if not 0 <= seed < 2**64:
        raise ValueError(f"Expected `seed` in [0, 2**64), got {seed}.")
    return seed


def check_step(step: int) -> int:
    """The step as a Python integer, or an error."""
    step = operator.index(step)
    if not 0 <= step < 2**63:
        raise ValueError(f"Expected `step` in [0, 2**63), got {step}.")
    return step


def generator(seed: int, purpose: int, step: int) -> np.random.Generator:
    """The generator of a purpose at a step (or an epoch)."""
    # The step is the counter's highest word: no step can run into the next one's.
    return np.random.Generator(
        np.random.Philox(key=seed + (purpose << 64), counter=step << 192)
    )


def shuffled_epochs(
    start: int, stop: int, size: int, seed: int, purpose: int
) -> NDArray[np.intp]:
    """Entries `start, ..., stop - 1` of the permutations of all epochs in a row."""
    first, last = divmod(start, size), divmod(stop - 1, size)
    parts = []
    for epoch in range(first[0], last[0] + 1):
        begin = first[1] if epoch == first[0] else 0
        end = last[1] + 1 if epoch == last[0] else size
        parts.append(permuted(np.arange(begin, end), size, seed, purpose, epoch))
    return np.concatenate(parts)


def permuted(
    positions: NDArray[np.intp], size: int, seed: int, purpose: int, epoch: int
) -> NDArray[np.intp]:
    """The entries at `positions` of the permutation of `size` items of this epoch."""
    rng = generator(seed, purpose, epoch)
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


def draw(
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
