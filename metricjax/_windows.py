"""The positives of a block of anchors in few candidates: those around their classes.

Samplers of classes put the items of a class side by side, in any order of classes. The
positives of neighbouring anchors are then in a window that is hardly larger than the
block. Whether that holds is known from the labels alone, at run time.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from metricjax import _blocks, _problem
from metricjax._problem import Shared, Side
from metricjax.reductions import Terms

# What a window has beside a block of anchors, for the rest of their classes.
BESIDE = 64


class Runs(NamedTuple):
    """Items of one label next to each other.

    Attributes:
        starts: bool `[n]`, whether an item has another label than the one before.
        fit: whether the classes of each block of anchors lie within one window.
    """

    starts: Array
    fit: Array


def shortcut(
    shared: Shared, block: int
) -> tuple[_blocks.Function | _blocks.Shortcut, Shared]:
    """What to do with a block of anchors of an `Apart`, and what it needs for that."""
    labels = shared.candidates.items.labels
    n = labels.shape[0]
    if 2 * (block + BESIDE) > n:
        # Little would be saved.
        return _problem.block_terms, shared
    starts = jnp.concatenate([jnp.ones(1, bool), labels[1:] != labels[:-1]])
    ordered = jnp.sort(labels)
    classes = 1 + jnp.sum(ordered[1:] != ordered[:-1])
    anchors = jnp.arange(0, n, block, dtype=jnp.int32)
    ends = jnp.minimum(anchors + block, n) - 1
    first, last = jax.vmap(_span, in_axes=(None, 0, 0))(starts, anchors, ends)
    fit = jnp.all(last - first <= block + BESIDE) & (jnp.sum(starts) == classes)
    return _SHORTCUT, shared._replace(runs=Runs(starts, fit))


def _span(starts: Array, first: Array, last: Array) -> tuple[Array, Array]:
    """Where the class of the first anchor begins, and where that of the last ends."""
    n = starts.shape[0]
    place = jnp.arange(n, dtype=jnp.int32)
    return (
        jnp.max(jnp.where(starts & (place <= first), place, 0)),
        jnp.min(jnp.where(starts & (place > last), place, n)),
    )


def _fit(shared: Shared, _: Side) -> Array:
    return shared.runs.fit


def _near(shared: Shared, anchors: Side) -> Terms:
    """The part of the positives, of the candidates in the window."""
    positions = jnp.asarray(anchors.positions)
    # Rows that fill up the last block have place 0.
    first, _ = _span(shared.runs.starts, positions[0], jnp.max(positions))
    size = positions.shape[0] + BESIDE

    def cut(x: Array, axis: int = 0) -> Array:
        return jax.lax.dynamic_slice_in_dim(x, first, size, axis)

    others = shared.candidates
    window = others._replace(
        embeddings=cut(others.embeddings, axis=1),
        items=jax.tree.map(cut, others.items),
        extra=jax.tree.map(cut, others.extra),
    )
    return _problem.block_part(0, shared._replace(candidates=window), anchors)


def _far(shared: Shared, anchors: Side) -> Terms:
    return _problem.block_part(1, shared, anchors)


_SHORTCUT = _blocks.Shortcut(_fit, (_near, _far), _problem.block_terms)
