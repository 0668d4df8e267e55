"""Margin-based loss: a learned boundary between near and far, and fair negatives."""

from collections.abc import Callable
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import _checks, _running, distances, numerics, reductions, rows
from metricjax.losses._triplets import selected
from metricjax.pairs import Pairs, Triplets
from metricjax.reductions import Reduction, Terms


def margin_based(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    margin: ArrayLike = 0.2,
    boundary: ArrayLike = 1.2,
    miner: Callable[[Array, Pairs], Triplets] | None = None,
    lower_cutoff: ArrayLike = 0.5,
    upper_cutoff: ArrayLike = 1.4,
    reduction: Reduction | None = reductions.mean_active,
    **options: Unpack[rows.Options],
) -> Any:
    """Margin-based loss with distance-weighted negatives, in expectation or drawn.

    `[d_ap - b + m]_+` for positives and `[b - d_an + m]_+` for negatives. The paper
    draws one negative for each positive pair, with probability `w_an` proportional to
    `1 / q(d_an)`, where `q` is how often that distance occurs between random unit
    vectors: else nearly all negatives would be at distance sqrt(2). By default this is
    the expectation of that loss, for an anchor with P positives `sum_p [d_ap - b + m]_+
    + P sum_n w_an [b - d_an + m]_+`: no key, no variance, and the weights carry no
    gradient. With a miner it is the loss over the triplets that it chooses.

    Pytorch-metric-learning takes all triplets if not told otherwise, so that a positive
    pair counts once for each negative of its anchor, and a negative pair once for each
    positive: with 6 classes of 4 they weigh 20 to 3. That is `miner=mining.all`.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        labels: int `[batch]`, or `Pairs` `[batch, n]`.
        margin: `m`, in units of the distance of unit vectors, which is at most 2.
        boundary: `b` (`beta`), a number or `[classes]`, one for the class of each
            anchor; rows with labels beyond are then in no pair. Learn it as a
            parameter, with a learning rate of its own. The paper's regulariser is yours
            to add: `nu * jnp.sum(boundary)`.
        miner: `(distances [b, n], Pairs) -> Triplets [b, k]`. The paper's sampling, for
            K examples per class: `Partial(mining.distance_weighted, key, dim=dim,
            positives=K - 1)`.
        lower_cutoff: of the weights: negatives nearer than this weigh as if they were
            here, which bounds the variance of the paper's sampling.
        upper_cutoff: of the weights: negatives from here on weigh nothing.
        reduction: of `Terms`, whose terms are pairs, as many negative as positive;
            active are those that cost something, by weight. The authors' mean is over
            the active pairs of both kinds together.
        **options: see `rows.Options`.

    Returns:
        A scalar, or what `reduction` returns; 0 if there is no (active) pair.

    Raises:
        ValueError: if shapes disagree, or `boundary` is `[classes]` with `Pairs`.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.array([[1.0, 0], [0.6, 0.8], [0, 1.0]]), jnp.array([0, 0, 1])
        >>> round(float(margin_based(x, y)), 4)
        0.7675

    References:
        Wu et al., "Sampling Matters in Deep Embedding Learning", ICCV 2017,
        arXiv:1706.07567, section 4. The cutoffs and the mean: the authors' code.
    """
    labels, b = _boundary_of_anchors(embeddings, labels, boundary)
    if miner is not None:
        terms = _chosen_terms(miner, embeddings, labels, margin, b, options)
        return rows.reduce(terms, reduction, axis_name=options.get("axis_name"))
    step = Partial(
        _margin_step,
        margin=margin,
        cutoffs=(lower_cutoff, upper_cutoff),
        dim=jnp.shape(embeddings)[-1],
    )
    return rows.apply(
        rows.Fold(step, _margin_terms),
        embeddings,
        labels,
        prepare=numerics.l2_normalize,
        measure=distances.euclidean,
        reduction=reduction,
        per_anchor=b,
        **options,
    )


def _boundary_of_anchors(
    embeddings: ArrayLike, labels: ArrayLike | Pairs, boundary: ArrayLike
) -> tuple[Any, Array]:
    """Labels, -1 where they have no boundary; and the boundary of each anchor."""
    _checks.check_embeddings("embeddings", embeddings)
    boundary = jnp.asarray(boundary, numerics.promote(embeddings).dtype)
    size = jnp.shape(embeddings)[0]
    if boundary.ndim == 0:
        return labels, jnp.broadcast_to(boundary, (size,))
    if boundary.ndim != 1 or isinstance(labels, Pairs):
        raise ValueError(
            f"Expected `boundary` to be a number or, with integer labels, of shape "
            f"[classes], got {_checks.describe(boundary)}; with `Pairs` pass a number."
        )
    _checks.check_labels("labels", labels, size)
    labels = jnp.asarray(labels)
    labels = jnp.where(labels < boundary.shape[0], labels, -1)
    return labels, boundary.at[labels].get(mode="clip")


def _chosen_terms(
    miner: Callable[[Array, Pairs], Triplets],
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    margin: ArrayLike,
    boundary: Array,
    options: rows.Options,
) -> Terms:
    unit, distance = numerics.l2_normalize, distances.euclidean
    chosen = rows.mine(
        miner, embeddings, labels, prepare=unit, measure=distance, **options
    )
    anchors = unit(numerics.mask_rows(embeddings, options.get("where")))
    others = unit(rows.candidates(embeddings, **options))
    pull = selected(distance, anchors, others[chosen.positive]) - boundary[:, None]
    push = boundary[:, None] - selected(distance, anchors, others[chosen.negative])
    excess = jnp.stack([pull, push], axis=2) + margin
    weight = jnp.where(chosen.valid[:, :, None], jnp.ones_like(excess), 0.0)
    weights = options.get("weights")
    if weights is not None:
        weight *= jax.lax.stop_gradient(numerics.promote(weights))[:, None, None]
    fields = (
        weight * jnp.maximum(excess, 0.0),
        weight,
        jnp.where(excess > 0, weight, 0.0),
    )
    return Terms(*(jnp.sum(x, axis=(1, 2)) for x in fields))


def _margin_step(
    distances: Array,
    positive: Array,
    negative: Array,
    boundary: Array,
    *,
    margin: ArrayLike,
    cutoffs: tuple[ArrayLike, ArrayLike],
    dim: int,
) -> tuple[Terms, _running.Exponentials]:
    """Terms of the positives; the negatives by weight, their costs and those active."""
    beyond = distances - boundary[:, None]
    pull, push = jnp.asarray(beyond + margin), jnp.asarray(margin - beyond)
    hinges = jnp.maximum(push, 0.0), (push > 0).astype(push.dtype)
    near = Terms(
        jnp.sum(jnp.where(positive, jnp.maximum(pull, 0.0), 0.0), axis=1),
        jnp.sum(positive, axis=1, dtype=pull.dtype),
        jnp.sum(positive & (pull > 0), axis=1, dtype=pull.dtype),
    )
    log_weight, usable = _log_weights(distances, negative, cutoffs, dim)
    return near, _running.exponentials(log_weight, usable, hinges)


def _margin_terms(state: tuple[Terms, _running.Exponentials], _: Array) -> Terms:
    near, far = state
    cost, active = (numerics.divide(moment, far.total) for moment in far.moments)
    draws = jnp.where(far.total != 0, near.count, 0.0)
    return Terms(
        near.total + draws * cost,
        near.count + draws,
        near.active + draws * active,
    )


def _log_weights(
    distances: Array,
    negative: Array,
    cutoffs: tuple[ArrayLike, ArrayLike],
    dim: int,
) -> tuple[Array, Array]:
    """Logarithm of each negative's weight, a constant, and which can be drawn."""
    d, (lower, upper) = jax.lax.stop_gradient(
        (distances, jax.tree.map(jnp.asarray, cutoffs))
    )
    usable = negative & (d < jnp.minimum(upper, 2.0))
    d = jnp.where(usable, jnp.maximum(d, lower), 1.0)
    log_q = (dim - 2) * jnp.log(d) + (dim - 3) / 2 * jnp.log1p(-jnp.square(d) / 4.0)
    return -log_q, usable
