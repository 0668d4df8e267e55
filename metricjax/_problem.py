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

from metricjax import _checks, numerics, pairs
from metricjax.pairs import Items, Pairs
from metricjax.reductions import Terms

Measure = Callable[..., Any]
Prepare = Callable[[Array], Array]
PairMiner = Callable[[Any, Pairs], Pairs]
Axis = str | tuple[str, ...]


class _Side(NamedTuple):
    embeddings: Array
    items: Items
    extra: Any
    masks: Pairs | None = None
    weights: Array | None = None
    positions: Array | None = None


class _Shared(NamedTuple):
    """What every block of anchors needs whole."""

    function: Partial
    measure: Partial
    candidates: _Side
    pair_miner: Partial | None = None


def build(
    function: Callable[..., Any],
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
) -> tuple[_Shared, _Side, int]:
    """Checked arguments as what is shared, what is cut into blocks, and the block."""
    masks = labels if isinstance(labels, Pairs) else None
    anchors = _side("", embeddings, labels, where, ids, prepare, per_anchor)
    if ref_embeddings is None:
        _check_no_refs(ref_labels, ref_where, ref_ids)
        anchors = anchors._replace(items=_with_global_ids(anchors.items, axis_name))
        candidates = _gather(anchors._replace(extra=per_candidate), axis_name)
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
        _checks.check_mask("labels.positive", masks.positive, (batch, n))
        _checks.check_mask("labels.negative", masks.negative, (batch, n))
    if weights is not None:
        _checks.check_shape("weights", weights, (batch,), "one weight for each anchor")
        weights = jax.lax.stop_gradient(numerics.promote(weights))
    block = default_block(batch, n) if block_size is None else block_size
    _checks.check_positive_int("block_size", block, "leave it out for the default")
    positions = _positions(batch, axis_name)
    anchors = anchors._replace(masks=masks, weights=weights, positions=positions)
    shared = _Shared(
        as_partial(function),
        as_partial(measure),
        candidates,
        None if pair_miner is None else as_partial(pair_miner),
    )
    return shared, anchors, min(block, batch)


def default_block(batch: int, candidates: int) -> int:
    """Anchors in a block: as many as keep a block of rows in fast memory.

    On a CPU rows should stay in the cache; on an accelerator blocks must be large,
    since each is a few launches.
    """
    budget = 2**18 if jax.default_backend() == "cpu" else 2**25
    block = max(16, min(batch, budget // max(candidates, 1)))
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
) -> _Side:
    _checks.check_embeddings(f"{prefix}embeddings", embeddings)
    size = jnp.shape(embeddings)[0]
    if isinstance(labels, Pairs) or labels is None:
        labels = np.zeros(size, np.int32)
    items = pairs.items(prefix, labels, where, ids, rows=size)
    x = numerics.mask_rows(embeddings, where)
    return _Side(x if prepare is None else prepare(x), items, extra)


def _check_no_refs(*refs: ArrayLike | None) -> None:
    if any(ref is not None for ref in refs):
        raise ValueError(
            "Expected `ref_embeddings` with `ref_labels`, `ref_where` or `ref_ids`, "
            "got None; pass the reference rows, or leave these out."
        )


def _with_global_ids(items: Items, axis_name: Axis | None) -> Items:
    """The items with ids that are unique over all devices, unless they have ids."""
    if items.ids is not None:
        return items
    return items._replace(ids=_positions(items.labels.shape[0], axis_name))


def _positions(size: int, axis_name: Axis | None) -> Array:
    """Int32 `[size]`: where the rows of this device are in the whole batch."""
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * size
    return jnp.arange(size, dtype=jnp.int32) + first


def _gather(side: _Side, axis_name: Axis | None) -> _Side:
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


# --- one block ----------------------------------------------------------------------


def _block_rows(shared: _Shared, anchors: _Side) -> tuple[Any, Pairs]:
    rows = shared.measure(anchors.embeddings, shared.candidates.embeddings)
    masks = _block_pairs(anchors, shared.candidates)
    if shared.pair_miner is None:
        return rows, masks
    return rows, _mined(shared.pair_miner, anchors, rows, masks)


def _block_pairs(anchors: _Side, candidates: _Side) -> Pairs:
    if anchors.masks is None:
        return pairs.between(anchors.items, candidates.items)
    usable = pairs.allowed(anchors.items, candidates.items)
    return Pairs(*(mask & usable for mask in anchors.masks))


def _mined(miner: Partial, anchors: _Side, rows: Any, masks: Pairs) -> Pairs:
    """Those of the pairs that the miner keeps; its choice has no derivative."""
    miner = _with_key_of_each_anchor(miner, anchors.positions)
    chosen = miner(jax.lax.stop_gradient(rows), masks)
    if not isinstance(chosen, Pairs):
        raise TypeError(
            f"Expected `pair_miner` to return Pairs, got {type(chosen).__name__}; make "
            "masks of what a triplet miner chooses with metricjax.mining.as_pairs."
        )
    return Pairs(*(new & old for new, old in zip(chosen, masks, strict=True)))


def _with_key_of_each_anchor(miner: Partial, positions: Any) -> Partial:
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


def block_terms(shared: _Shared, anchors: _Side) -> Terms:
    """`Terms` of a block of anchors, weighted; counts are constants."""
    rows, masks = _block_rows(shared, anchors)
    extra = [x for x in (anchors.extra, shared.candidates.extra) if x is not None]
    total, count, active = map(numerics.promote, shared.function(rows, *masks, *extra))
    count, active = jax.lax.stop_gradient((count, active))
    weights = anchors.weights
    if weights is None:
        return Terms(total, count, active)
    weights = weights.reshape(weights.shape + (1,) * (total.ndim - 1))
    return Terms(total * weights, count * weights, active * weights)


def block_selection(shared: _Shared, anchors: _Side) -> Any:
    """What a miner chooses for a block of anchors."""
    miner = _with_key_of_each_anchor(shared.function, anchors.positions)
    return miner(*_block_rows(shared, anchors))
