"""The compiled loop over blocks of rows, on plain pytrees.

`shared` is a pytree that every block sees whole, `rows` one whose leaves `[size, ...]`
are cut into blocks. Floats and arrays among their leaves are traced; ints, bools, enums
and functions are static, so that they are part of the key of the compiled loop.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.custom_derivatives import SymbolicZero

from metricjax.reductions import Terms

Leaves = tuple[Any, ...]
Function = Callable[[Any, Any], Any]


class _Mirror(NamedTuple):
    """Two leaves with the same gradient."""

    image: int
    original: int
    transposed: bool


class Shortcut(NamedTuple):
    """Functions of a block that cost less, and are right if `fits` says so.

    Attributes:
        fits: `(shared, all rows) -> bool`.
        short: what to do then: a function for each part of the loss, whose `Terms` are
            then without that axis.
        long: what to do otherwise, to the same end.
    """

    fits: Function
    short: tuple[Function, ...]
    long: Function


class Plan(NamedTuple):
    """What fixes the compiled loop: hashable, no arrays."""

    function: Any
    treedef: Any
    static: Leaves
    sliced: tuple[bool, ...]
    size: int
    block: int
    mirror: _Mirror | None = None


def stack(function: Function, shared: Any, rows: Any, block: int) -> Any:
    """`function(shared, block of rows)` of each block, stacked along axis 0.

    For gradients each block is recomputed, so that they need no more memory.
    """
    return _stack(*partition(function, shared, rows, block))


def sum_terms(
    function: Function | Shortcut,
    shared: Any,
    rows: Any,
    block: int,
    *,
    mirrored: tuple[Array, Array] | None = None,
) -> Terms:
    """The `Terms` that `function(shared, block of rows)` gives, summed over all rows.

    Differentiated, the gradient of the totals comes in the same pass as the value.

    Args:
        function: `(shared, block of rows) -> Terms`, perhaps with a `Shortcut`.
        shared: what every block sees whole.
        rows: what is cut into blocks.
        block: rows in a block.
        mirrored: a leaf of `shared` and one of `rows`, the same array or its transpose,
            where the totals stay the same if the two are exchanged: the gradients are
            then equal, and one of them is made.
    """
    plan, leaves = partition(function, shared, rows, block)
    if mirrored is not None:
        every = jax.tree.leaves((shared, rows))
        traced = [leaf for leaf in every if isinstance(leaf, TRACED)]
        image, original = mirrored
        plan = plan._replace(
            mirror=_Mirror(
                next(i for i, leaf in enumerate(traced) if leaf is image),
                max(i for i, leaf in enumerate(traced) if leaf is original),
                transposed=image is not original,
            )
        )
    return _sum_terms(plan, leaves)


def compiled(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)`, compiled once for all arguments of the same structure."""
    leaves, treedef = jax.tree.flatten(arguments)
    traced = [isinstance(leaf, TRACED) for leaf in leaves]
    static = tuple(None if t else leaf for leaf, t in zip(leaves, traced, strict=True))
    return _compiled(function, treedef, static, pick(leaves, traced))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _compiled(
    function: Callable[..., Any], treedef: Any, static: Leaves, leaves: Leaves
) -> Any:
    merged = replace(static, [x is None for x in static], leaves)
    return function(*jax.tree.unflatten(treedef, merged))


# --- arrays apart from what is static -------------------------------------------------


def partition(function: Any, shared: Any, rows: Any, block: int) -> tuple[Plan, Leaves]:
    """What is static of the arguments, and their arrays, which vary alike."""
    leaves, treedef = jax.tree.flatten((shared, rows))
    leaves = vary_alike(leaves)
    row_leaves = jax.tree.leaves(rows)
    sliced = [False] * (len(leaves) - len(row_leaves)) + [True] * len(row_leaves)
    traced = [isinstance(leaf, TRACED) for leaf in leaves]
    plan = Plan(
        function,
        treedef,
        tuple(None if t else leaf for leaf, t in zip(leaves, traced, strict=True)),
        tuple(s for s, t in zip(sliced, traced, strict=True) if t),
        row_leaves[0].shape[0],
        block,
    )
    return plan, pick(leaves, traced)


TRACED = (float, complex, np.ndarray, np.generic, jax.Array)


def mesh_axes(leaves: Sequence[Any]) -> frozenset[Any]:
    """Mesh axes of an enclosing `jax.shard_map` over which some leaf varies."""
    axes = frozenset()
    for leaf in leaves:
        if isinstance(leaf, jax.Array):
            kind = jax.typeof(leaf)
            # Versions of jax differ in where they keep this.
            axes |= getattr(kind, "vma", frozenset())
            kind = getattr(kind, "manual_axis_type", None)
            axes |= getattr(kind, "varying", frozenset())
    return axes


def vary_alike(leaves: Sequence[Any]) -> list[Any]:
    """The leaves, all varying over the same mesh axes.

    A replicated parameter must vary before its gradient is taken: else that would be
    summed over the devices once here, and once more by whoever differentiates.
    """
    axes = mesh_axes(leaves)

    def vary(leaf: Any) -> Any:
        missing = axes - mesh_axes([leaf])
        if not missing or not isinstance(leaf, TRACED):
            return leaf
        return jax.lax.pcast(jnp.asarray(leaf), tuple(missing), to="varying")

    return [vary(leaf) for leaf in leaves]


def pick(items: Any, flags: Any) -> Leaves:
    """Those of `items` that are flagged."""
    return tuple(x for x, flag in zip(items, flags, strict=True) if flag)


def replace(items: Any, flags: Any, new: Any) -> Leaves:
    """`items`, those flagged replaced by the next of `new`."""
    rest = iter(new)
    return tuple(
        next(rest) if flag else x for x, flag in zip(items, flags, strict=True)
    )


def call(plan: Plan, leaves: Leaves) -> Any:
    """The function of the plan, given its traced leaves."""
    return plan.function(*arguments(plan, leaves))


def arguments(plan: Plan, leaves: Leaves) -> tuple[Any, Any]:
    """What is shared and the rows, given the traced leaves."""
    all_leaves = replace(plan.static, [x is None for x in plan.static], leaves)
    return jax.tree.unflatten(plan.treedef, all_leaves)


def cut(plan: Plan, leaves: Leaves) -> Leaves:
    """The sliced leaves in blocks."""
    return tuple(cut_one(plan, x) for x in pick(leaves, plan.sliced))


def cut_one(plan: Plan, x: Array) -> Array:
    """`[size, ...]` as `[blocks, block, ...]`; zeros (False) fill up the last one."""
    count = -(-plan.size // plan.block)
    widths = [(0, count * plan.block - plan.size)] + [(0, 0)] * (x.ndim - 1)
    return jnp.pad(x, widths).reshape(count, plan.block, *x.shape[1:])


def uncut(plan: Plan, x: Array) -> Array:
    """`[blocks, block, ...]` to `[size, ...]`."""
    return x.reshape(-1, *x.shape[2:])[: plan.size]


# --- the loops ------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def _stack(plan: Plan, leaves: Leaves) -> Any:
    @jax.checkpoint
    def one(block: Leaves, leaves: Leaves) -> Any:
        return call(plan, replace(leaves, plan.sliced, block))

    out = jax.lax.map(lambda block: one(block, leaves), cut(plan, leaves))
    return jax.tree.map(lambda x: uncut(plan, x), out)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _sum_terms(plan: Plan, leaves: Leaves) -> Terms:
    return _value(plan, leaves)


@functools.partial(_sum_terms.defjvp, symbolic_zeros=True)
def _sum_terms_jvp(plan: Plan, primals: Any, tangents: Any) -> tuple[Terms, Terms]:
    (leaves,), (dots,) = primals, tangents
    wanted = tuple(
        not isinstance(dot, SymbolicZero)
        # A tangent may be a Python number.
        and jnp.issubdtype(jnp.result_type(dot), jnp.inexact)
        for dot in dots
    )
    dots, wanted = _together(plan.mirror, dots, wanted)
    terms, gradients = _opaque(plan, wanted, leaves)
    # One number for each part of the loss: <its gradient, tangent>.
    inner = [_inner(gradient, pick(dots, wanted)) for gradient in gradients]
    total = jnp.reshape(jnp.stack(inner), terms.total.shape).astype(terms.total.dtype)
    return terms, jax.tree.map(jnp.zeros_like, terms)._replace(total=total)


def _together(
    mirror: _Mirror | None, dots: Leaves, wanted: tuple[bool, ...]
) -> tuple[Leaves, tuple[bool, ...]]:
    """The tangents, those of two leaves with one gradient added up in one of them."""
    if mirror is None or not (wanted[mirror.image] and wanted[mirror.original]):
        return dots, wanted
    dot = dots[mirror.image]
    dot = jnp.swapaxes(dot, -1, -2) if mirror.transposed else dot
    every = list(dots)
    every[mirror.original] += dot
    return tuple(every), tuple(w and i != mirror.image for i, w in enumerate(wanted))


def _inner(gradient: Leaves, dots: Leaves) -> Array:
    """Inner product of a gradient and a tangent, over all leaves."""
    found = [jnp.sum(x * dot) for x, dot in zip(gradient, dots, strict=True)]
    return sum(found[1:], start=found[0])


@functools.partial(jax.jit, static_argnums=0)
def _value(plan: Plan, leaves: Leaves) -> Terms:
    return _either(_sums, plan, leaves)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _opaque(
    plan: Plan, wanted: tuple[bool, ...], leaves: Leaves
) -> tuple[Terms, list[Leaves]]:
    """The same as `_value_and_gradients`, whole to who takes the function apart.

    While `jax.grad` linearizes, partial evaluation would look into the loop, and make
    an array of each constant in it, as large as a block, before the loop.
    """
    return _value_and_gradients(plan, wanted, leaves)


@_opaque.defjvp
def _opaque_jvp(
    plan: Plan, wanted: tuple[bool, ...], primals: Any, tangents: Any
) -> tuple[Any, Any]:
    function = functools.partial(_value_and_gradients, plan, wanted)
    return jax.jvp(function, primals, tangents)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _value_and_gradients(
    plan: Plan, wanted: tuple[bool, ...], leaves: Leaves
) -> tuple[Terms, list[Leaves]]:
    """The sums; for each part of the total its gradient, of each wanted leaf."""
    return _either(functools.partial(_slopes, wanted), plan, leaves)


def _either(do: Callable[[Plan, Leaves], Any], plan: Plan, leaves: Leaves) -> Any:
    """What is done with the functions of all parts, the shorter ones if they fit."""
    way = plan.function
    if not isinstance(way, Shortcut):
        return do(plan._replace(function=(way,)), leaves)
    short, long = (plan._replace(function=f) for f in (way.short, (way.long,)))
    fits = way.fits(*arguments(plan, leaves))
    return jax.lax.cond(fits, lambda: do(short, leaves), lambda: do(long, leaves))


def _sums(plan: Plan, leaves: Leaves) -> Terms:
    def one(block: Leaves) -> tuple[Terms, None]:
        here = arguments(plan, replace(leaves, plan.sliced, block))
        return _joined([sum_rows(part(*here)) for part in plan.function]), None

    return accumulate(one, leaves, cut(plan, leaves))[0]


def _slopes(
    wanted: tuple[bool, ...], plan: Plan, leaves: Leaves
) -> tuple[Terms, list[Leaves]]:
    sliced = pick(plan.sliced, wanted)
    whole = [not s for s in sliced]

    def one(block: Leaves) -> tuple[Any, Any]:
        here = replace(leaves, plan.sliced, block)
        given = tuple(jnp.asarray(x) for x in pick(here, wanted))
        found, slopes = [], []
        for part in plan.function:

            def total(given: Leaves, part: Function = part) -> tuple[Array, Terms]:
                terms = part(*arguments(plan, replace(here, wanted, given)))
                return sum_rows(terms).total[0], sum_rows(terms)

            value, pullback, terms = jax.vjp(total, given, has_aux=True)
            found.append(terms)
            slopes += [pullback(unit)[0] for unit in _units(value)]
        ours = [pick(each, sliced) for each in slopes]
        return (_joined(found), [pick(each, whole) for each in slopes]), ours

    (terms, shares), ours = accumulate(one, leaves, cut(plan, leaves))
    ours = jax.tree.map(lambda x: uncut(plan, x), ours)
    gradients = [
        replace(replace(sliced, sliced, own), whole, share)
        for own, share in zip(ours, shares, strict=True)
    ]
    return terms, gradients


def _joined(parts: list[Terms]) -> Terms:
    """Terms of each part as one with an axis of parts, if there is more than one."""
    if len(parts) == 1:
        return parts[0]
    return Terms(*(jnp.stack(fields, axis=1) for fields in zip(*parts, strict=True)))


def _units(value: Array) -> list[Array]:
    """The total, or each of its parts, as a cotangent.

    One part after the other: XLA's batched products are slow on a CPU. Constants, or
    XLA would make arrays of them outside of the loop.
    """
    if not value.ndim:
        return [jnp.ones_like(value)]
    basis = map(jnp.asarray, np.eye(value.size, dtype=value.dtype))
    return vary_alike([*basis, value])[:-1]


def sum_rows(terms: Terms) -> Terms:
    """Each field summed over its rows, one of which is left."""
    return Terms(*(jnp.sum(x, axis=0, keepdims=True) for x in terms))


def accumulate(
    one: Callable[[Leaves], tuple[Any, Any]], leaves: Leaves, blocks: Leaves
) -> tuple[Any, Any]:
    """Sum over the blocks of the first result of `one`, stack of the second."""
    first = tuple(x[0] for x in blocks)
    if blocks[0].shape[0] == 1:
        summed, each = one(first)
        return summed, jax.tree.map(lambda x: x[None], each)
    shapes = jax.eval_shape(one, first)[0]
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    # In jax.shard_map the carry of a loop must vary as what is added to it does.
    zeros, treedef = jax.tree.flatten(zeros)
    zeros = vary_alike([*zeros, *leaves])[: len(zeros)]
    start = jax.tree.unflatten(treedef, zeros)

    def step(carry: Any, block: Leaves) -> tuple[Any, Any]:
        summed, each = one(block)
        return jax.tree.map(jnp.add, carry, summed), each

    return jax.lax.scan(step, start, blocks)
