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

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial
from jax.typing import DTypeLike

from metricjax import _cores, numerics

Similarity = Callable[[Array, Array], Array]

# Up to so many relevant candidates of a query, a pass over the block for each of them
# is cheaper than a sort: by NumPy on the host, and by XLA.
COUNTED_ON_HOST = 16
COUNTED_BY_XLA = 512
# Similarities in a block: 8 MiB on a CPU, about the share of a core in the cache.
BLOCK_ON_CPU = 2**21
BLOCK = 2**25


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


def count_on_host(scores: Array, relevant: Array) -> Counts:
    """The same counts, the relevant in ascending order, by NumPy's sort."""
    threads = min(_cores.count(), len(scores))
    # NumPy sorts without Python's lock, so that every core has its part of the rows.
    parts = (np.array_split(np.asarray(x), threads) for x in (scores, relevant))
    with ThreadPoolExecutor(threads) as pool:
        counts = list(pool.map(_count_rows, *parts))
    return Counts(*(jnp.asarray(np.concatenate(x)) for x in zip(*counts, strict=True)))


def _count_rows(scores: np.ndarray, relevant: np.ndarray) -> tuple[np.ndarray, ...]:
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
    width = max(candidates.embeddings.shape[0], 1)
    block_size = block_size or (BLOCK_ON_CPU if on_cpu else BLOCK) // width
    block_size = min(max(block_size, 1), relevant.shape[0])
    on_host = on_cpu and not traced and size > COUNTED_ON_HOST
    rows = relevant.shape[0]
    blocks = max(-(-rows // block_size), 1)
    # The last block is filled up with repetitions, which are cut off again.
    places = np.minimum(np.arange(blocks * block_size), rows - 1)
    places = places.reshape(blocks, block_size)
    cut = jax.tree.map(lambda x: jnp.asarray(x)[places], (queries, relevant))
    loop = _blocks_on_host
    if not on_host:
        loop = functools.partial(_blocks, sort=size > COUNTED_BY_XLA)
    sums = loop(cut[0], cut[1], candidates, Partial(similarity), ks, tables, size=size)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:rows], sums)


@functools.partial(jax.jit, static_argnames=("size", "sort"))
def _blocks(
    queries: Queries,
    relevant: Array,
    candidates: Candidates,
    similarity: Similarity,
    ks: Array,
    tables: Tables,
    *,
    size: int,
    sort: bool,
) -> Sums:
    def block(args: tuple[Queries, Array]) -> Sums:
        scores, wanted = compare(args[0], candidates, similarity, size)
        counts = (count_by_sorting if sort else count)(scores, wanted)
        return finish(counts, args[1], ks, tables)

    return jax.lax.map(block, (queries, relevant))


def _blocks_on_host(
    queries: Queries,
    relevant: Array,
    candidates: Candidates,
    similarity: Similarity,
    ks: Array,
    tables: Tables,
    *,
    size: int,
) -> Sums:
    blocks = []
    for i in range(relevant.shape[0]):
        block = jax.tree.map(lambda x, i=i: x[i], queries)
        scores, wanted = _compare(block, candidates, similarity, size=size)
        counts = count_on_host(scores, wanted)
        blocks.append(_finish(counts, relevant[i], ks, tables))
    return jax.tree.map(lambda *x: jnp.stack(x), *blocks)


_compare = jax.jit(compare, static_argnames="size")
_finish = jax.jit(finish)
