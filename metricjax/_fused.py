"""Margin softmax whose class weights are updated while their gradient is made.

Two passes over blocks of classes: the first makes the statistics of the softmax, the
second the gradient of each block, which the optimiser uses up at once. The gradient of
all class weights never exists, and with donated weights no second copy of them either.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import (
    _blocks,
    _checks,
    _class_blocks,
    _classes,
    _problem,
    _row_optimizer,
    margins,
    numerics,
    reductions,
)
from metricjax._class_blocks import Statistics, block_cosine
from metricjax._row_optimizer import RowState
from metricjax.numerics import HIGHEST
from metricjax.reductions import Reduction, Terms

if TYPE_CHECKING:
    import optax


class FusedUpdate(NamedTuple):
    """What one step of `fused_update` gives.

    Attributes:
        loss: a scalar.
        gradient: of the loss, for the embeddings `[batch, dim]`.
        class_weights: the new ones.
        state: the new state of the optimiser.
    """

    loss: Array
    gradient: Array
    class_weights: Array
    state: Any


def fused_update(
    optimizer: "optax.GradientTransformation",
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    state: Any,
    labels: ArrayLike,
    *,
    margin: margins.Margin,
    others: margins.Others | None = None,
    scale: ArrayLike = 64.0,
    label_smoothing: ArrayLike = 0.0,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = reductions.mean,
    block_size: int | None = None,
) -> FusedUpdate:
    """One training step of class weights whose gradient is never stored whole.

    The same numbers as `losses.margin_softmax`, its gradient, `optimizer.update` and
    `optax.apply_updates`, with the class weights, their gradient and the optimiser's
    state handled a block of classes at a time. Beyond the weights and the state it
    needs a few blocks of logits, if both are donated: `jax.jit(step,
    donate_argnums=...)`. It is what trains a million classes in little memory. The
    optimiser must treat each row by itself, as SGD, Adam and AdamW do, with schedules,
    weight decay or `optax.inject_hyperparams`; it is tried on a few small rows, and
    refused if it does not (`clip_by_global_norm`, LARS, LAMB, Adafactor). The gradient
    of the embeddings trains the encoder, by `jax.vjp`. For one device.

    Args:
        optimizer: an optax transformation, its settings not traced; the one that made
            the state.
        embeddings: `[batch, dim]`; normalised inside.
        class_weights: `[classes, dim]` or `[classes, subcenters, dim]`; rows normalised
            inside, but updated as they are.
        state: of the optimiser, from `optimizer.init(class_weights)` or the last step.
        labels: int `[batch]` in [0, classes); another value is no class.
        margin: see `losses.margin_softmax`. It and all that follows are constants: to
            learn a margin or a scale use that loss.
        others: see `losses.margin_softmax`. It costs one more matrix product, since all
            classes then pull at the target's cosine.
        scale: `s`, a number or `[batch]`.
        label_smoothing: share of the target spread evenly over all classes.
        where: bool `[batch]`; False marks padding.
        weights: float `[batch]`; importance of each example.
        reduction: of `Terms`, whose terms are examples; to a scalar.
        block_size: classes in a block; by default chosen for the backend. Static.

    Returns:
        `FusedUpdate(loss, gradient, class_weights, state)`.

    Raises:
        ValueError: if shapes disagree, the state is another optimiser's, or the
            optimiser does not treat each row by itself.
        TypeError: if a dtype is wrong.

    Example:
        >>> import optax
        >>> x, w, y = jnp.array([[1.0, 0.5]]), jnp.eye(2), jnp.array([0])
        >>> tx = optax.sgd(0.1)
        >>> margin = Partial(margins.cosface, margin=0.2)
        >>> step = fused_update(tx, x, w, tx.init(w), y, margin=margin, scale=10.0)
        >>> round(float(step.loss), 4), round(float(step.class_weights[0, 1]), 4)
        (0.081, 0.0348)

    References:
        Deng et al., "ArcFace", CVPR 2019, arXiv:1801.07698, eq. 4. Updating parameters
        as their gradients appear: Lv et al., "Full Parameter Fine-tuning for Large
        Language Models with Limited Resources" (LOMO), ACL 2024, arXiv:2306.09782.
    """
    _classes.check_class_weights(embeddings, class_weights)
    w = jnp.asarray(class_weights)
    batch, classes = jnp.shape(embeddings)[0], w.shape[0]
    block = _class_blocks.default_block(batch, classes)
    block = block if block_size is None else block_size
    _checks.check_positive_int("block_size", block, "leave it out for the default")
    _row_optimizer.check(optimizer, w)

    def unit(embeddings: ArrayLike) -> Array:
        return _classes.check(embeddings, class_weights, labels, where)[0]

    x, pullback = jax.vjp(unit, jnp.asarray(embeddings))
    labels = jnp.asarray(labels)
    count = _classes.known(labels, classes, where).astype(x.dtype)
    if weights is not None:
        _checks.check_shape("weights", weights, (batch,), "one weight for each example")
        count = count * numerics.promote(weights)
    scale = jnp.broadcast_to(jnp.asarray(scale, jnp.result_type(scale, x)), (batch,))
    softmax = _Softmax(
        x,
        labels.astype(jnp.int32),
        count,
        scale,
        jnp.asarray(label_smoothing, x.dtype),
        _problem.as_partial(margin),
        None if others is None else _problem.as_partial(others),
        _problem.as_partial(reduction),
    )
    # Compiled here, so that an eager call does not trace its loops anew each time.
    loss, slope, w, state = _blocks.compiled(
        _step, softmax, w, state, optimizer, min(block, classes)
    )
    return FusedUpdate(loss, pullback(slope)[0], w, state)


class _Softmax(NamedTuple):
    """All of the loss but the class weights; `x` are unit vectors."""

    x: Array
    labels: Array
    count: Array
    scale: Array
    smoothing: Array
    margin: Partial
    others: Partial | None
    reduction: Partial

    def logits(self, cosine: Array, is_target: Array, target: Array) -> Array:
        if self.others is not None:
            cosine = self.others(cosine, target[:, None])
        return self.scale[:, None] * jnp.where(is_target, target[:, None], cosine)

    def loss(self, total: Array, mean: Array, target: Array, s: Statistics) -> Array:
        """The scalar; `total` is relative to the peak of the statistics."""
        hit = self.scale * target
        cost = s.peak + jnp.log(total) - (1.0 - self.smoothing) * hit
        known = self.count != 0
        cost = jnp.where(known, cost - self.smoothing * mean, 0.0)
        wrong = (s.rival >= hit).astype(cost.dtype)
        return self.reduction(Terms(cost * self.count, self.count, self.count * wrong))


class _Block(NamedTuple):
    """A block of classes; the last one reaches back into the one before it."""

    start: Array
    column: Array
    fresh: Array


class _Slopes(NamedTuple):
    """Slopes of the loss, each `[batch]`: what a block needs to know of the others."""

    peak: Array
    total: Array
    mean: Array


def _step(
    softmax: _Softmax,
    w: Array,
    state: Any,
    optimizer: "optax.GradientTransformation",
    block: int,
) -> tuple[Array, Array, Array, Any]:
    """Loss, its slope for the unit vectors, new class weights and new state."""
    cosine = _classes.target_cosine(softmax.x, w, softmax.labels)
    target, margin_pullback = jax.vjp(softmax.margin, cosine)
    found = _statistics(softmax, target, w, block)
    loss, (total, mean, direct) = jax.value_and_grad(softmax.loss, argnums=(0, 1, 2))(
        found.total, found.mean, target, found
    )
    slopes = _Slopes(found.peak, total, mean / w.shape[0])
    pull = direct + _slope_of_target(softmax, slopes, cosine, target, w, block)
    (own,) = margin_pullback(pull)
    cost = functools.partial(_block_cost, softmax, slopes, target, own)
    return loss, *_descend(cost, softmax, w, state, optimizer, block)


def _over_blocks(
    softmax: _Softmax, classes: int, block: int, step: Callable, carry: Any
) -> Any:
    def one(number: Array, carry: Any) -> Any:
        start = jnp.minimum(number * block, classes - block)
        column = start + jnp.arange(block, dtype=jnp.int32)
        return step(_Block(start, column, column >= number * block), carry)

    count = -(-classes // block)
    return jax.lax.fori_loop(jnp.int32(0), jnp.int32(count), one, carry)


def _rows(x: Array, block: _Block) -> Array:
    return jax.lax.dynamic_slice_in_dim(x, block.start, block.column.shape[0])


def _is_target(softmax: _Softmax, block: _Block) -> Array:
    return (softmax.labels[:, None] == block.column[None]) & block.fresh[None]


def _statistics(
    softmax: _Softmax, target: Array, w: Array, block_size: int
) -> Statistics:
    """As in `_class_blocks`, without a copy of the weights and without gradient."""
    classes = w.shape[0]

    def step(block: _Block, s: Statistics) -> Statistics:
        cosine = block_cosine(softmax.x, _rows(w, block), HIGHEST)
        is_target = _is_target(softmax, block)
        logits = softmax.logits(cosine, is_target, target)
        seen = jnp.where(block.fresh[None], logits, -jnp.inf)
        peak = jnp.maximum(s.peak, jnp.max(seen, axis=1))
        total = jnp.sum(jnp.exp(seen - peak[:, None]), axis=1)
        mean = jnp.sum(jnp.where(block.fresh[None], logits, 0.0), axis=1) / classes
        rival = jnp.max(jnp.where(is_target, -jnp.inf, seen), axis=1)
        total = s.total * jnp.exp(s.peak - peak) + total
        return Statistics(peak, total, s.mean + mean, jnp.maximum(s.rival, rival))

    zero = jnp.zeros_like(target)
    lowest = zero + jnp.finfo(zero.dtype).min
    start = Statistics(lowest, zero, zero, lowest)
    return _over_blocks(softmax, classes, block_size, step, start)


def _cost(
    softmax: _Softmax,
    slopes: _Slopes,
    cosine: Array,
    is_target: Array,
    target: Array,
    fresh: Array,
) -> Array:
    """A scalar whose gradient is that of the loss, through these cosines."""
    logits = softmax.logits(cosine, is_target, target)
    # Masked first: a class that was counted before may have any logit above its peak.
    gap = jnp.where(fresh, logits - slopes.peak[:, None], -jnp.inf)
    mean = jnp.where(fresh, logits, 0.0)
    return jnp.sum(
        slopes.total[:, None] * jnp.exp(gap) + slopes.mean[:, None] * mean,
    )


def _block_cost(
    softmax: _Softmax,
    slopes: _Slopes,
    target: Array,
    own: Array,
    block: _Block,
    x: Array,
    w: Array,
) -> Array:
    """The same of a block, with the slope `own` of the true cosine, for `x` and `w`."""
    cosine = block_cosine(x, w, HIGHEST)
    is_target = _is_target(softmax, block)
    cost = _cost(softmax, slopes, cosine, is_target, target, block.fresh[None])
    return cost + jnp.sum(jnp.where(is_target, own[:, None] * cosine, 0.0))


def _slope_of_target(
    softmax: _Softmax,
    slopes: _Slopes,
    cosine: Array,
    target: Array,
    w: Array,
    block_size: int,
) -> Array:
    """Slope `[batch]` of the loss for the target, through the softmax."""
    cost = functools.partial(_cost, softmax, slopes)
    slope = jax.grad(cost, argnums=2)
    if softmax.others is None:
        # Only one logit of each example knows its target.
        own = cosine[:, None]
        return slope(own, jnp.ones_like(own, bool), target, jnp.ones((1, 1), bool))

    def step(block: _Block, total: Array) -> Array:
        cosine = block_cosine(softmax.x, _rows(w, block), HIGHEST)
        is_target = _is_target(softmax, block)
        return total + slope(cosine, is_target, target, block.fresh[None])

    zeros = jnp.zeros_like(target)
    return _over_blocks(softmax, w.shape[0], block_size, step, zeros)


def _descend(
    cost: Callable[[_Block, Array, Array], Array],
    softmax: _Softmax,
    w: Array,
    state: Any,
    optimizer: "optax.GradientTransformation",
    block_size: int,
) -> tuple[Array, Array, Any]:
    """Slope for `x`, and class weights and state after the update of every block."""
    old, join = _row_optimizer.split(optimizer, w, state)

    def step(block: _Block, carry: tuple[Array, Array, RowState]) -> Any:
        slope, w, now = carry
        rows = _rows(w, block), [_rows(leaf, block) for leaf in now.rows]
        dx, dw = jax.grad(cost, argnums=(1, 2))(block, softmax.x, rows[0])
        # Each block starts from the shared state before the step.
        here = join(RowState(rows[1], old.shared))
        new_w, new = _row_optimizer.update(optimizer, dw, rows[0], here)
        parts, _ = _row_optimizer.split(optimizer, new_w, new)
        written = _write((w, now.rows), rows, (new_w, parts.rows), block)
        return slope + dx, written[0], RowState(written[1], parts.shared)

    start = jnp.zeros_like(softmax.x), w, old
    slope, w, new = _over_blocks(softmax, w.shape[0], block_size, step, start)
    return slope, w, join(new)


def _write(whole: Any, old: Any, new: Any, block: _Block) -> Any:
    """Arrays with a block replaced, but for its rows that had their turn before."""

    def mixed(old: Any, new: Any) -> Any:
        fresh = block.fresh.reshape(-1, *[1] * (old[0].ndim - 1))
        return jax.tree.map(functools.partial(jnp.where, fresh), new, old)

    def put(whole: Array, new: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(whole, new, block.start, 0)

    # A branch, not a select: XLA would fuse the optimiser into each write, which then
    # needs what another has overwritten, and copies all weights in each block.
    new = jax.lax.cond(block.fresh[0], lambda old, new: new, mixed, old, new)
    return jax.tree.map(put, whole, new)
