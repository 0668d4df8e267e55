"""The engine of the retrieval metrics: ranks of relevant candidates, by counting.

A ranking metric of one query needs, for each relevant candidate, how many candidates
lie above it. So nothing is ranked: the similarities of a block of queries to all
candidates are compared with those of the relevant ones, and counted. Memory is
`block * N`, and a class with thousands of members is as exact as one with two.

Ties have one rule: a metric is its mean over all orders of the tied candidates
(McSherry & Najork 2008). A relevant candidate lies in a group of `tied` equal
candidates, `relevant_tied` of them relevant, below `above` others, `relevant_above`
of them relevant; every metric has a closed form in these four counts, but the
reciprocal rank and the hit rate, which are summed over the group.
"""

import collections
import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial
from jax.typing import DTypeLike

from metricjax import _cores, numerics, similarities
from metricjax.metrics import _host_counts

Similarity = Callable[[Array, Array], Array]

# Up to so many relevant candidates of a query, a pass over the block for each of them
# is cheaper than a sort: by NumPy on the host, and by XLA.
COUNTED_ON_HOST = 16
COUNTED_BY_XLA = 512
# Similarities in a block: 8 MiB on a CPU, about the share of a core in the cache.
BLOCK_ON_CPU = 2**21
BLOCK = 2**25
# Of them, what a thread of the host counts at once: its arrays are small and reused.
PART = 2**18


class Queries(NamedTuple):
    """A block of queries, or all of them."""

    embeddings: Array  # [queries, dim]
    start: Array  # first candidate of the query's class, as a position in `order`
    stop: Array  # one past the last
    own: Array  # the query's own position in `order`; past the end if not a candidate


class Candidates(NamedTuple):
    """What every query is compared with."""

    embeddings: Array  # [candidates, dim]
    order: Array  # candidates sorted by label
    where: Array | None


class Counts(NamedTuple):
    """Where the relevant candidates of a block of queries lie; each `[block, size]`."""

    above: Array
    tied: Array
    relevant_above: Array
    relevant_tied: Array
    valid: Array


class First(NamedTuple):
    """The group that holds a query's first relevant candidate; each `[queries]`."""

    above: Array
    tied: Array
    relevant: Array


class Sums(NamedTuple):
    """Sums over the relevant candidates of a query; a leading axis of queries."""

    hits: Array  # [queries, ks] expected number among the first k
    gains: Array  # [queries, ks] discounted gain of the first k
    gain: Array  # of the whole ranking
    early_hits: Array  # among the first R
    precision: Array  # precision at the rank of each
    early_precision: Array  # of those among the first R
    first: First


class Tables(NamedTuple):
    """Prefix sums of 1/i and of 1/log2(1 + i), each as a high and a low part."""

    harmonic: Array
    discount: Array


def make_tables(size: int, dtype: DTypeLike) -> Tables:
    """Tables for ranks up to `size`."""
    ranks = np.arange(1.0, size + 1)
    return Tables(_prefix(1 / ranks, dtype), _prefix(1 / np.log2(1 + ranks), dtype))


def _prefix(terms: np.ndarray, dtype: DTypeLike) -> Array:
    sums = np.concatenate([[0.0], np.cumsum(terms)])
    high = sums.astype(dtype)
    # The low part keeps a short sum far down the table as exact as one at its top.
    return jnp.asarray(np.stack([high, (sums - high).astype(dtype)]))


def between(table: Array, start: Array, stop: Array) -> Array:
    """Sum of the terms start + 1 ... stop of a table."""
    high, low = table
    return (high[stop] - high[start]) + (low[stop] - low[start])


def prefix(table: Array, stop: Array) -> Array:
    """Sum of the terms 1 ... stop of a table."""
    return table[0][stop] + table[1][stop]


def compare(
    queries: Queries, candidates: Candidates, similarity: Similarity, size: int
) -> tuple[Array, Array]:
    """Similarities to all `[block, N]`, and to the relevant `[block, size]`.

    Candidates that do not count (padding, the query itself) get minus infinity, and
    empty slots among the relevant plus infinity. NaN and minus infinity become the
    lowest finite number: they tie with each other, below the rest.
    """
    scores = numerics.promote(similarity(queries.embeddings, candidates.embeddings))
    lowest = jnp.finfo(scores.dtype).min
    scores = jnp.where(scores >= lowest, jnp.minimum(scores, -lowest), lowest)
    if candidates.where is not None:
        scores = jnp.where(candidates.where[None], scores, -jnp.inf)
    rows = jnp.arange(scores.shape[0])
    own = jnp.take(
        candidates.order, queries.own, mode="fill", fill_value=scores.shape[1]
    )
    scores = scores.at[rows, own].set(-jnp.inf, mode="drop")
    places = queries.start[:, None] + jnp.arange(size, dtype=jnp.int32)[None]
    places = places + (places >= queries.own[:, None]).astype(jnp.int32)
    valid = places < queries.stop[:, None]
    members = jnp.take(candidates.order, places, mode="clip")
    relevant = jnp.take_along_axis(scores, members, axis=1)
    return scores, jnp.where(valid, relevant, jnp.inf)


def cosine_keys(queries: Queries, candidates: Candidates, place: Array) -> Array:
    """Integers `[block, N]` in the order of the cosines, odd where relevant.

    A float's bits are an integer of the same order, and a cosine's exponent leaves one
    of them free. Candidates that do not count get the lowest integer, which is even.

    Args:
        queries: the block.
        candidates: of unit norm or zero.
        place: `[N]`, of each candidate its position in `order`.
    """
    units = numerics.l2_normalize(queries.embeddings)
    cosines = similarities.dot(units, candidates.embeddings)
    # Rounding takes none beyond these bounds; NaN goes below the rest.
    cosines = jnp.where(cosines >= -1.5, jnp.minimum(cosines, 1.5), -1.75)
    # Minus zero is equal to zero, but its bits are not.
    cosines = jnp.where(cosines == 0, 0.0, cosines)
    integer = jnp.int64 if cosines.dtype == jnp.float64 else jnp.int32
    bits = jax.lax.bitcast_convert_type(cosines, integer)
    keys = jnp.where(bits < 0, bits ^ jnp.iinfo(integer).max, bits)
    start, stop, own = (x[:, None] for x in queries[1:])
    relevant = (start <= place[None]) & (place[None] < stop)
    counts = place[None] != own
    if candidates.where is not None:
        counts &= candidates.where[None]
    return jnp.where(
        counts, 2 * keys + relevant.astype(integer), jnp.iinfo(integer).min
    )


def count(scores: Array, relevant: Array) -> Counts:
    """Counts by comparison: two passes over the block per relevant candidate."""
    # Without the barrier the matrix product may be repeated in each pass.
    scores, relevant = jax.lax.optimization_barrier((scores, relevant))
    valid = relevant < jnp.inf
    known = jnp.where(valid, relevant, -jnp.inf)
    return Counts(*_passes(scores, relevant), *_passes(known, relevant), valid)


def _passes(values: Array, thresholds: Array) -> tuple[Array, Array]:
    # One sum to a loop: XLA's CPU code for two sums in one loop is eight times slower.
    above = jax.lax.map(lambda t: jnp.sum(values > t[:, None], axis=1), thresholds.T)
    up_to = jax.lax.map(lambda t: jnp.sum(values >= t[:, None], axis=1), thresholds.T)
    above, up_to = above.T.astype(jnp.int32), up_to.T.astype(jnp.int32)
    return above, up_to - above


def count_by_sorting(scores: Array, relevant: Array) -> Counts:
    """The same counts by XLA's sort."""
    valid = relevant < jnp.inf
    known = jnp.where(valid, relevant, -jnp.inf)
    return Counts(*_sort(scores, relevant), *_sort(known, relevant), valid)


def _sort(values: Array, wanted: Array) -> tuple[Array, Array]:
    values = jnp.sort(values, axis=1)
    start, stop = (
        jax.vmap(functools.partial(jnp.searchsorted, side=side))(values, wanted)
        for side in ("left", "right")
    )
    return values.shape[1] - stop, stop - start


def finish(counts: Counts, relevant: Array, ks: Array, tables: Tables) -> Sums:
    """Sums of a block of queries, of which `relevant` `[block]` is R."""
    # Ties are rare and their formulas dear; without ties both branches are equal.
    has_ties = jnp.any(counts.valid & (counts.tied > 1))
    branches = [functools.partial(_sums, terms) for terms in (_tied, _untied)]
    return jax.lax.cond(has_ties, *branches, counts, relevant, ks, tables)


def _sums(
    terms: Callable, counts: Counts, relevant: Array, ks: Array, tables: Tables
) -> Sums:
    def total(index: int, k: Array) -> Array:
        values = terms(counts, k, tables)[index]
        return jnp.sum(jnp.where(counts.valid, values, 0), axis=1)

    every = jnp.int32(tables.harmonic.shape[1] - 1)
    first_r = relevant[:, None]
    return Sums(
        hits=jax.lax.map(lambda k: total(0, k), ks).T,
        gains=jax.lax.map(lambda k: total(1, k), ks).T,
        gain=total(1, every),
        early_hits=total(0, first_r),
        precision=total(2, every),
        early_precision=total(2, first_r),
        first=_first(counts),
    )


def _untied(counts: Counts, k: Array, tables: Tables) -> tuple[Array, Array, Array]:
    """What each relevant candidate adds if it is among the first k.

    Returns its hit, its discounted gain, and the precision at its rank.
    """
    dtype = tables.harmonic.dtype
    hit = (counts.above < k).astype(dtype)
    rank = (counts.above + 1).astype(dtype)
    found = (counts.relevant_above + 1).astype(dtype)
    return hit, hit / jnp.log2(1 + rank), hit * found / rank


def _tied(counts: Counts, k: Array, tables: Tables) -> tuple[Array, Array, Array]:
    """The same in expectation, at a place drawn evenly from its group's.

    At place p the precision is `(relevant_above + 1 + (p - 1) slope) / (above + p)`:
    each of the group's others is relevant with probability `slope`.
    """
    size = jnp.maximum(counts.tied, 1)
    inside = jnp.clip(k - counts.above, 0, size)
    stop = counts.above + inside
    harmonic = between(tables.harmonic, counts.above, stop)
    gain = between(tables.discount, counts.above, stop)
    above, size, inside, relevant_above, relevant_tied = (
        x.astype(harmonic.dtype) for x in (counts.above, size, inside, *counts[2:4])
    )
    slope = (relevant_tied - 1) / jnp.maximum(size - 1, 1)
    precision = (relevant_above + 1) * harmonic
    precision = precision + slope * (inside - (above + 1) * harmonic)
    return inside / size, gain / size, precision / size


def _first(counts: Counts) -> First:
    none = jnp.iinfo(jnp.int32).max
    above = jnp.min(jnp.where(counts.valid, counts.above, none), axis=1)
    inside = counts.valid & (counts.above == above[:, None])
    tied = jnp.max(jnp.where(inside, counts.tied, 0), axis=1)
    return First(above, tied, jnp.max(jnp.where(inside, counts.relevant_tied, 0), 1))


def first_hit(first: First, ks: Array, dtype: DTypeLike) -> tuple[Array, Array]:
    """Expected reciprocal rank `[queries]` and hit rate `[queries, ks]`.

    Walks down the group that holds the first relevant candidate: place p is the first
    hit with probability `missed * relevant / (tied - p + 1)`. One step where nothing
    ties. All queries walk together, since the steps are those of the largest group.
    """
    above, tied, relevant = (x.astype(dtype) for x in first)
    last = ks.astype(dtype)[None]

    def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
        place, missed, reciprocal, hit = state
        chance = jnp.minimum(relevant / jnp.maximum(tied - place + 1, 1), 1)
        rank, found = above + place, missed * chance
        hit = hit + jnp.where(rank[:, None] <= last, found[:, None], 0)
        return place + 1, missed * (1 - chance), reciprocal + found / rank, hit

    missed = (relevant > 0).astype(dtype)
    hit = jnp.zeros((missed.shape[0], ks.shape[0]), dtype)
    state = jnp.ones((), dtype), missed, jnp.zeros_like(missed), hit
    negligible = jnp.finfo(dtype).eps / 4
    _, _, reciprocal, hit = jax.lax.while_loop(
        lambda state: jnp.any(state[1] > negligible), step, state
    )
    return reciprocal, hit


def run(
    queries: Queries,
    candidates: Candidates,
    similarity: Similarity,
    relevant: Array,
    ks: Array,
    tables: Tables,
    *,
    size: int,
    block_size: int | None,
    traced: bool,
) -> Sums:
    """Sums of all queries, block by block.

    `size` bounds the relevant candidates of a query. XLA's sort is twelve times slower
    than NumPy's on a CPU, so that outside `jit` it is done on the host there.
    """
    on_cpu = jax.default_backend() == "cpu"
    on_host = on_cpu and not traced and size > COUNTED_ON_HOST
    width = max(candidates.embeddings.shape[0], 1)
    block_size = block_size or (BLOCK_ON_CPU if on_cpu else BLOCK) // width
    block_size = min(max(block_size, 1), relevant.shape[0])
    rows = relevant.shape[0]
    blocks = max(-(-rows // block_size), 1)
    # The last block is filled up with repetitions, which are cut off again.
    places = np.minimum(np.arange(blocks * block_size), rows - 1)
    places = places.reshape(blocks, block_size)
    loop = _blocks_on_host
    if not on_host:
        loop = functools.partial(_blocks, sort=size > COUNTED_BY_XLA)
    of_blocks = queries, relevant, places
    sums = loop(*of_blocks, candidates, Partial(similarity), ks, tables, size=size)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:rows], sums)


@functools.partial(jax.jit, static_argnames=("size", "sort"))
def _blocks(
    queries: Queries,
    relevant: Array,
    places: Array,
    candidates: Candidates,
    similarity: Similarity,
    ks: Array,
    tables: Tables,
    *,
    size: int,
    sort: bool,
) -> Sums:
    def block(rows: Array) -> Sums:
        block, of_block = jax.tree.map(lambda x: x[rows], (queries, relevant))
        scores, wanted = compare(block, candidates, similarity, size)
        counts = (count_by_sorting if sort else count)(scores, wanted)
        return finish(counts, of_block, ks, tables)

    return jax.lax.map(block, places)


def _blocks_on_host(
    queries: Queries,
    relevant: Array,
    places: np.ndarray,
    candidates: Candidates,
    similarity: Partial,
    ks: Array,
    tables: Tables,
    *,
    size: int,
) -> Sums:
    queries, relevant = jax.tree.map(np.asarray, (queries, relevant))
    cosines = similarity.func is similarities.cosine
    if cosines:
        units = numerics.l2_normalize(candidates.embeddings)
        candidates = candidates._replace(embeddings=units)
    place = np.argsort(np.asarray(candidates.order)).astype(np.int32)

    def compared(rows: np.ndarray) -> tuple[Array, ...]:
        block = jax.tree.map(lambda x: x[rows], queries)
        if cosines:
            return (_cosine_keys(block, candidates, place),)
        return _compare(block, candidates, similarity, size=size)

    def count(arrays: tuple[Array, ...], part: slice) -> tuple[np.ndarray, ...]:
        # Waits for XLA, which is at work on a block while another one is counted.
        values = [np.asarray(x)[part] for x in arrays]
        if cosines:
            return _host_counts.count_keys(values[0], size)
        return _host_counts.count_scores(*values)

    def finished(rows: np.ndarray, parts: list[Future]) -> Sums:
        counts = zip(*(part.result() for part in parts), strict=True)
        counts = Counts(*(jnp.asarray(np.concatenate(x)) for x in counts))
        return _finish(counts, relevant[rows], ks, tables)

    threads = _cores.count()
    share = max(PART // len(place), 1)
    parts = [slice(i, i + share) for i in range(0, places.shape[1], share)]
    blocks, waiting = [], collections.deque()
    # NumPy sorts without Python's lock, so that every core is at work on its part.
    # JAX is called from here alone: its contexts (as of 64 bits) are a thread's own.
    with ThreadPoolExecutor(threads) as pool:
        for rows in places:
            arrays = compared(rows)
            waiting.append((rows, [pool.submit(count, arrays, part) for part in parts]))
            if len(waiting) > 1:
                blocks.append(finished(*waiting.popleft()))
        blocks.extend(finished(*block) for block in waiting)
    return jax.tree.map(lambda *x: jnp.stack(x), *blocks)


_compare = jax.jit(compare, static_argnames="size")
_cosine_keys = jax.jit(cosine_keys)
_finish = jax.jit(finish)
