"""The hardest triplet of each anchor, among candidates that come by in turn."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from metricjax import mining, rows
from metricjax.pairs import Pairs, Triplets


class _Extreme(NamedTuple):
    """The largest score so far, `[b]`, and the place of the first candidate with it."""

    score: Array
    place: Array


_NOWHERE = np.iinfo(np.int32).max


def _hardest(
    distances: Array, positive: Array, negative: Array, places: Array
) -> tuple[_Extreme, _Extreme]:
    """The farthest positive and the nearest negative of these candidates."""
    # Each apart, since a part of the candidates may hold only one of the two.
    far = mining.hard(distances, Pairs(positive, positive))
    near = mining.hard(distances, Pairs(negative, negative))

    def extreme(score: Array, index: Array, valid: Array) -> _Extreme:
        score = jnp.take_along_axis(score, index, axis=1)
        score = jnp.where(valid, score, -jnp.inf)
        return _Extreme(score[:, 0], jnp.where(valid, places[index], _NOWHERE)[:, 0])

    return (
        extreme(distances, far.positive, far.valid),
        extreme(-distances, near.negative, near.valid),
    )


def _harder(
    one: tuple[_Extreme, _Extreme], other: tuple[_Extreme, _Extreme]
) -> tuple[_Extreme, _Extreme]:
    def larger(x: _Extreme, y: _Extreme) -> _Extreme:
        # Of equal scores the first in the batch, in whatever order they come by.
        tie = (x.score == y.score) & (x.place < y.place)
        own = (x.score > y.score) | tie
        return _Extreme(*(jnp.where(own, a, b) for a, b in zip(x, y, strict=True)))

    return larger(one[0], other[0]), larger(one[1], other[1])


def _as_triplets(state: tuple[_Extreme, _Extreme]) -> Triplets:
    far, near = (extreme.place[:, None] for extreme in state)
    valid = (far < _NOWHERE) & (near < _NOWHERE)
    return Triplets(jnp.where(valid, far, 0), jnp.where(valid, near, 0), valid)


HARD = rows.Fold(_hardest, _as_triplets, _harder)
