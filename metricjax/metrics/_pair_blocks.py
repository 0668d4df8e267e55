"""All pairs of a set of embeddings, tile by tile; used by `verification`."""

import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import numerics
from metricjax.metrics._ranking import Similarity

TILE = 2048

# What a pair is.
NEITHER, IMPOSTOR, GENUINE = 0, 1, 2


class Side(NamedTuple):
    """One side of the pairs, filled up to whole tiles."""

    embeddings: Array | np.ndarray
    labels: Array | np.ndarray  # int32, negative where a row is in no pair


class Tiles(NamedTuple):
    """All pairs between two sides; of one side with itself, each pair once."""

    rows: Side  # [rows, ...]
    columns: Side  # [devices, share, ...]
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
    mesh: Mesh | None = None,
) -> Tiles:
    """Tiles of at most `size` by `size` pairs between (embeddings, labels).

    A negative label is in no pair. With a mesh each of its devices has its share of the
    columns, and is sent the rows tile by tile.
    """
    # Equal labels stay equal, whatever their dtype, once they are counted from 0.
    both = own[1] if others is None else np.concatenate([own[1], others[1]])
    values, places = np.unique(both, return_inverse=True)
    places = np.where(values[places] < 0, -1, places).astype(np.int32)
    left, right = np.split(places, [len(own[1])])
    if others is None:
        right = left
    size = min(size or TILE, max(len(left), len(right), 1))
    rows = _fill(own[0], left, size, np if mesh else jnp)
    columns = _shares((own if others is None else others)[0], right, size, mesh)
    return Tiles(rows, columns, Partial(similarity), others is None, size)


def _fill(embeddings: ArrayLike, labels: np.ndarray, multiple: int, numpy: Any) -> Side:
    """Filled up to a multiple, in arrays of NumPy or of JAX."""
    extra = -len(labels) % multiple
    x = numpy.pad(numpy.asarray(numerics.promote(embeddings)), ((0, extra), (0, 0)))
    return Side(x, numpy.asarray(np.pad(labels, (0, extra), constant_values=-1)))


def _shares(
    embeddings: ArrayLike, labels: np.ndarray, size: int, mesh: Mesh | None
) -> Side:
    if mesh is None:
        side = _fill(embeddings, labels, size, jnp)
        return jax.tree.map(lambda x: x[None], side)
    devices = mesh.devices.size
    # Filled up on the host, so that no device ever holds the whole.
    side = _fill(embeddings, labels, size * devices, np)
    side = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), side)
    return jax.device_put(side, NamedSharding(mesh, PartitionSpec(mesh.axis_names)))


def _places(tiles: Tiles) -> Iterator[tuple[int, int]]:
    (height,), (devices, width) = map(np.shape, (tiles.rows[1], tiles.columns[1]))
    # Below the diagonal there is nothing new, if one device has all columns.
    skip = tiles.alone and devices == 1
    for row in range(0, height, tiles.size):
        for column in range(row if skip else 0, width, tiles.size):
            yield row, column


def _each(function: Callable, tiles: Tiles, *args: float) -> Iterator:
    for row, column in _places(tiles):
        here = slice(row, row + tiles.size)
        yield function(
            jax.tree.map(operator.itemgetter(here), tiles.rows),
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
    rows, columns = np.size(tiles.rows.labels), np.size(tiles.columns.labels)
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
    left: Side,
    columns: Side,
    similarity: Similarity,
    row: int,
    column: int,
    *,
    alone: bool,
    size: int,
) -> tuple[Array, Array]:
    """Similarities of a tile of each device, and what each pair is.

    Both are `[devices, size, size]`.
    """
    devices, share = jnp.shape(columns.labels)

    def tile(columns: Side, first: Array) -> tuple[Array, Array]:
        right = jax.tree.map(
            lambda x: jax.lax.dynamic_slice_in_dim(x, column, size), columns
        )
        scores = similarity(jnp.asarray(left.embeddings), right.embeddings)
        scores = numerics.promote(scores)
        labels = jnp.asarray(left.labels)[:, None], right.labels[None]
        kind = jnp.where(labels[0] == labels[1], GENUINE, IMPOSTOR)
        wanted = (labels[0] >= 0) & (labels[1] >= 0)
        if alone:
            places = jnp.arange(size)
            wanted &= row + places[:, None] < first + column + places[None]
        return scores, jnp.where(wanted, kind, NEITHER)

    return jax.vmap(tile)(columns, share * jnp.arange(devices))


@functools.partial(jax.jit, static_argnames=("alone", "size"))
def _range(*args: object, alone: bool, size: int) -> tuple[Array, Array]:
    scores, kind = _pairs(*args, alone=alone, size=size)
    wanted = kind != NEITHER
    low = jnp.min(jnp.where(wanted, scores, jnp.inf))
    return low, jnp.max(jnp.where(wanted, scores, -jnp.inf))


@functools.partial(jax.jit, static_argnames=("alone", "size"))
def _codes(
    left: Side,
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
    """`kind * bins + bin` of each pair of the tiles."""
    scores, kind = _pairs(
        left, columns, similarity, row, column, alone=alone, size=size
    )
    place = jnp.clip((scores - low) * scale, 0, bins - 1).astype(jnp.int32)
    return kind * bins + place
