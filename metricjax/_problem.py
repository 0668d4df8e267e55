"""What a call of the engine is about, and what it does to one block of anchors.

Arguments are checked, padding is silenced, candidates are chosen (and gathered over
devices); then a block of anchors is measured against the candidates.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import _checks, _running, numerics, pairs
from metricjax.pairs import Items, Pairs
from metricjax.reductions import Terms

Measure = Callable[..., Any]
Prepare = Callable[[Array], Array]
PairMiner = Callable[[Any, Pairs], Pairs]
Axis = str | tuple[str, ...]


def _as_it_is(state: Any, *_: Any) -> Any:
    return state


class Fold(NamedTuple):
    """A row loss that can be made of parts of a row, in any order.

    It stands wherever a row loss does. On one device, or with candidates that were
    gathered, it is `finish(step(whole row))`; with the option `ring` each part of the
    candidates comes by in turn: `finish(merge(merge(step(a), step(b)), step(c)))`. A
    loss that is a sum over its candidates is `Fold(row)`, with no further functions.

    Attributes:
        step: `(rows, positive, negative, *extra) -> state`, of some of the candidates:
            a pytree of `[b, ...]`. It may be configured with `jax.tree_util.Partial`.
        finish: `(state, *anchor) -> Terms`, where `anchor` is what the anchors have of
            `extra`: `per_anchor` if given, and the result of `given` if there is one.
            By default the state is the `Terms`.
        merge: `(state, state) -> state`, of two disjoint sets of candidates; a
            module-level function. By default all is added; bools by `or`.
        given: a `Fold` of the same rows that must be done before: what its `finish`
            gives, a pytree of `[b, ...]`, is the last of `extra`. It is a second pass
            only where the candidates go round a ring. If it only chooses, let it
            finish with `jax.lax.stop_gradient`, which saves the way back.

    Example:
        >>> def step(rows, positive, negative):
        ...     return jnp.max(jnp.where(positive, rows, 0.0), axis=1)
        >>> def finish(farthest):
        ...     some = (farthest > 0).astype(farthest.dtype)
        ...     return Terms(farthest, some, some)
        >>> farthest_positive = Fold(step, finish, jnp.maximum)
    """

    step: Callable[..., Any]
    finish: Callable[..., Any] = _as_it_is
    merge: Callable[[Any, Any], Any] = _running.merge
    given: Any = None


class Apart(NamedTuple):
    """A row loss of two parts: what its positives cost, and what its negatives do.

    It stands wherever a row loss does, and is a `Fold`: each part is a sum over pairs.
    Its `Terms` are `[b, 2]`, the positives first. Where items of one class lie side by
    side, as samplers of classes put them, the positives of a block are looked for among
    few candidates, which saves the other half of the work.

    Attributes:
        near: `(rows, positive, *extra) -> Terms [b]`. It may be configured with
            `jax.tree_util.Partial`.
        far: `(rows, negative, *extra) -> Terms [b]`, likewise.

    Example:
        >>> def pull(rows, positive):
        ...     total = jnp.sum(jnp.where(positive, rows, 0.0), axis=1)
        ...     count = jnp.sum(positive, axis=1, dtype=total.dtype)
        ...     return Terms(total, count, count)
        >>> def push(rows, negative):
        ...     return pull(jnp.exp(-rows), negative)
        >>> pull_and_push = Apart(pull, push)
    """

    near: Callable[..., Terms]
    far: Callable[..., Terms]


def _both(
    near: Partial,
    far: Partial,
    rows: Any,
    positive: Array,
    negative: Array,
    *extra: Any,
) -> Terms:
    parts = near(rows, positive, *extra), far(rows, negative, *extra)
    return Terms(*(jnp.stack(fields, axis=1) for fields in zip(*parts, strict=True)))


class Side(NamedTuple):
    """Anchors, or candidates, and what the engine must know of them.

    Attributes:
        embeddings: `[rows, dim]`, prepared.
        items: which pairs they make.
        extra: `per_anchor`, or `per_candidate`.
        masks: `[batch, n]` instead of what the items say.
        weights: `[batch]` of anchors.
        positions: `[rows]`, places in the whole batch; of candidates if they go round.
        given: what an earlier pass found of each anchor.
    """

    embeddings: Array
    items: Items
    extra: Any
    masks: Pairs | None = None
    weights: Array | None = None
    positions: Array | None = None
    given: Any = None


class Shared(NamedTuple):
    """What every block of anchors needs whole."""

    function: Any
    measure: Partial
    candidates: Any
    pair_miner: Partial | None = None
    runs: Any = None


def build(
    function: Callable[..., Any] | Fold | Apart,
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    measure: Measure,
    prepare: Prepare | None = None,
    per_anchor: Any = None,
    per_candidate: Any = None,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ref_embeddings: ArrayLike | None = None,
    ref_labels: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    ref_ids: ArrayLike | None = None,
    block_size: int | None = None,
    axis_name: Axis | None = None,
    pair_miner: PairMiner | None = None,
    ring: bool = False,
    one_way: bool = False,
) -> tuple[Shared, Side, int]:
    """Checked arguments as what is shared, what is cut into blocks, and the block."""
    if isinstance(function, Apart):
        near, far = map(as_partial, function)
        function = Fold(Partial(_both, near, far))
    if ring:
        _check_ring(function, axis_name, pair_miner)
    masks = labels if isinstance(labels, Pairs) else None
    anchors = _side("", embeddings, labels, where, ids, prepare, per_anchor)
    if ref_embeddings is None:
        _check_no_refs(ref_labels, ref_where, ref_ids)
        anchors = anchors._replace(items=_with_global_ids(anchors.items, axis_name))
        candidates = anchors._replace(extra=per_candidate)
        candidates = candidates if ring else _gather(candidates, axis_name)
    else:
        if ref_labels is None and masks is None:
            raise ValueError(
                "Expected `ref_labels` with `ref_embeddings`, got None; pass the label "
                "of each reference row (or `Pairs` masks in the place of labels)."
            )
        _checks.check_same_dim(
            "embeddings", embeddings, "ref_embeddings", ref_embeddings
        )
        candidates = _side(
            "ref_",
            ref_embeddings,
            masks if ref_labels is None else ref_labels,
            ref_where,
            ref_ids,
            prepare,
            per_candidate,
        )
    batch, n = anchors.embeddings.shape[0], candidates.embeddings.shape[0]
    if masks is not None:
        every = n * jax.lax.axis_size(axis_name) if ring and axis_name else n
        _checks.check_mask("labels.positive", masks.positive, (batch, every))
        _checks.check_mask("labels.negative", masks.negative, (batch, every))
    if weights is not None:
        _checks.check_shape("weights", weights, (batch,), "one weight for each anchor")
        weights = jax.lax.stop_gradient(numerics.promote(weights))
    default = default_block(batch, n, one_way=one_way)
    block = default if block_size is None else block_size
    _checks.check_positive_int("block_size", block, "leave it out for the default")
    if ring:
        candidates = candidates._replace(positions=places(n, axis_name))
    positions = places(batch, axis_name)
    anchors = anchors._replace(masks=masks, weights=weights, positions=positions)
    measure = as_partial(measure)
    if block < batch and not one_way:
        # The gradient of the candidates is then `x^T slopes`, added up as it comes. For
        # rows it is `slopes^T x`, for which XLA first transposes the slopes on a CPU.
        candidates = candidates._replace(embeddings=candidates.embeddings.T)
        measure = Partial(_of_columns, measure)
    shared = Shared(
        _configured(function),
        measure,
        candidates,
        None if pair_miner is None else as_partial(pair_miner),
    )
    return shared, anchors, min(block, batch)


def _of_columns(measure: Measure, x: Array, columns: Array) -> Any:
    """What is measured to the rows `[n, dim]` whose transpose is given."""
    return measure(x, columns.T)


def default_block(batch: int, candidates: int, *, one_way: bool = False) -> int:
    """Anchors in a block: as many as keep a block of rows in fast memory.

    On a CPU rows should stay in the cache; on an accelerator blocks must be large,
    since each is a few launches. What goes back as well, for a gradient, adds to that
    of all candidates with every block: 32 rows instead of 64 took 1.5 times as long at
    16,384 candidates.
    """
    budget = 2**18 if jax.default_backend() == "cpu" else 2**25
    block = budget // max(candidates, 1)
    block = min(batch, max(block, 16 if one_way else 64))
    # Blocks of even size: 300 anchors are two blocks of 150, not 256 and 44.
    return -(-batch // -(-batch // block))


def _side(
    prefix: str,
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs | None,
    where: ArrayLike | None,
    ids: ArrayLike | None,
    prepare: Prepare | None,
    extra: Any,
) -> Side:
    _checks.check_embeddings(f"{prefix}embeddings", embeddings)
    size = jnp.shape(embeddings)[0]
    if isinstance(labels, Pairs) or labels is None:
        labels = np.zeros(size, np.int32)
    items = pairs.items(prefix, labels, where, ids, rows=size)
    x = numerics.mask_rows(embeddings, where)
    return Side(x if prepare is None else prepare(x), items, extra)


def _check_no_refs(*refs: ArrayLike | None) -> None:
    if any(ref is not None for ref in refs):
        raise ValueError(
            "Expected `ref_embeddings` with `ref_labels`, `ref_where` or `ref_ids`, "
            "got None; pass the reference rows, or leave these out."
        )


def _check_ring(
    function: Any, axis_name: Axis | None, pair_miner: PairMiner | None
) -> None:
    if axis_name is None:
        raise ValueError(
            "Expected `axis_name` with `ring`, got None; pass the mesh axis of the "
            "jax.shard_map that the loss is called in, or leave `ring` out."
        )
    if not isinstance(function, Fold):
        raise ValueError(
            "Expected a loss (or miner) that is a rows.Fold with `ring`, got one that "
            "needs all candidates of an anchor at once; leave `ring` out, and they are "
            "gathered."
        )
    if pair_miner is not None:
        raise ValueError(
            "Expected no `pair_miner` with `ring`, got one, which chooses among all "
            "candidates of an anchor at once; leave one of the two out."
        )


def _with_global_ids(items: Items, axis_name: Axis | None) -> Items:
    """The items with ids that are unique over all devices, unless they have ids."""
    if items.ids is not None:
        return items
    return items._replace(ids=places(items.labels.shape[0], axis_name))


def places(size: int, axis_name: Axis | None) -> Array:
    """Int32 `[size]`: where the rows of this device are in the whole batch."""
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * size
    return jnp.arange(size, dtype=jnp.int32) + first


def _gather(side: Side, axis_name: Axis | None) -> Side:
    if axis_name is None:
        return side
    return jax.tree.map(lambda x: jax.lax.all_gather(x, axis_name, tiled=True), side)


def as_partial(function: Callable[..., Any]) -> Partial:
    """The function with its configuration as leaves, not as part of its identity."""
    if isinstance(function, Partial):
        return function
    if isinstance(function, functools.partial):
        return Partial(function.func, *function.args, **function.keywords)
    return Partial(function)


def _configured(function: Any) -> Any:
    """A row loss or a fold, its configuration as leaves."""
    if not isinstance(function, Fold):
        return as_partial(function)
    return function._replace(
        step=as_partial(function.step),
        finish=as_partial(function.finish),
        given=None if function.given is None else _configured(function.given),
    )


# --- one block ----------------------------------------------------------------------


def _block_rows(shared: Shared, anchors: Side) -> tuple[Any, Pairs]:
    rows = shared.measure(anchors.embeddings, shared.candidates.embeddings)
    masks = _block_pairs(anchors, shared.candidates)
    if shared.pair_miner is None:
        return rows, masks
    return rows, _mined(shared.pair_miner, anchors, rows, masks)


def _block_pairs(anchors: Side, candidates: Side) -> Pairs:
    if anchors.masks is None:
        return pairs.between(anchors.items, candidates.items)
    usable = pairs.allowed(anchors.items, candidates.items)
    masks = anchors.masks
    if candidates.positions is not None:
        first, n = candidates.positions[0], candidates.embeddings.shape[0]
        masks = (jax.lax.dynamic_slice_in_dim(mask, first, n, 1) for mask in masks)
    return Pairs(*(mask & usable for mask in masks))


def _mined(miner: Partial, anchors: Side, rows: Any, masks: Pairs) -> Pairs:
    """Those of the pairs that the miner keeps; its choice has no derivative."""
    miner = _with_key_of_each_anchor(miner, anchors.positions)
    chosen = miner(jax.lax.stop_gradient(rows), masks)
    if not isinstance(chosen, Pairs):
        raise TypeError(
            f"Expected `pair_miner` to return Pairs, got {type(chosen).__name__}; make "
            "masks of what a triplet miner chooses with metricjax.mining.as_pairs."
        )
    return Pairs(*(new & old for new, old in zip(chosen, masks, strict=True)))


def _with_key_of_each_anchor(miner: Any, positions: Any) -> Any:
    """The miner with each random key in its configuration made `[block]` keys.

    They depend on the anchor's place in the batch alone, so that what is drawn is the
    same with any block size and on any number of devices.
    """

    def fold(leaf: Any) -> Any:
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
            return leaf
        return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(leaf, positions)

    return jax.tree.map(fold, miner)


def block_terms(shared: Shared, anchors: Side) -> Terms:
    """`Terms` of a block of anchors, weighted; counts are constants."""
    rows, masks = _block_rows(shared, anchors)
    found = _found(shared.function, rows, masks, anchors, shared.candidates)
    return weighted(found, anchors)


def weighted(terms: Terms, anchors: Side) -> Terms:
    """The terms times the weights of the anchors, in at least float32."""
    total, count, active = map(numerics.promote, terms)
    count, active = jax.lax.stop_gradient((count, active))
    weights = anchors.weights
    if weights is None:
        return Terms(total, count, active)
    weights = weights.reshape(weights.shape + (1,) * (total.ndim - 1))
    return Terms(total * weights, count * weights, active * weights)


def block_selection(shared: Shared, anchors: Side) -> Any:
    """What a miner chooses for a block of anchors."""
    miner = _with_key_of_each_anchor(shared.function, anchors.positions)
    rows, masks = _block_rows(shared, anchors)
    if isinstance(miner, Fold):
        return _found(miner, rows, masks, anchors, shared.candidates)
    return miner(rows, masks)


def block_part(which: int, shared: Shared, anchors: Side) -> Terms:
    """One part of an `Apart`: that of the positives (0) or of the negatives (1)."""
    rows, masks = _block_rows(shared, anchors)
    extra = those_there(anchors.extra, shared.candidates.extra)
    part = shared.function.step.args[which]
    return weighted(part(rows, masks[which], *extra), anchors)


def block_state(shared: Shared, anchors: Side) -> Any:
    """What the step of a fold, in the place of a row loss, makes of a block."""
    rows, masks = _block_rows(shared, anchors)
    extra = those_there(anchors.extra, shared.candidates.extra, anchors.given)
    return shared.function(rows, *masks, *extra)


def _found(
    function: Any, rows: Any, masks: Pairs, anchors: Side, candidates: Side
) -> Any:
    """What a row loss or a fold makes of whole rows."""
    if not isinstance(function, Fold):
        return function(rows, *masks, *those_there(anchors.extra, candidates.extra))
    given = None
    if function.given is not None:
        given = _found(function.given, rows, masks, anchors, candidates)
    extra = those_there(anchors.extra, candidates.extra, given)
    state = function.step(rows, *masks, *extra)
    return function.finish(state, *those_there(anchors.extra, given))


def those_there(*extra: Any) -> list[Any]:
    """Without those that are None."""
    return [x for x in extra if x is not None]
