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

# Rows of one group: the maximum over it is cheap, and `k` groups are then searched.
GROUP = 16
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
    width = min(GALLERY_BLOCK, size)
    chunks = -(-size // width)

    def chunk(rows: Array, best: Neighbors, number: Array) -> tuple[Neighbors, None]:
        # The last chunk reaches back into the one before it: no copy of the gallery.
        start = jnp.minimum(number * width, size - width)
        part = jax.lax.dynamic_slice_in_dim(gallery, start, width)
        index = start + jnp.arange(width, dtype=jnp.int32)
        scores = numerics.promote(similarity(queries[rows], part))
        lowest = jnp.finfo(scores.dtype).min
        scores = jnp.where(scores >= lowest, scores, lowest)
        wanted = index >= number * width
        if gallery_where is not None:
            wanted &= jax.lax.dynamic_slice_in_dim(gallery_where, start, width)
        scores = jnp.where(wanted[None], scores, -jnp.inf)
        if alone:
            scores = jnp.where(index[None] == rows[:, None], -jnp.inf, scores)
        top, place = top_k(scores, min(k, width))
        return _merge(best, Neighbors(top, start + place), k), None

    def block(rows: Array) -> Neighbors:
        dtype = jax.eval_shape(similarity, queries[rows], gallery[:1]).dtype
        dtype = jnp.promote_types(dtype, jnp.float32)
        none = jnp.full((rows.shape[0], k), -jnp.inf, dtype)
        best = Neighbors(none, jnp.full(none.shape, -1, jnp.int32))
        step = functools.partial(chunk, rows)
        best, _ = jax.lax.scan(step, best, jnp.arange(chunks, dtype=jnp.int32))
        return best._replace(
            indices=jnp.where(best.similarities > -jnp.inf, best.indices, -1)
        )

    return jax.lax.map(block, places)


def _merge(best: Neighbors, new: Neighbors, k: int) -> Neighbors:
    # The older list stands first: it holds the lower indices, which win ties.
    scores = jnp.concatenate([best.similarities, new.similarities], axis=1)
    indices = jnp.concatenate([best.indices, new.indices], axis=1)
    top, place = jax.lax.top_k(scores, k)
    return Neighbors(top, jnp.take_along_axis(indices, place, axis=1))


def top_k(scores: Array, k: int) -> tuple[Array, Array]:
    """`jax.lax.top_k` of `[n, m]` without NaN, faster for wide rows and small `k`.

    The `k` best lie in the `k` groups with the largest maxima. Column j is in group
    `j mod (m / GROUP)`, so that the maxima vectorise. Where equal maxima leave a
    choice of groups, the lowest index might be in another one: then the plain form
    is taken, for the whole block.
    """
    rows, width = scores.shape
    groups = width // GROUP
    if width % GROUP or groups < 4 * k:
        return jax.lax.top_k(scores, k)
    grouped = scores.reshape(rows, GROUP, groups)
    peaks = jnp.max(grouped, axis=1)
    chosen = jnp.sort(jax.lax.top_k(peaks, k)[1], axis=1)
    near = jnp.take_along_axis(grouped, chosen[:, None, :], axis=2)
    # In this order the columns of `near` ascend, so that lower indices win ties.
    top, place = jax.lax.top_k(near.reshape(rows, -1), k)
    index = place // k * groups + jnp.take_along_axis(chosen, place % k, axis=1)
    ambiguous = jnp.any(jnp.sum(peaks >= top[:, -1:], axis=1) > k)
    plain = functools.partial(jax.lax.top_k, k=k)
    return jax.lax.cond(
        ambiguous, lambda s: tuple(plain(s)), lambda s: (top, index), scores
    )
