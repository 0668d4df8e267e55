"""Softmax over class weights a block of classes at a time.

The logits of all classes never exist together: a running maximum and sum of
exponentials are carried over the blocks. The gradient recomputes each block, and gives
that of the class weights block by block, so that beyond it nothing of the size of the
weights is made. Differentiation is JAX's own: forward mode and second derivatives work.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from metricjax import numerics
from metricjax.numerics import HIGHEST, Precision


class Statistics(NamedTuple):
    """What a softmax needs to know of all logits, each `[batch]`.

    Attributes:
        peak: the largest logit so far, a constant.
        total: sum of `exp(logit - peak)`.
        mean: mean of the logits over all classes.
        rival: the largest logit of another class than the true one, a constant.
    """

    peak: Array
    total: Array
    mean: Array
    rival: Array


def statistics(
    embeddings: Array,
    class_weights: Array,
    labels: Array,
    logits_of: Callable[[Array, Array], Array],
    *,
    block: int,
    precision: Precision = HIGHEST,
) -> Statistics:
    """Statistics of the logits of a batch over all classes.

    Args:
        embeddings: `[batch, dim]`, unit vectors.
        class_weights: `[classes, dim]` or `[classes, subcenters, dim]`, normalised
            inside, block by block.
        labels: int `[batch]`.
        logits_of: `(cosine [batch, block], is_target) -> logits`.
        block: classes in a block.
        precision: of the matrix products.
    """
    classes = class_weights.shape[0]
    count = -(-classes // block)
    padding = count * block - classes
    if padding:
        widths = [(0, padding)] + [(0, 0)] * (class_weights.ndim - 1)
        class_weights = jnp.pad(class_weights, widths)
    blocks = class_weights.reshape(count, block, *class_weights.shape[1:])
    first = jnp.arange(count, dtype=labels.dtype) * block

    @jax.checkpoint
    def update(weights: Array, start: Array, peak: Array) -> tuple[Array, ...]:
        column = (start + jnp.arange(block, dtype=labels.dtype))[None, :]
        is_target = labels[:, None] == column
        logits = logits_of(_cosine(embeddings, weights, precision), is_target)
        if padding:
            logits = jnp.where(column < classes, logits, -jnp.inf)
        new_peak = jax.lax.stop_gradient(jnp.maximum(peak, jnp.max(logits, axis=1)))
        total = jnp.sum(jnp.exp(logits - new_peak[:, None]), axis=1)
        finite = jnp.where(jnp.isfinite(logits), logits, 0.0) if padding else logits
        rival = jnp.max(jnp.where(is_target, -jnp.inf, logits), axis=1)
        rival = jax.lax.stop_gradient(rival)
        return new_peak, total, jnp.sum(finite, axis=1) / classes, rival

    def step(s: Statistics, block: tuple[Array, Array]) -> tuple[Statistics, None]:
        peak, total, mean, rival = update(*block, s.peak)
        kept = s.total * jnp.exp(s.peak - peak)
        rival = jnp.maximum(s.rival, rival)
        return Statistics(peak, kept + total, s.mean + mean, rival), None

    # Made of the embeddings, so that in jax.shard_map the carry varies as they do.
    zero = jnp.zeros_like(embeddings[:, 0])
    lowest = zero + jnp.finfo(zero.dtype).min
    start = Statistics(lowest, zero, zero, lowest)
    return jax.lax.scan(step, start, (blocks, first))[0]


def _cosine(x: Array, weights: Array, precision: Precision) -> Array:
    """Cosine `[batch, block]` to each class, to the nearest of its sub-centers."""
    w = numerics.l2_normalize(weights)
    centers = [w] if w.ndim == 2 else [w[:, k] for k in range(w.shape[1])]
    cosines = [numerics.matmul(x, c.T, precision=precision) for c in centers]
    return functools.reduce(jnp.maximum, cosines)


def default_block(batch: int, classes: int) -> int:
    """Classes in a block: as many as keep a block of logits in fast memory."""
    budget = 2**18 if jax.default_backend() == "cpu" else 2**25
    block = max(128, min(classes, budget // max(batch, 1)))
    return min(classes, -(-classes // -(-classes // block)))
