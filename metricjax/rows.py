"""The engine: a loss is a function of one anchor's row, applied block by block.

From one anchor a loss sees a row of distances (or similarities) to the candidates,
which of them are positive, and which negative. A row loss maps a block of such rows to
`Terms`, each `[b]` or `[b, parts]`:

    row(rows [b, n], positive [b, n], negative [b, n], ...) -> Terms

`apply` runs it over a batch, a block of anchors at a time, so that no `[batch, batch]`
array exists at any batch size. Everything that concerns blocks, memory, padding and
devices is here and nowhere else. A row loss must give zero for a row without positives
and negatives, and a finite gradient for any finite row.

Hyperparameters travel as the leaves of `jax.tree_util.Partial`: floats and arrays are
traced and differentiable; ints, bools and functions are static. Row losses and measures
should be module-level functions, since their identity is the key of the compiled loop.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import _blocks, _checks, numerics, pairs
from metricjax.pairs import Items, Pairs
from metricjax.reductions import Reduction, Terms

__all__ = ["Options", "apply", "candidates", "mine", "reduce", "sums", "terms"]

RowLoss = Callable[..., Terms]
Measure = Callable[..., Any]
Axis = str | tuple[str, ...]


class Options(TypedDict, total=False):
    """What every batch loss of this engine takes, by keyword.

    Attributes:
        where: bool `[batch]`; False marks padding, neither anchor nor candidate.
        weights: float `[batch]`; importance of each anchor. It multiplies total, count
            and active, and is a constant: no gradient flows to it.
        ref_embeddings: `[n, dim]`, other candidates: a queue, a gallery. The default is
            the batch itself, where no row is its own candidate. When given, they are
            the only candidates.
        ref_labels: int `[n]`, their labels. Left out if the labels are `Pairs`.
        ref_where: bool `[n]`, False for padding.
        ids: int `[batch]`; rows of equal id are one item, which is no pair.
        ref_ids: int `[n]`, likewise; for candidates that hold rows of the batch.
        block_size: anchors in a block; by default chosen for the backend. Static.
        axis_name: inside `jax.shard_map`, the mesh axis (or axes) over which the batch
            is sharded. The candidates are then the whole batch, and the loss is that of
            the whole batch, on every device.
    """

    where: ArrayLike | None
    weights: ArrayLike | None
    ref_embeddings: ArrayLike | None
    ref_labels: ArrayLike | None
    ref_where: ArrayLike | None
    ids: ArrayLike | None
    ref_ids: ArrayLike | None
    block_size: int | None
    axis_name: Axis | None


class _Side(NamedTuple):
    embeddings: Array
    items: Items
    extra: Any
    masks: Pairs | None = None
    weights: Array | None = None


class _Shared(NamedTuple):
    """What every block of anchors needs whole."""

    function: Partial
    measure: Partial
    candidates: _Side


def apply(
    row: RowLoss,
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    measure: Measure,
    reduction: Reduction | None,
    per_anchor: Any = None,
    per_candidate: Any = None,
    **options: Unpack[Options],
) -> Any:
    """A row loss applied to a batch and reduced.

    Time is that of the rows; memory is a block of rows, `block_size * n`, a few times.

    Args:
        row: `(rows, positive, negative, *extra) -> Terms`, for a block of anchors.
        embeddings: `[batch, dim]`.
        labels: int `[batch]` (negative: in no pair), or `Pairs` `[batch, n]`.
        measure: `(x [b, dim], y [n, dim]) -> rows [b, n]`, or any pytree of such.
        reduction: `Terms -> scalar`; None for the `Terms` of each anchor.
        per_anchor: a pytree of `[batch, ...]`; its block is the row's next argument.
        per_candidate: a pytree of `[n, ...]`; whole, the row's argument after that.
        **options: see `Options`.

    Returns:
        What `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> from metricjax import distances, reductions
        >>> def farthest_positive(rows, positive, negative):
        ...     total = jnp.max(jnp.where(positive, rows, 0.0), axis=1)
        ...     some = jnp.any(positive, axis=1).astype(total.dtype)
        ...     return Terms(total, some, some)
        >>> x, y = jnp.array([[0.0], [3.0], [9.0]]), jnp.array([0, 0, 1])
        >>> float(apply(farthest_positive, x, y, measure=distances.euclidean,
        ...             reduction=reductions.mean))
        3.0
    """
    arguments: dict[str, Any] = {
        "measure": measure,
        "per_anchor": per_anchor,
        "per_candidate": per_candidate,
        **options,
    }
    if reduction is None:
        return terms(row, embeddings, labels, **arguments)
    entry = sums if _reads_sums(reduction) else terms
    return reduction(entry(row, embeddings, labels, **arguments))


def _reads_sums(reduction: Reduction) -> bool:
    inner = getattr(reduction, "func", reduction)
    return getattr(inner, "reads_sums", False)


def reduce(
    terms: Terms, reduction: Reduction | None, *, axis_name: Axis | None = None
) -> Any:
    """Terms of each anchor, from wherever they come, reduced as `apply` does.

    Args:
        terms: `Terms` `[batch]` or `[batch, parts]`.
        reduction: `Terms -> scalar`; None for the terms themselves.
        axis_name: see `Options`; sums are then over all devices.

    Returns:
        What `reduction` returns.

    Example:
        >>> from metricjax import reductions
        >>> terms = Terms(*jnp.array([[3.0, 5.0], [2.0, 2.0], [1.0, 1.0]]))
        >>> float(reduce(terms, reductions.mean))
        2.0
    """
    if reduction is None:
        return terms
    if axis_name is not None and _reads_sums(reduction):
        summed = Terms(*(jnp.sum(x, axis=0, keepdims=True) for x in terms))
        terms = jax.lax.psum(summed, axis_name)
    return reduction(terms)


def sums(
    row: RowLoss,
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    measure: Measure,
    per_anchor: Any = None,
    per_candidate: Any = None,
    **options: Unpack[Options],
) -> Terms:
    """Terms of a row loss summed over the batch, value and gradient in one pass.

    When differentiated, the gradient of the totals is computed with the value, block by
    block, stored, and scaled afterwards; counts carry no gradient. Forward mode, `vmap`
    and second derivatives work.

    Args:
        row: see `apply`.
        embeddings: see `apply`.
        labels: see `apply`.
        measure: see `apply`.
        per_anchor: see `apply`.
        per_candidate: see `apply`.
        **options: see `Options`. With `axis_name` the sums are over all devices.

    Returns:
        `Terms` of `[1]`, or of `[1, parts]`.

    Example:
        >>> from metricjax import distances
        >>> def positives(rows, positive, negative):
        ...     total = jnp.sum(jnp.where(positive, rows, 0.0), axis=1)
        ...     count = jnp.sum(positive, axis=1, dtype=total.dtype)
        ...     return Terms(total, count, count)
        >>> x, y = jnp.array([[0.0], [3.0], [9.0]]), jnp.array([0, 0, 1])
        >>> sums(positives, x, y, measure=distances.euclidean).total.tolist()
        [6.0]
    """
    problem = _problem(
        row, embeddings, labels, measure, per_anchor, per_candidate, **options
    )
    out = _blocks.sum_terms(_block_terms, *problem)
    axis_name = options.get("axis_name")
    return out if axis_name is None else jax.lax.psum(out, axis_name)


def terms(
    row: RowLoss,
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    measure: Measure,
    per_anchor: Any = None,
    per_candidate: Any = None,
    **options: Unpack[Options],
) -> Terms:
    """Terms of a row loss for each anchor, for any use of them.

    The gradient recomputes each block, since it is only known afterwards which terms
    matter: one more product than `sums`, the same memory.

    Args:
        row: see `apply`.
        embeddings: see `apply`.
        labels: see `apply`.
        measure: see `apply`.
        per_anchor: see `apply`.
        per_candidate: see `apply`.
        **options: see `Options`. With `axis_name` the anchors are those of this device.

    Returns:
        `Terms` of `[batch]`, or of `[batch, parts]`.

    Example:
        >>> from metricjax import distances
        >>> def positives(rows, positive, negative):
        ...     total = jnp.sum(jnp.where(positive, rows, 0.0), axis=1)
        ...     count = jnp.sum(positive, axis=1, dtype=total.dtype)
        ...     return Terms(total, count, count)
        >>> x, y = jnp.array([[0.0], [3.0], [9.0]]), jnp.array([0, 0, 1])
        >>> terms(positives, x, y, measure=distances.euclidean).total.tolist()
        [3.0, 3.0, 0.0]
    """
    problem = _problem(
        row, embeddings, labels, measure, per_anchor, per_candidate, **options
    )
    return _blocks.stack(_block_terms, *problem)


def mine(
    miner: Callable[[Array, Pairs], Any],
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    measure: Measure,
    **options: Unpack[Options],
) -> Any:
    """A miner of `metricjax.mining` applied to a batch, block by block.

    Args:
        miner: `(rows [b, n], Pairs) -> Triplets [b, k]`, or any pytree of `[b, ...]`.
        embeddings: see `apply`. No gradient flows: mining chooses.
        labels: see `apply`.
        measure: see `apply`; what the miner expects, a distance or a similarity.
        **options: see `Options`.

    Returns:
        What the miner returns, for the whole batch; indices count candidates, which
        are the whole batch, across devices if `axis_name` is given.

    Example:
        >>> from metricjax import distances, mining
        >>> x, y = jnp.array([[0.0], [3.0], [9.0]]), jnp.array([0, 0, 1])
        >>> mine(mining.hard, x, y, measure=distances.euclidean).negative.tolist()
        [[2], [2], [0]]
    """
    shared, anchors, block = _problem(miner, embeddings, labels, measure, **options)
    # Mining chooses, and a choice has no derivative.
    chosen = _blocks.stack(_block_selection, shared, anchors, block)
    return jax.lax.stop_gradient(chosen)


def default_block(batch: int, candidates: int) -> int:
    """Anchors in a block: as many as keep a block of rows in fast memory.

    On a CPU rows should stay in the cache; on an accelerator blocks must be large,
    since each is a few launches.
    """
    budget = 2**18 if jax.default_backend() == "cpu" else 2**25
    block = max(16, min(batch, budget // max(candidates, 1)))
    # Blocks of even size: 300 anchors are two blocks of 150, not 256 and 44.
    return -(-batch // -(-batch // block))


def candidates(embeddings: ArrayLike, **options: Unpack[Options]) -> Array:
    """The vectors that the indices of `mine` count; padding is zero.

    Args:
        embeddings: `[batch, dim]`.
        **options: those given to `mine`.

    Returns:
        `[n, dim]`: the references if given, else the batch, of all devices if
        `axis_name` is given.

    Example:
        >>> candidates(jnp.ones((2, 3)), where=jnp.array([True, False])).tolist()
        [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    """
    refs = options.get("ref_embeddings")
    if refs is not None:
        return silence(refs, options.get("ref_where"))
    own = silence(embeddings, options.get("where"))
    axis_name = options.get("axis_name")
    return own if axis_name is None else jax.lax.all_gather(own, axis_name, tiled=True)


def silence(embeddings: ArrayLike, where: ArrayLike | None) -> Array:
    """The embeddings in computing precision, with zeros for padding.

    Padding may hold anything, NaN included, and 0 * NaN would reach the gradient.
    """
    embeddings = numerics.promote(embeddings)
    if where is None:
        return embeddings
    return jnp.where(jnp.asarray(where)[:, None], embeddings, 0.0)


# --- what a call is about: checked, padding silenced, candidates gathered -----------


def _problem(
    function: Callable[..., Any],
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    measure: Measure,
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
) -> tuple[_Shared, _Side, int]:
    masks = labels if isinstance(labels, Pairs) else None
    anchors = _side("", embeddings, labels, where, ids, per_anchor)
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
    anchors = anchors._replace(masks=masks, weights=weights)
    shared = _Shared(_as_partial(function), _as_partial(measure), candidates)
    return shared, anchors, min(block, batch)


def _side(
    prefix: str,
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs | None,
    where: ArrayLike | None,
    ids: ArrayLike | None,
    extra: Any,
) -> _Side:
    _checks.check_embeddings(f"{prefix}embeddings", embeddings)
    size = jnp.shape(embeddings)[0]
    if isinstance(labels, Pairs) or labels is None:
        labels = np.zeros(size, np.int32)
    items = pairs.items(prefix, labels, where, ids, rows=size)
    return _Side(silence(embeddings, where), items, extra)


def _check_no_refs(*refs: ArrayLike | None) -> None:
    if any(ref is not None for ref in refs):
        raise ValueError(
            "Expected `ref_embeddings` with `ref_labels`, `ref_where` or `ref_ids`, "
            "got None; pass the reference rows, or leave these out."
        )


def _with_global_ids(items: Items, axis_name: Axis | None) -> Items:
    if axis_name is None or items.ids is not None:
        return pairs.with_ids(items)
    items = pairs.with_ids(items)
    first = jax.lax.axis_index(axis_name) * items.labels.shape[0]
    return items._replace(ids=items.ids + first)


def _gather(side: _Side, axis_name: Axis | None) -> _Side:
    if axis_name is None:
        return side
    return jax.tree.map(lambda x: jax.lax.all_gather(x, axis_name, tiled=True), side)


def _as_partial(function: Callable[..., Any]) -> Partial:
    """The function with its configuration as leaves, not as part of its identity."""
    if isinstance(function, Partial):
        return function
    if isinstance(function, functools.partial):
        return Partial(function.func, *function.args, **function.keywords)
    return Partial(function)


# --- one block ----------------------------------------------------------------------


def _block_rows(shared: _Shared, anchors: _Side) -> tuple[Any, Pairs]:
    candidates = shared.candidates
    rows = shared.measure(anchors.embeddings, candidates.embeddings)
    if anchors.masks is None:
        return rows, pairs.between(anchors.items, candidates.items)
    usable = pairs.allowed(anchors.items, candidates.items)
    return rows, Pairs(*(mask & usable for mask in anchors.masks))


def _block_terms(shared: _Shared, anchors: _Side) -> Terms:
    rows, masks = _block_rows(shared, anchors)
    extra = [x for x in (anchors.extra, shared.candidates.extra) if x is not None]
    total, count, active = map(numerics.promote, shared.function(rows, *masks, *extra))
    count, active = jax.lax.stop_gradient((count, active))
    weights = anchors.weights
    if weights is None:
        return Terms(total, count, active)
    weights = weights.reshape(weights.shape + (1,) * (total.ndim - 1))
    return Terms(total * weights, count * weights, active * weights)


def _block_selection(shared: _Shared, anchors: _Side) -> Any:
    return shared.function(*_block_rows(shared, anchors))
