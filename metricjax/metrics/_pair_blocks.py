"""All pairs of a set of embeddings, tile by tile; used by `verification`."""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import numerics
from metricjax.metrics._ranking import Similarity

TILE = 2048

# What a pair is.
NEITHER, IMPOSTOR, GENUINE = 0, 1, 2


class Side(NamedTuple):
    """One side of the pairs, filled up to whole tiles."""

    embeddings: Array
    labels: Array  # int32, negative where a row is in no pair


class Tiles(NamedTuple):
    """All pairs between two sides; of one side with itself, each pair once."""

    rows: Side
    columns: Side
    similarity: Similarity
    alone: bool
    size: int


class Counted(NamedTuple):
    """Pairs by bins of similarity, from `low` upwards in steps of `width`."""

    low: float
    width: float
    impostors: np.ndarray
    genuine: np.ndarray


def make_tiles(
    own: tuple[ArrayLike, np.ndarray],
    others: tuple[ArrayLike, np.ndarray] | None,
    similarity: Similarity,
    size: int | None,
) -> Tiles:
    """Tiles of at most `size` by `size` pairs between (embeddings, labels).

    A negative label is in no pair.
    """
    # Equal labels stay equal, whatever their dtype, once they are counted from 0.
    both = own[1] if others is None else np.concatenate([own[1], others[1]])
    values, places = np.unique(both, return_inverse=True)
    places = np.where(values[places] < 0, -1, places).astype(np.int32)
    left, right = np.split(places, [len(own[1])])
    size = min(size or TILE, max(len(left), len(right), 1))
    rows = _fill(own[0], left, size)
    columns = rows if others is None else _fill(others[0], right, size)
    return Tiles(rows, columns, Partial(similarity), others is None, size)


def _fill(embeddings: ArrayLike, labels: np.ndarray, size: int) -> Side:
    extra = -len(labels) % size
    x = jnp.pad(numerics.promote(embeddings), ((0, extra), (0, 0)))
    return Side(x, jnp.asarray(np.pad(labels, (0, extra), constant_values=-1)))


def _places(tiles: Tiles) -> Iterator[tuple[int, int]]:
    height, width = len(tiles.rows.labels), len(tiles.columns.labels)
    for row in range(0, height, tiles.size):
        for column in range(row if tiles.alone else 0, width, tiles.size):
            yield row, column


def _each(function: Callable, tiles: Tiles, *args: float) -> Iterator:
    for row, column in _places(tiles):
        yield function(
            tiles.rows,
            tiles.columns,
            tiles.similarity,
            row,
            column,
            *args,
            alone=tiles.alone,
            size=tiles.size,
        )


def number(tiles: Tiles) -> int:
    """How many pairs there are, padding included."""
    rows, columns = len(tiles.rows.labels), len(tiles.columns.labels)
    return rows * (rows - 1) // 2 if tiles.alone else rows * columns


def gather(tiles: Tiles) -> tuple[np.ndarray, np.ndarray]:
    """The similarity of every pair, and whether it is genuine; in no useful order."""
    scores, same = [], []
    for tile, kind in _each(_pairs, tiles):
        kind = np.asarray(kind)
        scores.append(np.asarray(tile)[kind != NEITHER])
        same.append(kind[kind != NEITHER] == GENUINE)
    return np.concatenate(scores), np.concatenate(same)


def count(tiles: Tiles, bins: int) -> Counted:
    """All pairs counted in `bins` equal bins from their lowest to their highest score.

    Two passes: the first finds the range.
    """
    ends = np.array([jax.device_get(ends) for ends in _each(_range, tiles)], np.float64)
    low, high = ends[:, 0].min(), ends[:, 1].max()
    if not np.isfinite([low, high]).all():
        raise ValueError(
            "Expected finite similarities, got NaN or infinity (or no pair at all); "
            "check the embeddings for NaN."
        )
    width = max((high - low) / bins, np.finfo(np.float32).tiny)
    counts = np.zeros(3 * bins, np.int64)
    for codes in _each(_codes, tiles, low, 1 / width, bins):
        counts += np.bincount(np.asarray(codes).ravel(), minlength=3 * bins)
    counts = counts.reshape(3, bins)
    return Counted(low, width, counts[IMPOSTOR], counts[GENUINE])


@functools.partial(jax.jit, static_argnames=("alone", "size"))
def _pairs(
    rows: Side,
    columns: Side,
    similarity: Similarity,
    row: int,
    column: int,
    *,
    alone: bool,
    size: int,
) -> tuple[Array, Array]:
    """Similarities of one tile, and what each pair is."""

    def cut(side: Side, start: int) -> Side:
        return jax.tree.map(
            lambda x: jax.lax.dynamic_slice_in_dim(x, start, size), side
        )

    left, right = cut(rows, row), cut(columns, column)
    scores = numerics.promote(similarity(left.embeddings, right.embeddings))
    kind = jnp.where(left.labels[:, None] == right.labels[None], GENUINE, IMPOSTOR)
    wanted = (left.labels[:, None] >= 0) & (right.labels[None] >= 0)
    if alone:
        places = jnp.arange(size)
        wanted &= row + places[:, None] < column + places[None]
    return scores, jnp.where(wanted, kind, NEITHER)


@functools.partial(jax.jit, static_argnames=("alone", "size"))
def _range(*args: object, alone: bool, size: int) -> tuple[Array, Array]:
    scores, kind = _pairs(*args, alone=alone, size=size)
    wanted = kind != NEITHER
    low = jnp.min(jnp.where(wanted, scores, jnp.inf))
    return low, jnp.max(jnp.where(wanted, scores, -jnp.inf))


@functools.partial(jax.jit, static_argnames=("alone", "size"))
def _codes(
    rows: Side,
    columns: Side,
    similarity: Similarity,
    row: int,
    column: int,
    low: float,
    scale: float,
    bins: int,
    *,
    alone: bool,
    size: int,
) -> Array:
    """`kind * bins + bin` of each pair of a tile."""
    scores, kind = _pairs(
        rows, columns, similarity, row, column, alone=alone, size=size
    )
    place = jnp.clip((scores - low) * scale, 0, bins - 1).astype(jnp.int32)
    return kind * bins + place
