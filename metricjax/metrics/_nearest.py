"""Exact nearest neighbours in blocks; public as `retrieval.nearest`."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import _checks, numerics, similarities
from metricjax.metrics._ranking import Similarity

# A row shorter than so many times `k` is searched as it is.
GROUPED_FROM = 64
QUERY_BLOCK = 128
GALLERY_BLOCK = 2**15


class Neighbors(NamedTuple):
    """The nearest gallery rows of each query, nearest first."""

    similarities: Array  # [queries, k], minus infinity where there are fewer than k
    indices: Array  # [queries, k] int32, -1 there


def nearest(
    queries: ArrayLike,
    gallery: ArrayLike,
    *,
    k: int,
    gallery_where: ArrayLike | None = None,
    exclude_self: bool = False,
    similarity: Similarity = similarities.cosine,
    block_size: int | None = None,
) -> Neighbors:
    """The `k` most similar gallery rows of each query, exactly.

    Blocks of queries meet blocks of the gallery, and a running list of the best is
    kept: memory is `block_size * 2**15`, whatever the size of the gallery. Of equally
    similar rows the one of lowest index comes first; NaN counts as least similar.

    Args:
        queries: `[queries, dim]`.
        gallery: `[rows, dim]`.
        k: how many; static under `jit`.
        gallery_where: bool `[rows]`, False for rows that are not to be found.
        exclude_self: whether query i is gallery row i, not to be found by itself.
        similarity: `(x [n, dim], y [m, dim]) -> [n, m]`, larger is closer.
        block_size: queries compared at once; 128 by default.

    Returns:
        `Neighbors(similarities, indices)`, each `[queries, k]`.

    Raises:
        ValueError: if shapes disagree or `k` is not positive.
        TypeError: if a dtype is wrong.

    Example:
        >>> gallery = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
        >>> nearest(jnp.array([[2.0, 0.0]]), gallery, k=2).indices.tolist()
        [[0, 2]]
    """
    _checks.check_embeddings("queries", queries)
    _checks.check_embeddings("gallery", gallery)
    _checks.check_same_dim("queries", queries, "gallery", gallery)
    _checks.check_positive_int("k", k, "ask for at least one neighbour")
    x, gallery = numerics.promote(queries), numerics.promote(gallery)
    if not (len(x) and len(gallery)):
        raise ValueError(
            f"Expected queries and a gallery, got {_checks.describe(x)} and "
            f"{_checks.describe(gallery)}; there is nothing to search."
        )
    if exclude_self and len(x) != len(gallery):
        raise ValueError(
            f"Expected as many queries as gallery rows with `exclude_self`, got "
            f"{len(x)} and {len(gallery)}; pass the same array twice."
        )
    if gallery_where is not None:
        _checks.check_mask("gallery_where", gallery_where, (len(gallery),))
        gallery_where = jnp.asarray(gallery_where)
    rows = len(x)
    block = min(block_size or QUERY_BLOCK, max(rows, 1))
    blocks = max(-(-rows // block), 1)
    # The last block is filled up with repetitions, which are cut off again.
    places = jnp.minimum(jnp.arange(blocks * block), rows - 1).reshape(blocks, block)
    found = _blocks(
        x, gallery, gallery_where, places, Partial(similarity), k=k, alone=exclude_self
    )
    return jax.tree.map(lambda x: x.reshape(-1, k)[:rows], found)


@functools.partial(jax.jit, static_argnames=("k", "alone"))
def _blocks(
    queries: Array,
    gallery: Array,
    gallery_where: Array | None,
    places: Array,
    similarity: Similarity,
    *,
    k: int,
    alone: bool,
) -> Neighbors:
    size = gallery.shape[0]
    chunks = -(-size // GALLERY_BLOCK)
    group = group_size(-(-size // chunks), k)
    width = -(-size // (chunks * group)) * group

    def chunk(best: Neighbors, number: Array) -> tuple[Neighbors, None]:
        # The last chunk is filled up with repetitions of the last row.
        index = number * width + jnp.arange(width, dtype=jnp.int32)
        wanted, inside = index < size, jnp.minimum(index, size - 1)
        if gallery_where is not None:
            wanted &= gallery_where[inside]
        part = gallery[inside]

        def block(args: tuple[Array, Neighbors]) -> Neighbors:
            rows, known = args
            scores = numerics.promote(similarity(queries[rows], part))
            lowest = jnp.finfo(scores.dtype).min
            scores = jnp.where(scores >= lowest, scores, lowest)
            scores = jnp.where(wanted[None], scores, -jnp.inf)
            if alone:
                scores = jnp.where(index[None] == rows[:, None], -jnp.inf, scores)
            top, place = top_k(scores, min(k, width), group)
            return _merge(known, Neighbors(top, number * width + place), k)

        return jax.lax.map(block, (places, best)), None

    dtype = jax.eval_shape(similarity, queries[:1], gallery[:1]).dtype
    dtype = jnp.promote_types(dtype, jnp.float32)
    none = jnp.full((*places.shape, k), -jnp.inf, dtype)
    best = Neighbors(none, jnp.full(none.shape, -1, jnp.int32))
    # Chunks outside, blocks inside: a chunk is cut out of the gallery once.
    best, _ = jax.lax.scan(chunk, best, jnp.arange(chunks, dtype=jnp.int32))
    return best._replace(
        indices=jnp.where(best.similarities > -jnp.inf, best.indices, -1)
    )


def _merge(best: Neighbors, new: Neighbors, k: int) -> Neighbors:
    # The older list stands first: it holds the lower indices, which win ties.
    scores = jnp.concatenate([best.similarities, new.similarities], axis=1)
    indices = jnp.concatenate([best.indices, new.indices], axis=1)
    top, place = jax.lax.top_k(scores, k)
    return Neighbors(top, jnp.take_along_axis(indices, place, axis=1))


def group_size(width: int, k: int) -> int:
    """Of `top_k`, about `sqrt(width / k)`: as many groups as members of `k` of them."""
    return 1 << ((width // k).bit_length() // 2) if width >= GROUPED_FROM * k else 1


def top_k(scores: Array, k: int, size: int) -> tuple[Array, Array]:
    """`jax.lax.top_k` of `[n, m]`, faster in groups of `size` columns, of m a divisor.

    The `k` best lie in the `k` groups of the largest maxima, the first of equal ones:
    a group's columns are neighbours, so that lower indices win ties as in the plain
    form.
    """
    if size == 1:
        return jax.lax.top_k(scores, k)
    groups = scores.reshape(len(scores), -1, size)
    _, chosen = jax.lax.top_k(jnp.max(groups, axis=2), k)
    chosen = jnp.sort(chosen, axis=1)
    near = jnp.take_along_axis(groups, chosen[:, :, None], axis=1)
    top, place = jax.lax.top_k(near.reshape(len(scores), -1), k)
    group = jnp.take_along_axis(chosen, place // size, axis=1)
    return top, group * size + place % size
