"""Shuffled epochs, counted one by one over many steps."""

import numpy as np
import pytest

from metricjax import samplers
from tests.samplers import chance


@pytest.mark.parametrize("size", [1, 7, 4096, 4097, 5000, 66_049])
def test_an_epoch_holds_every_example_once(size):
    batch = 64
    steps = -(-3 * size // batch)
    drawn = np.concatenate(
        [
            samplers.shuffled_batch(size, batch=batch, seed=2, step=t)
            for t in range(steps)
        ]
    )
    epochs = drawn[: 3 * size].reshape(3, size)
    for epoch in epochs:
        assert np.bincount(epoch, minlength=size).tolist() == [1] * size
    if size > 1:
        assert (epochs[0] != epochs[1]).any()
        assert (epochs[1] != epochs[2]).any()


def test_batches_do_not_depend_on_how_an_epoch_is_cut():
    size = 5003
    whole = samplers.shuffled_batch(size, batch=2 * size, seed=0, step=0)
    parts = [samplers.shuffled_batch(size, batch=97, seed=0, step=t) for t in range(80)]
    np.testing.assert_array_equal(np.concatenate(parts), whole[: 97 * 80])


@pytest.mark.parametrize("size", [4, 4100])
def test_every_example_is_equally_likely_in_every_place(size):
    draws = 2000
    first = [
        samplers.shuffled_batch(size, batch=size, seed=seed, step=0)[[0, size // 2]]
        for seed in range(draws)
    ]
    for place in np.array(first).T:
        cells = np.bincount(place * 4 // size, minlength=4)
        assert chance.is_plausible(cells)


def test_neighbours_in_a_large_epoch_are_independent():
    size = 50_000
    order = samplers.shuffled_batch(size, batch=size, seed=0, step=0)
    cells = order * 8 // size
    for lag in (1, 2, 223, 224, 225):
        pairs = cells[:-lag] * 8 + cells[lag:]
        assert chance.is_plausible(np.bincount(pairs, minlength=64))
    rank_correlation = np.corrcoef(order, np.arange(size))[0, 1]
    assert abs(rank_correlation) < chance.SIGMAS / np.sqrt(size)


def test_a_huge_data_set_costs_only_the_batch():
    batch = samplers.shuffled_batch(10**12, batch=8, seed=0, step=10**9)
    assert len(set(batch.tolist())) == 8
    assert batch.max() < 10**12


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"size": 0}, ValueError),
        ({"batch": 0}, ValueError),
        ({"seed": 2**64}, ValueError),
        ({"step": -1}, ValueError),
        ({"step": 0.5}, TypeError),
    ],
)
def test_shuffled_batch_refuses_bad_arguments(change, error):
    arguments = {"size": 10, "batch": 4, "seed": 0, "step": 0} | change
    size = arguments.pop("size")
    with pytest.raises(error):
        samplers.shuffled_batch(size, **arguments)


def test_steps_per_epoch_rounds_up():
    sizes = [1, 127, 128, 129, 5000]
    steps = [samplers.steps_per_epoch(size, batch=128) for size in sizes]
    assert steps == [1, 1, 1, 2, 40]
    with pytest.raises(ValueError, match="batch"):
        samplers.steps_per_epoch(5, batch=0)
