"""Candidates passed from device to device, so that no device ever holds them all.

Each device keeps its anchors. What its anchors must know of the candidates that visit
it is merged with what they know already, and the candidates go on to the next device.
For the gradient they go the other way round and carry theirs with them, until both are
home. All that is stored for it is what the anchors knew before each visit.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from metricjax import _blocks, _problem, _running
from metricjax._blocks import Leaves, Plan
from metricjax._problem import Axis, Fold

Merge = Callable[[Any, Any], Any]


class _Ring(NamedTuple):
    """What fixes the way round: hashable, no arrays."""

    plan: Plan
    merge: Merge
    moves: tuple[bool, ...]
    axis_name: Axis


def found(
    shared: _problem.Shared, anchors: _problem.Side, block: int, *, axis_name: Axis
) -> Any:
    """What a fold makes of the candidates of all devices, for each anchor of this one.

    Args:
        shared: as of `_problem.build`; its function is a `Fold`.
        anchors: likewise, those of this device.
        block: anchors in a block.
        axis_name: the mesh axis (or axes) round which the candidates go.
    """
    fold: Fold = shared.function
    _check_parts(shared.candidates, axis_name)
    given = None
    if fold.given is not None:
        first = shared._replace(function=fold.given)
        given = found(first, anchors, block, axis_name=axis_name)
    state = states(
        _state_of_block,
        fold.merge,
        shared._replace(function=fold.step, candidates=None),
        shared.candidates,
        anchors._replace(given=given, weights=None),
        block,
        axis_name=axis_name,
    )
    return fold.finish(state, *_problem.those_there(anchors.extra, given))


def _check_parts(candidates: _problem.Side, axis_name: Axis) -> None:
    """Raise if all devices have the same candidates, as far as one can know."""
    # Their places differ from device to device, unless jax keeps no account of that.
    differ = _blocks.mesh_axes([candidates.positions])
    if differ - _blocks.mesh_axes([candidates.embeddings]):
        raise ValueError(
            f"Expected candidates that are sharded over {axis_name!r} with `ring`, got "
            "the same ones on all devices; shard them, or leave `ring` out."
        )


def _state_of_block(shared: tuple[Any, Any], anchors: _problem.Side) -> Any:
    fixed, candidates = shared
    return _problem.block_state(fixed._replace(candidates=candidates), anchors)


def take(rows: Array, indices: Array, *, axis_name: Axis) -> Array:
    """Rows `[..., dim]` of those of all devices together, at `indices [...]`."""
    places = _problem.places(rows.shape[0], axis_name)
    size = indices.shape[0]
    moving = (rows, places)
    return states(
        _taken, _running.merge, (), moving, indices, size, axis_name=axis_name
    )


def _taken(shared: Any, indices: Array) -> Array:
    rows, places = shared[1]
    index = indices - places[0]
    here = (index >= 0) & (index < rows.shape[0])
    return jnp.where(here[..., None], rows[jnp.where(here, index, 0)], 0.0)


def states(
    function: Callable[[Any, Any], Any],
    merge: Merge,
    shared: Any,
    candidates: Any,
    anchors: Any,
    block: int,
    *,
    axis_name: Axis,
) -> Any:
    """`function((shared, candidates), anchors)` merged over the candidates of devices.

    Differentiable backwards, once.

    Args:
        function: for a block of anchors, gives a state: a pytree of `[block, ...]`.
        merge: `(state, state) -> state`, of two disjoint sets of candidates.
        shared: a pytree, of which every device has the same or its own.
        candidates: a pytree of `[n, ...]`, those of this device; they go round.
        anchors: a pytree of `[size, ...]`, cut into blocks.
        block: anchors in a block.
        axis_name: the mesh axis (or axes) round which the candidates go.
    """
    plan, leaves = _blocks.partition(function, (shared, candidates), anchors, block)
    first, count = (_count_traced(tree) for tree in (shared, candidates))
    moves = tuple(first <= i < first + count for i in range(len(leaves)))
    return _go_round(_Ring(plan, merge, moves, axis_name), leaves)


def _count_traced(tree: Any) -> int:
    return sum(isinstance(leaf, _blocks.TRACED) for leaf in jax.tree.leaves(tree))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _go_round(ring: _Ring, leaves: Leaves) -> Any:
    return _forwards(ring, leaves, keep=False)[0]


def _go_round_fwd(ring: _Ring, leaves: Leaves) -> tuple[Any, Any]:
    state, before = _forwards(ring, leaves, keep=True)
    return state, (leaves, before)


def _forwards(ring: _Ring, leaves: Leaves, *, keep: bool) -> tuple[Any, Any]:
    """The state, and the states before each visit where the gradient needs them."""
    state, treedef = jax.tree.flatten(_visit(ring, leaves))
    state = jax.tree.unflatten(treedef, _varying(state, leaves))
    # Merging plain sums is the same whatever they are.
    keep = keep and not (ring.merge is _running.merge and _running.is_plain(state))

    def step(carry: Any, _: None) -> tuple[Any, Any]:
        state, here = carry
        # Before the work on them, so that sending them on takes no time of its own.
        ahead = _shift(ring, here, 1)
        met = _visit(ring, _blocks.replace(leaves, ring.moves, here))
        return (ring.merge(state, met), ahead), state if keep else None

    ahead = _shift(ring, _blocks.pick(leaves, ring.moves), 1)
    rest = jax.lax.axis_size(ring.axis_name) - 1
    (state, _), before = jax.lax.scan(step, (state, ahead), length=rest)
    return state, before


def _go_round_bwd(ring: _Ring, residuals: Any, cotangents: Any) -> tuple[Leaves]:
    leaves, before = residuals
    wanted = _inexact(leaves)
    moves = _blocks.pick(ring.moves, wanted)
    pull = functools.partial(_pull, ring, wanted)

    def step(carry: Any, before: Any) -> tuple[Any, None]:
        here, slopes, gradients = carry
        behind = _shift(ring, here, -1)
        leaves_here = _blocks.replace(leaves, ring.moves, here)
        slopes, more = pull(leaves_here, before, slopes)
        gradients = [x + y for x, y in zip(gradients, more, strict=True)]
        moved = _shift(ring, _blocks.pick(gradients, moves), -1)
        return (behind, slopes, _blocks.replace(gradients, moves, moved)), None

    slopes = jax.tree.leaves(cotangents)
    slopes = _varying(_blocks.pick(slopes, _inexact(slopes)), leaves)
    zeros = map(jnp.zeros_like, _blocks.pick(leaves, wanted))
    behind = _shift(ring, _blocks.pick(leaves, ring.moves), -1)
    start = (behind, slopes, _varying(zeros, leaves))
    rest = jax.lax.axis_size(ring.axis_name) - 1
    carry, _ = jax.lax.scan(step, start, before, length=rest, reverse=True)
    _, slopes, gradients = carry
    _, more = pull(leaves, None, slopes)
    gradients = [x + y for x, y in zip(gradients, more, strict=True)]
    return (_blocks.replace([None] * len(leaves), wanted, gradients),)


_go_round.defvjp(_go_round_fwd, _go_round_bwd)


def _visit(ring: _Ring, leaves: Leaves) -> Any:
    """The state of all anchors for the candidates that are here, block by block."""
    plan = ring.plan
    if plan.size == plan.block:
        return _blocks.call(plan, leaves)

    def one(block: Leaves) -> Any:
        return _blocks.call(plan, _blocks.replace(leaves, plan.sliced, block))

    out = jax.lax.map(one, _blocks.cut(plan, leaves))
    return jax.tree.map(lambda x: _blocks.uncut(plan, x), out)


def _pull(
    ring: _Ring, wanted: tuple[bool, ...], leaves: Leaves, before: Any, slopes: Leaves
) -> tuple[Leaves, Leaves]:
    """Through one visit: slopes of the state before it, and of the wanted leaves."""
    plan = ring.plan
    known, treedef = jax.tree.flatten(before)
    inexact = _inexact(known)
    sliced = _blocks.pick(plan.sliced, wanted)
    whole = [not s for s in sliced]

    def one(blocks: Leaves) -> tuple[Leaves, tuple[Leaves, Leaves]]:
        block, known, slopes = _split(blocks, sum(plan.sliced), len(inexact))
        here = _blocks.replace(leaves, plan.sliced, block)

        def after(given: Leaves, before: Leaves) -> Leaves:
            state = _blocks.call(plan, _blocks.replace(here, wanted, given))
            if known:
                every = _blocks.replace(known, inexact, before)
                state = ring.merge(jax.tree.unflatten(treedef, every), state)
            state = jax.tree.leaves(state)
            return _varying(_blocks.pick(state, _inexact(state)), leaves)

        given = _blocks.pick(here, wanted), _blocks.pick(known, inexact)
        gradients, before = jax.vjp(after, *given)[1](slopes)
        parts = _blocks.pick(gradients, sliced), before if known else slopes
        return _blocks.pick(gradients, whole), parts

    further = (_blocks.cut_one(plan, x) for x in (*known, *slopes))
    blocks = (*_blocks.cut(plan, leaves), *further)
    totals, parts = _blocks.accumulate(one, leaves, blocks)
    parts, slopes = jax.tree.map(lambda x: _blocks.uncut(plan, x), parts)
    gradients = _blocks.replace(_blocks.replace(sliced, sliced, parts), whole, totals)
    return slopes, gradients


def _split(items: Leaves, *sizes: int) -> tuple[Leaves, ...]:
    """`items` in parts of these sizes, and the rest."""
    parts = []
    for size in sizes:
        parts.append(items[:size])
        items = items[size:]
    return (*parts, items)


def _inexact(leaves: Any) -> tuple[bool, ...]:
    return tuple(jnp.issubdtype(jnp.result_type(x), jnp.inexact) for x in leaves)


def _varying(arrays: Any, leaves: Leaves) -> Leaves:
    """The arrays, varying over the devices as the leaves do."""
    arrays = tuple(arrays)
    return tuple(_blocks.vary_alike([*arrays, *leaves])[: len(arrays)])


def _shift(ring: _Ring, arrays: Leaves, step: int) -> Leaves:
    """The arrays of the device `step` places before this one."""
    size = jax.lax.axis_size(ring.axis_name)
    pairs = [(i, (i + step) % size) for i in range(size)]
    return jax.lax.ppermute(arrays, ring.axis_name, pairs)
