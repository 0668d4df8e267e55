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

from metricjax.numerics import HIGHEST
from metricjax.reductions import Terms

Leaves = tuple[Any, ...]
Function = Callable[[Any, Any], Any]


class _Plan(NamedTuple):
    """What fixes the compiled loop: hashable, no arrays."""

    function: Function
    treedef: Any
    static: Leaves
    sliced: tuple[bool, ...]
    size: int
    block: int
    mirror: tuple[int, int] | None = None


def stack(function: Function, shared: Any, rows: Any, block: int) -> Any:
    """`function(shared, block of rows)` of each block, stacked along axis 0.

    For gradients each block is recomputed, so that they need no more memory.
    """
    return _stack(*_partition(function, shared, rows, block))


def sum_terms(
    function: Function,
    shared: Any,
    rows: Any,
    block: int,
    *,
    mirrored: Array | None = None,
) -> Terms:
    """The `Terms` that `function(shared, block of rows)` gives, summed over all rows.

    Differentiated, the gradient of the totals comes in the same pass as the value.

    Args:
        function: `(shared, block of rows) -> Terms`.
        shared: what every block sees whole.
        rows: what is cut into blocks.
        block: rows in a block.
        mirrored: an array that is a leaf of both, where the totals stay the same if the
            two are exchanged: the gradients are then equal, and one of them is made.
    """
    plan, leaves = _partition(function, shared, rows, block)
    if mirrored is not None:
        every = jax.tree.leaves((shared, rows))
        traced = [leaf for leaf in every if isinstance(leaf, _TRACED)]
        places = [i for i, leaf in enumerate(traced) if leaf is mirrored]
        plan = plan._replace(mirror=tuple(places))
    return _sum_terms(plan, leaves)


def compiled(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)`, compiled once for all arguments of the same structure."""
    leaves, treedef = jax.tree.flatten(arguments)
    traced = [isinstance(leaf, _TRACED) for leaf in leaves]
    static = tuple(None if t else leaf for leaf, t in zip(leaves, traced, strict=True))
    return _compiled(function, treedef, static, _pick(leaves, traced))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _compiled(
    function: Callable[..., Any], treedef: Any, static: Leaves, leaves: Leaves
) -> Any:
    merged = _replace(static, [x is None for x in static], leaves)
    return function(*jax.tree.unflatten(treedef, merged))


# --- arrays apart from what is static -------------------------------------------------


def _partition(
    function: Function, shared: Any, rows: Any, block: int
) -> tuple[_Plan, Leaves]:
    leaves, treedef = jax.tree.flatten((shared, rows))
    leaves = vary_alike(leaves)
    row_leaves = jax.tree.leaves(rows)
    sliced = [False] * (len(leaves) - len(row_leaves)) + [True] * len(row_leaves)
    traced = [isinstance(leaf, _TRACED) for leaf in leaves]
    plan = _Plan(
        function,
        treedef,
        tuple(None if t else leaf for leaf, t in zip(leaves, traced, strict=True)),
        tuple(s for s, t in zip(sliced, traced, strict=True) if t),
        row_leaves[0].shape[0],
        block,
    )
    return plan, _pick(leaves, traced)


_TRACED = (float, complex, np.ndarray, np.generic, jax.Array)


def _mesh_axes(leaves: Sequence[Any]) -> frozenset[Any]:
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
    axes = _mesh_axes(leaves)

    def vary(leaf: Any) -> Any:
        missing = axes - _mesh_axes([leaf])
        if not missing or not isinstance(leaf, _TRACED):
            return leaf
        return jax.lax.pcast(jnp.asarray(leaf), tuple(missing), to="varying")

    return [vary(leaf) for leaf in leaves]


def _pick(items: Any, flags: Any) -> Leaves:
    return tuple(x for x, flag in zip(items, flags, strict=True) if flag)


def _replace(items: Any, flags: Any, new: Any) -> Leaves:
    """`items`, those flagged replaced by the next of `new`."""
    rest = iter(new)
    return tuple(
        next(rest) if flag else x for x, flag in zip(items, flags, strict=True)
    )


def _call(plan: _Plan, leaves: Leaves) -> Any:
    all_leaves = _replace(plan.static, [x is None for x in plan.static], leaves)
    return plan.function(*jax.tree.unflatten(plan.treedef, all_leaves))


def _cut(plan: _Plan, leaves: Leaves) -> Leaves:
    """The sliced leaves as `[blocks, block, ...]`, padded with zeros (False)."""
    count = -(-plan.size // plan.block)
    padding = count * plan.block - plan.size

    def cut(x: Array) -> Array:
        widths = [(0, padding)] + [(0, 0)] * (x.ndim - 1)
        return jnp.pad(x, widths).reshape(count, plan.block, *x.shape[1:])

    return tuple(cut(x) for x in _pick(leaves, plan.sliced))


def _uncut(plan: _Plan, x: Array, axis: int = 0) -> Array:
    """`[blocks, (parts,) block, ...]` to `[(parts,) size, ...]`."""
    x = jnp.moveaxis(x, 0, axis)
    x = x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
    return jax.lax.slice_in_dim(x, 0, plan.size, axis=axis)


# --- the loops ------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def _stack(plan: _Plan, leaves: Leaves) -> Any:
    @jax.checkpoint
    def one(block: Leaves, leaves: Leaves) -> Any:
        return _call(plan, _replace(leaves, plan.sliced, block))

    out = jax.lax.map(lambda block: one(block, leaves), _cut(plan, leaves))
    return jax.tree.map(lambda x: _uncut(plan, x), out)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _sum_terms(plan: _Plan, leaves: Leaves) -> Terms:
    return _value(plan, leaves)


@functools.partial(_sum_terms.defjvp, symbolic_zeros=True)
def _sum_terms_jvp(plan: _Plan, primals: Any, tangents: Any) -> tuple[Terms, Terms]:
    (leaves,), (dots,) = primals, tangents
    wanted = tuple(
        not isinstance(dot, SymbolicZero)
        # A tangent may be a Python number.
        and jnp.issubdtype(jnp.result_type(dot), jnp.inexact)
        for dot in dots
    )
    terms, gradients = _mirrored_gradients(plan, wanted, leaves)
    # One number for each part of the loss: <its gradient, tangent>.
    inner = [
        jnp.tensordot(gradient, dot, jnp.ndim(dot), precision=HIGHEST)[None]
        for gradient, dot in zip(gradients, _pick(dots, wanted), strict=True)
    ]
    zeros = jax.tree.map(jnp.zeros_like, terms)
    return terms, zeros._replace(total=sum(inner, start=zeros.total))


def _mirrored_gradients(
    plan: _Plan, wanted: tuple[bool, ...], leaves: Leaves
) -> tuple[Terms, Leaves]:
    """`_value_and_gradients`, one gradient standing for its mirror image."""
    if plan.mirror is None or not all(wanted[i] for i in plan.mirror):
        return _value_and_gradients(plan, wanted, leaves)
    image, original = plan.mirror
    fewer = tuple(flag and i != image for i, flag in enumerate(wanted))
    terms, gradients = _value_and_gradients(plan, fewer, leaves)
    every = list(_replace([None] * len(fewer), fewer, gradients))
    every[image] = every[original]
    return terms, _pick(every, wanted)


@functools.partial(jax.jit, static_argnums=0)
def _value(plan: _Plan, leaves: Leaves) -> Terms:
    def one(block: Leaves) -> tuple[Terms, None]:
        return _sum_rows(_call(plan, _replace(leaves, plan.sliced, block))), None

    return _accumulate(one, leaves, _cut(plan, leaves))[0]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _value_and_gradients(
    plan: _Plan, wanted: tuple[bool, ...], leaves: Leaves
) -> tuple[Terms, Leaves]:
    """The sums; of each wanted leaf the gradient of each total, `[(parts,) ...]`."""
    sliced = _pick(plan.sliced, wanted)
    whole = [not s for s in sliced]

    def one(block: Leaves) -> tuple[Any, Any]:
        here = _replace(leaves, plan.sliced, block)

        def total(given: Leaves) -> tuple[Array, Terms]:
            terms = _sum_rows(_call(plan, _replace(here, wanted, given)))
            return terms.total[0], terms

        given = tuple(jnp.asarray(x) for x in _pick(here, wanted))
        value, pullback, terms = jax.vjp(total, given, has_aux=True)
        if value.ndim:
            # One part after the other: XLA's batched products are slow on a CPU.
            basis = (jnp.zeros_like(value).at[i].set(1.0) for i in range(value.size))
            gradients = [pullback(part)[0] for part in basis]
            gradients = jax.tree.map(lambda *parts: jnp.stack(parts), *gradients)
        else:
            (gradients,) = pullback(jnp.ones_like(value))
        return (terms, _pick(gradients, whole)), _pick(gradients, sliced)

    (terms, totals), parts = _accumulate(one, leaves, _cut(plan, leaves))
    parts = [_uncut(plan, x, terms.total.ndim - 1) for x in parts]
    return terms, _replace(_replace(sliced, sliced, parts), whole, totals)


def _sum_rows(terms: Terms) -> Terms:
    return Terms(*(jnp.sum(x, axis=0, keepdims=True) for x in terms))


def _accumulate(
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
