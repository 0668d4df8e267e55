"""The engine: a loss is a function of one anchor's row, applied block by block.

From one anchor a loss sees a row of distances (or similarities) to the candidates,
which of them are positive, and which negative. A row loss maps a block of such rows to
`Terms`, each `[b]` or `[b, parts]`:

    row(rows [b, n], positive [b, n], negative [b, n], ...) -> Terms

`apply` runs it over a batch, a block of anchors at a time, so that no `[batch, batch]`
array exists at any batch size. Everything that concerns blocks, memory, padding and
devices is here and nowhere else. A row loss must give zero for a row without positives
and negatives, and a finite gradient for any finite row.

On several devices the candidates are gathered, or they are passed round a ring, so that
no device ever holds them all. The second needs a loss that can be made of parts of a
row, a `Fold`. Those are, of `metricjax.losses`:

    sums over pairs     contrastive, histogram, intra_pair_variance, siamese, siglip,
                        snr_contrastive, threshold_consistent_margin; an `Apart` is one
    log-sum-exps        circle, clip, dcl, generalized_lifted_structure, gist,
                        info_nce, multiple_negatives, nca, ntxent, supcon
    in two rounds       lifted_structure, multi_similarity, n_pair, tuplet_margin,
                        triplet and triplet_hard with `mining.hard`
    other statistics    fastap, margin_based without a miner, ranked_list
    of one of these     multi_view

The rest need all candidates of an anchor at once: all or semi-hard triplets, ranks, and
whatever is mined.

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

from metricjax import _blocks, _problem, _ring, _windows, numerics
from metricjax._problem import Apart, Axis, Fold, Measure, PairMiner, Prepare
from metricjax.pairs import Pairs
from metricjax.reductions import Reduction, Terms

__all__ = [
    "Apart",
    "Fold",
    "Options",
    "apply",
    "candidates",
    "mine",
    "reduce",
    "sums",
    "take",
    "terms",
]

RowLoss = Callable[..., Terms] | Fold | Apart


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
        ring: with `axis_name`, whether the candidates are passed from device to device
            in the place of being gathered, so that no device holds the whole batch: for
            losses that are a `Fold`, and without `pair_miner`. `ref_embeddings` are
            then, like the batch, the part that this device has. Differentiable
            backwards only. Static.
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
    ring: bool


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
        row: `(rows, positive, negative, *extra) -> Terms`, for a block of anchors, or a
            `Fold`, or an `Apart`.
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
        terms = jax.lax.psum(_blocks.sum_rows(terms), axis_name)
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
    axis_name = _ring_axis(options)
    if axis_name is not None:
        summed = _blocks.sum_rows(_ring_terms(problem, axis_name))
        return jax.lax.psum(summed, axis_name)
    names = ("ref_embeddings", "pair_miner", "axis_name")
    alone = all(options.get(name) is None for name in names)
    # Labels, and no others than the batch: what two of its rows are to each other.
    alone = alone and not isinstance(labels, Pairs)
    # Choosy anchors also make the two ends of a pair unlike.
    if not alone or options.get("weights") is not None or per_anchor is not None:
        symmetric = False
    shared, anchors, block = problem
    function = _problem.block_terms
    if alone and isinstance(row, Apart):
        function, shared = _windows.shortcut(shared, block)
    ends = (shared.candidates.embeddings, anchors.embeddings)
    mirrored = ends if symmetric else None
    out = _blocks.sum_terms(function, shared, anchors, block, mirrored=mirrored)
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
    axis_name = _ring_axis(options)
    if axis_name is not None:
        return _ring_terms(problem, axis_name)
    return _blocks.stack(_problem.block_terms, *problem)


def _ring_axis(options: Options) -> Axis | None:
    """The mesh axis round which the candidates go, if they do."""
    return options.get("axis_name") if options.get("ring") else None


def _ring_terms(problem: Any, axis_name: Axis) -> Terms:
    found = _ring.found(*problem, axis_name=axis_name)
    return _problem.weighted(found, problem[1])


def mine(
    miner: Callable[[Array, Pairs], Any] | Fold,
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    measure: Measure,
    prepare: Prepare | None = None,
    **options: Unpack[Options],
) -> Any:
    """A miner of `metricjax.mining` applied to a batch, block by block.

    Args:
        miner: `(rows [b, n], Pairs) -> Triplets [b, k]`, or any pytree of `[b, ...]`;
            or a `Fold` that finishes with such, whose step also gets the place of each
            candidate among all of them, int32 `[n]`.
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
    places = _places(embeddings, options) if isinstance(miner, Fold) else None
    problem = _problem.build(
        *(miner, embeddings, labels, measure, prepare, None, places),
        one_way=True,
        **options,
    )
    axis_name = _ring_axis(options)
    if axis_name is None:
        chosen = _blocks.stack(_problem.block_selection, *problem)
    else:
        chosen = _ring.found(*problem, axis_name=axis_name)
    # Mining chooses, and a choice has no derivative.
    return jax.lax.stop_gradient(chosen)


def _places(embeddings: ArrayLike, options: Options) -> Array:
    """Place of each candidate of this device among all that its anchors meet."""
    refs = options.get("ref_embeddings")
    if refs is None:
        rows, axis_name = embeddings, options.get("axis_name")
    else:
        rows, axis_name = refs, _ring_axis(options)
    return _problem.places(jnp.shape(rows)[0], axis_name)


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
    axis_name, refs = options.get("axis_name"), options.get("ref_embeddings")
    own = _own_candidates(embeddings, options)
    if refs is not None or axis_name is None:
        return own
    return jax.lax.all_gather(own, axis_name, tiled=True)


def _own_candidates(embeddings: ArrayLike, options: Options) -> Array:
    """The references, or the batch, as far as this device has them."""
    refs = options.get("ref_embeddings")
    if refs is not None:
        return numerics.mask_rows(refs, options.get("ref_where"))
    return numerics.mask_rows(embeddings, options.get("where"))


def take(embeddings: ArrayLike, indices: Array, **options: Unpack[Options]) -> Array:
    """The vectors of the candidates that `mine` chose; padding is zero.

    Args:
        embeddings: `[batch, dim]`.
        indices: int `[batch, ...]`, of candidates, as `mine` counts them.
        **options: those given to `mine`. With `ring` the candidates are not gathered,
            only those that were chosen.

    Returns:
        `[batch, ..., dim]`.

    Example:
        >>> take(jnp.array([[1.0], [2.0], [3.0]]), jnp.array([[2], [0], [0]])).tolist()
        [[[3.0]], [[1.0]], [[1.0]]]
    """
    axis_name = _ring_axis(options)
    if axis_name is not None:
        own = _own_candidates(embeddings, options)
        return _ring.take(own, indices, axis_name=axis_name)
    return candidates(embeddings, **options)[indices]
