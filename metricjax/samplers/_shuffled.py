"""Batches of single examples, each drawn once in an epoch."""

import math

import numpy as np
from numpy.typing import NDArray

from metricjax import _checks
from metricjax.samplers import _random


def shuffled_batch(size: int, *, batch: int, seed: int, step: int) -> NDArray[np.intp]:
    """Draw the batch of step `step` from shuffled epochs: each example once in each.

    The epochs' permutations follow one another without a gap, and step t takes the
    entries `t * batch, ..., (t + 1) * batch - 1` of that sequence. A batch at the end
    of an epoch is therefore filled from the next one: every batch is full, no example
    is lost, and only such a batch can hold an example twice.

    For n views of each example, repeat the indices: `np.repeat(batch, n)` holds the
    views of an example side by side, `np.tile(batch, n)` holds whole views in a row.

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
    seed, step = _random.check_seed(seed), _random.check_step(step)
    start, stop = step * batch, (step + 1) * batch
    return _random.shuffled_epochs(start, stop, size, seed, _random.SHUFFLE)


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
