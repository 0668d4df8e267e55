"""Triplet losses: an anchor should be closer to a positive than to a negative."""

import functools
from collections.abc import Callable
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import distances, mining, numerics, reductions, rows
from metricjax.losses._hardest import HARD
from metricjax.losses._positives import candidates
from metricjax.losses._swap import swapped_row
from metricjax.pairs import Pairs, Triplets
from metricjax.reductions import Reduction, Terms

Choose = Callable[[Array, Array, Array], Array]


def triplet_all(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    margin: ArrayLike = 0.2,
    soft: bool = False,
    swap: bool = False,
    distance: distances.Distance = distances.euclidean,
    reduction: Reduction | None = reductions.mean_active,
    **options: Unpack[rows.Options],
) -> Any:
    """Triplet loss over all triplets ("batch all"): `[d_ap - d_an + m]_+`.

    Exact, without ever listing the triplets: for one positive at a time, each negative
    is compared with it. The gradient of the sum is made of two counts, `k_ap = #{n:
    d_an < d_ap + m}` and `c_an = #{p: d_ap + m > d_an}`, as `+k_ap` and `-c_an`. Time
    is `batch^2 * (dim + positives)`, memory a block of rows.

    Args:
        embeddings: `[batch, dim]`; not normalised inside.
        labels: int `[batch]`, or `Pairs` `[batch, n]`.
        margin: `m`, in units of the distance; a number or `[batch]`, one per anchor.
        soft: whether to use `log(1 + exp(d_ap - d_an + m))` for the hinge. The paper's
            soft margin has m = 0. Static.
        swap: whether `min(d_an, d_pn)` takes the place of `d_an`, so that the harder of
            anchor and positive counts; it takes `batch^2 * dim * positives`. Static.
        distance: `(x, y) -> [n, m]`; Euclidean, not squared, as in the paper.
        reduction: of `Terms`, whose terms are triplets; active are those with `d_an <
            d_ap + m`. The paper's mean is over the active ones.
        **options: see `rows.Options`.

    Returns:
        A scalar, or what `reduction` returns; 0 if there is no (active) triplet.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.array([[0.0], [1.0], [1.1], [9.0]]), jnp.array([0, 0, 1, 1])
        >>> round(float(triplet_all(x, y)), 4)
        3.26

    References:
        Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification",
        2017, arXiv:1703.07737, eq. 6. Swap: Balntas et al., "Learning local feature
        descriptors with triplets and shallow convolutional neural networks", BMVC 2016.
    """
    row, others = Partial(_row, choose=_every_negative, soft=soft), None
    if swap:
        row = Partial(swapped_row, distance=distance, soft=soft)
        own = numerics.mask_rows(embeddings, options.get("where"))
        others = candidates(own, options)
    return _apply(row, embeddings, labels, margin, distance, reduction, options, others)


def triplet_semihard(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    margin: ArrayLike = 0.2,
    soft: bool = False,
    fallback: bool = False,
    distance: distances.Distance = distances.squared_euclidean,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Any:
    """Triplet loss with, for each positive, the nearest negative farther than it.

    `[d_ap - d_an + m]_+` with `d_an = min{d_an : d_an > d_ap}`. The choice carries no
    gradient. Time is `batch^2 * (dim + positives)`, memory a block of rows.

    Args:
        embeddings: `[batch, dim]`; not normalised inside. The paper's are unit vectors:
            pass them through `numerics.l2_normalize`.
        labels: int `[batch]`, or `Pairs` `[batch, n]`.
        margin: `m`, in units of the distance; a number or `[batch]`, one per anchor.
            TensorFlow's default is 1.
        soft: whether to use `log(1 + exp(d_ap - d_an + m))` for the hinge. Static.
        fallback: where no negative is farther than the positive, whether to take the
            farthest there is, as TensorFlow does, or to leave the pair out. Static.
        distance: `(x, y) -> [n, m]`; squared Euclidean as in the paper.
        reduction: of `Terms`, whose terms are positive pairs with a negative; active
            are those with `d_an < d_ap + m`.
        **options: see `rows.Options`.

    Returns:
        A scalar, or what `reduction` returns; 0 if there is no triplet.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.array([[0.0], [1.0], [1.1], [9.0]]), jnp.array([0, 0, 1, 1])
        >>> round(float(triplet_semihard(x, y)), 4)
        0.0

    References:
        Schroff et al., "FaceNet", CVPR 2015, arXiv:1503.03832, eq. 3-4. The fallback
        and the mean over pairs: TensorFlow's `triplet_semihard_loss`.
    """
    choose = Partial(_semihard_negative, fallback=fallback)
    row = Partial(_row, choose=choose, soft=soft)
    return _apply(row, embeddings, labels, margin, distance, reduction, options)


def triplet_hard(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    margin: ArrayLike = 0.2,
    soft: bool = False,
    swap: bool = False,
    distance: distances.Distance = distances.euclidean,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Any:
    """Triplet loss with the farthest positive and nearest negative ("batch hard").

    `[max_p d_ap - min_n d_an + m]_+`. The choice carries no gradient.

    Args:
        embeddings: `[batch, dim]`; not normalised inside.
        labels: int `[batch]`, or `Pairs` `[batch, n]`.
        margin: `m`, in units of the distance; a number or `[batch]`, one per anchor.
        soft: whether to use `log(1 + exp(d_ap - d_an + m))` for the hinge. The paper's
            soft margin has m = 0. Static.
        swap: see `triplet`. Static.
        distance: `(x, y) -> [n, m]`; Euclidean, not squared, as in the paper.
        reduction: of `Terms`, whose terms are anchors with a positive and a negative;
            active are those with `d_an < d_ap + m`.
        **options: see `rows.Options`.

    Returns:
        A scalar, or what `reduction` returns; 0 if there is no triplet.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.array([[0.0], [1.0], [1.1], [9.0]]), jnp.array([0, 0, 1, 1])
        >>> round(float(triplet_hard(x, y)), 4)
        2.325

    References:
        Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification",
        2017, arXiv:1703.07737, eq. 5.
    """
    return triplet(
        embeddings,
        labels,
        miner=mining.hard,
        margin=margin,
        soft=soft,
        swap=swap,
        distance=distance,
        reduction=reduction,
        **options,
    )


def triplet(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    miner: Callable[[Array, Pairs], Triplets] | rows.Fold = mining.hard,
    margin: ArrayLike = 0.2,
    soft: bool = False,
    swap: bool = False,
    distance: distances.Distance = distances.euclidean,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Any:
    """Triplet loss over the triplets that a miner chooses.

    The rows are computed once, to choose; then only the chosen triplets are
    differentiated, so that the backward pass is linear in the batch. Memory is a block
    of rows and `batch * k * dim`.

    Args:
        embeddings: `[batch, dim]`; not normalised inside.
        labels: int `[batch]`, or `Pairs` `[batch, n]`.
        miner: `(distances [b, n], Pairs) -> Triplets [b, k]`, of `metricjax.mining` or
            your own; configure it with `jax.tree_util.Partial`. With `ring` only
            `mining.hard`, or a `rows.Fold` that makes `Triplets`.
        margin: `m`, in units of the distance; a number or `[batch]`, one per anchor.
        soft: whether to use `log(1 + exp(d_ap - d_an + m))` for the hinge. Static.
        swap: whether `min(d_an, d_pn)` takes the place of `d_an` in the triplets that
            are chosen (by `d_an`), so that the harder of anchor and positive counts.
            Static.
        distance: `(x, y) -> [n, m]`, for mining and for the loss.
        reduction: of `Terms`, whose terms are the chosen triplets; active are those
            with `d_an < d_ap + m`.
        **options: see `rows.Options`.

    Returns:
        A scalar, or what `reduction` returns; 0 if there is no triplet.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.array([[0.0], [1.0], [1.1], [9.0]]), jnp.array([0, 0, 1, 1])
        >>> round(float(triplet(x, y, miner=mining.easy)), 4)
        1.75
    """
    if miner is mining.hard and options.get("ring"):
        miner = HARD
    chosen = rows.mine(miner, embeddings, labels, measure=distance, **options)
    anchors = numerics.mask_rows(embeddings, options.get("where"))
    ends = jnp.stack(chosen[:2], axis=1)
    positives, negatives = jnp.moveaxis(rows.take(embeddings, ends, **options), 1, 0)
    d_ap = selected(distance, anchors, positives)
    d_an = selected(distance, anchors, negatives)
    if swap:
        d_an = jnp.minimum(d_an, _between(distance, positives, negatives))
    gap = d_ap - d_an + _per_anchor(margin, anchors)[:, None]
    weights = options.get("weights")
    weight = jnp.where(chosen.valid, 1.0, 0.0).astype(gap.dtype)
    if weights is not None:
        weight *= jax.lax.stop_gradient(numerics.promote(weights))[:, None]
    terms = Terms(
        jnp.sum(weight * _penalty(gap, soft), axis=1),
        jnp.sum(weight, axis=1),
        jnp.sum(jnp.where(gap > 0, weight, 0.0), axis=1),
    )
    return rows.reduce(terms, reduction, axis_name=options.get("axis_name"))


def _between(distance: distances.Distance, x: Array, y: Array) -> Array:
    """Distances `[batch, k]` of each vector of the one to that of the other."""
    return jax.vmap(jax.vmap(lambda x, y: distance(x[None], y[None])[0, 0]))(x, y)


def selected(distance: distances.Distance, anchors: Array, others: Array) -> Array:
    """Distances `[batch, k]` of each anchor to its own `others [batch, k, dim]`."""
    return jax.vmap(lambda x, y: distance(x[None], y)[0])(anchors, others)


def _apply(
    row: Partial,
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    margin: ArrayLike,
    distance: distances.Distance,
    reduction: Reduction | None,
    options: rows.Options,
    others: Array | None = None,
) -> Any:
    return rows.apply(
        row,
        embeddings,
        labels,
        measure=distance,
        reduction=reduction,
        per_anchor=_per_anchor(margin, numerics.promote(embeddings)),
        per_candidate=others,
        **options,
    )


def _per_anchor(margin: ArrayLike, embeddings: Array) -> Array:
    margin = jnp.asarray(margin, embeddings.dtype)
    return jnp.broadcast_to(margin, embeddings.shape[:1])


def _penalty(gap: Array, soft: bool) -> Array:
    return jax.nn.softplus(gap) if soft else jnp.maximum(gap, 0.0)


# --- all positives of a row, one at a time ------------------------------------------


def _every_negative(distances: Array, d_ap: Array, negative: Array) -> Array:
    del distances, d_ap
    return negative


def _semihard_negative(
    distances: Array, d_ap: Array, negative: Array, *, fallback: bool
) -> Array:
    column, some = mining.farther_negative(distances, d_ap, negative, fallback=fallback)
    return _column(distances, column) & some[:, None]


def _column(distances: Array, index: Array) -> Array:
    """Bool mask of one column in each row."""
    return jnp.arange(distances.shape[1], dtype=index.dtype)[None] == index[:, None]


def _row(
    distances: Array,
    positive: Array,
    negative: Array,
    margin: Array,
    *,
    choose: Choose,
    soft: bool,
) -> Terms:
    """Terms of a block of rows: all positives, the negatives chosen for each."""
    return _over_positives(choose, soft, distances, margin, positive, negative)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _over_positives(
    choose: Choose,
    soft: bool,
    distances: Array,
    margin: Array,
    positive: Array,
    negative: Array,
) -> Terms:
    return _scan_positives(choose, soft, distances, margin, positive, negative)[0]


@_over_positives.defjvp
def _over_positives_jvp(
    choose: Choose, soft: bool, primals: Any, tangents: Any
) -> tuple[Terms, Terms]:
    distances, margin, positive, negative = primals
    distances_dot, margin_dot = tangents[:2]
    terms, slopes, margin_slope = _scan_positives(
        choose, soft, distances, margin, positive, negative
    )
    dot = jnp.sum(slopes * distances_dot, axis=1) + margin_slope * margin_dot
    zeros = jax.tree.map(jnp.zeros_like, terms)
    return terms, zeros._replace(total=dot)


def _scan_positives(
    choose: Choose,
    soft: bool,
    distances: Array,
    margin: Array,
    positive: Array,
    negative: Array,
) -> tuple[Terms, Array, Array]:
    """Terms `[b]`; slopes with respect to the distances `[b, n]` and the margin `[b]`.

    A loop to the largest number of positives in the block, known only at run time: it
    can be differentiated forwards, not backwards, so the slopes are made here.
    """
    # Made of the rows, so that in jax.shard_map the carry varies as they do.
    zero = jnp.zeros_like(distances[:, 0])
    # Counted as floats, which XLA sums several times faster than integers on a CPU.
    steps = jnp.max(jnp.sum(positive, axis=1, dtype=jnp.float32))

    def step(_: Array, state: Any) -> Any:
        after, terms, slopes, margin_slope = state
        column, some = mining.nth_positive(positive, after)
        d_ap = jnp.take_along_axis(distances, column[:, None], axis=1)[:, 0]
        chosen = choose(distances, d_ap, negative) & some[:, None]
        gap = (d_ap + margin)[:, None] - distances
        slope = jax.nn.sigmoid(gap) if soft else (gap > 0).astype(gap.dtype)
        slope = jnp.where(chosen, slope, 0.0)
        # Behind a barrier, or XLA writes a whole row of each sum on a CPU.
        pull = jax.lax.optimization_barrier(jnp.sum(slope, axis=1))
        active = pull
        if soft:
            active = jnp.sum(chosen & (gap > 0), axis=1, dtype=gap.dtype)
        terms = Terms(
            terms.total + jnp.sum(jnp.where(chosen, _penalty(gap, soft), 0.0), axis=1),
            terms.count + jnp.sum(chosen, axis=1, dtype=gap.dtype),
            terms.active + active,
        )
        slopes += jnp.where(_column(distances, column), pull[:, None], 0.0) - slope
        after = jnp.where(some, column, after)
        return after, terms, slopes, margin_slope + pull

    start = jnp.full_like(zero, -1, dtype=jnp.int32)
    state = (start, Terms(zero, zero, zero), jnp.zeros_like(distances), zero)
    last = steps.astype(jnp.int32)
    _, terms, slopes, margin_slope = jax.lax.fori_loop(0, last, step, state)
    return terms, slopes, margin_slope
