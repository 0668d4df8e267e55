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

from collections.abc import Callable
from typing import Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from metricjax import _blocks, _problem, numerics
from metricjax._problem import Axis, Measure, PairMiner, Prepare
from metricjax.pairs import Pairs
from metricjax.reductions import Reduction, Terms

__all__ = ["Options", "apply", "candidates", "mine", "reduce", "sums", "terms"]

RowLoss = Callable[..., Terms]


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
        pair_miner: `(rows [b, n], Pairs) -> Pairs`, which of the pairs to train on: one
            of `metricjax.mining`, or your own. It sees the rows that the loss measures,
            distances or similarities (for those, `mining.on_similarities`), and no
            gradient flows through its choice. A random key in its configuration is
            folded with each anchor's place in the batch.
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
    pair_miner: PairMiner | None


def apply(
    row: RowLoss,
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    measure: Measure,
    reduction: Reduction | None,
    prepare: Prepare | None = None,
    per_anchor: Any = None,
    per_candidate: Any = None,
    symmetric: bool = False,
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
        prepare: `[rows, dim] -> [rows, dim]`, applied to both sides before the blocks,
            for instance `numerics.l2_normalize` with `similarities.dot` as measure,
            which does not normalise the candidates again for each block.
        per_anchor: a pytree of `[batch, ...]`; its block is the row's next argument.
        per_candidate: a pytree of `[n, ...]`; whole, the row's argument after that.
        symmetric: whether a row is a sum over its candidates of what each pair costs,
            the same from either end. Half of the gradient is then the other half's
            mirror image, and is not computed where the candidates are the batch, all
            anchors weigh the same, and the reduction reads sums. Static.
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
        "prepare": prepare,
        "per_anchor": per_anchor,
        "per_candidate": per_candidate,
        **options,
    }
    if reduction is None:
        return terms(row, embeddings, labels, **arguments)
    if _reads_sums(reduction):
        return reduction(
            sums(row, embeddings, labels, symmetric=symmetric, **arguments)
        )
    return reduction(terms(row, embeddings, labels, **arguments))


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
    prepare: Prepare | None = None,
    per_anchor: Any = None,
    per_candidate: Any = None,
    symmetric: bool = False,
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
        prepare: see `apply`.
        per_anchor: see `apply`.
        per_candidate: see `apply`.
        symmetric: see `apply`.
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
    problem = _problem.build(
        row, embeddings, labels, measure, prepare, per_anchor, per_candidate, **options
    )
    # What makes the two ends of a pair unlike: other candidates, or choosy anchors.
    names = ("ref_embeddings", "weights", "pair_miner", "axis_name")
    unlike = any(options.get(name) is not None for name in names)
    if unlike or isinstance(labels, Pairs) or per_anchor is not None:
        symmetric = False
    mirrored = problem[1].embeddings if symmetric else None
    out = _blocks.sum_terms(_problem.block_terms, *problem, mirrored=mirrored)
    axis_name = options.get("axis_name")
    return out if axis_name is None else jax.lax.psum(out, axis_name)


def terms(
    row: RowLoss,
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    measure: Measure,
    prepare: Prepare | None = None,
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
        prepare: see `apply`.
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
    problem = _problem.build(
        row, embeddings, labels, measure, prepare, per_anchor, per_candidate, **options
    )
    return _blocks.stack(_problem.block_terms, *problem)


def mine(
    miner: Callable[[Array, Pairs], Any],
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    measure: Measure,
    prepare: Prepare | None = None,
    **options: Unpack[Options],
) -> Any:
    """A miner of `metricjax.mining` applied to a batch, block by block.

    Args:
        miner: `(rows [b, n], Pairs) -> Triplets [b, k]`, or any pytree of `[b, ...]`.
        embeddings: see `apply`. No gradient flows: mining chooses.
        labels: see `apply`.
        measure: see `apply`; what the miner expects, a distance or a similarity.
        prepare: see `apply`.
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
    shared, anchors, block = _problem.build(
        miner, embeddings, labels, measure, prepare, **options
    )
    # Mining chooses, and a choice has no derivative.
    chosen = _blocks.stack(_problem.block_selection, shared, anchors, block)
    return jax.lax.stop_gradient(chosen)


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
        return numerics.mask_rows(refs, options.get("ref_where"))
    own = numerics.mask_rows(embeddings, options.get("where"))
    axis_name = options.get("axis_name")
    return own if axis_name is None else jax.lax.all_gather(own, axis_name, tiled=True)
