"""Tuple losses: one anchor and one positive against all negatives at once."""

import math
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import _running, numerics, reductions, rows, similarities
from metricjax.losses._positives import candidates, sum_over_positives
from metricjax.pairs import Pairs
from metricjax.reductions import Reduction, Terms


def n_pair(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    regularization: ArrayLike = 0.005,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Any:
    """N-pair loss: softmax of one positive against all negatives, on dot products.

    `log(1 + sum_n exp(x_a.x_n - x_a.x_p)) + r (||x_a||^2 + ||x_p||^2)` for each
    positive pair. The paper's batch has one anchor and one positive of each class, and
    the negatives are the positives of the others: pass the anchors as `embeddings` and
    the positives as `ref_embeddings`. In a single batch each row is an anchor, and all
    rows of other classes are its negatives.

    Args:
        embeddings: `[batch, dim]`; not normalised inside, which is why their squared
            length is held down.
        labels: int `[batch]`, or `Pairs` `[batch, n]`.
        regularization: `r`. The paper gives no number; TensorFlow's is 0.0005.
        reduction: of `Terms`, whose terms are positive pairs of an anchor that has a
            negative; active are those with a negative more similar than the positive.
        **options: see `rows.Options`.

    Returns:
        A scalar, or what `reduction` returns; 0 if there is no term.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> anchors, positives = jnp.eye(2), jnp.array([[1.0, 0.5], [0.0, 1.0]])
        >>> y = jnp.array([0, 1])
        >>> loss = n_pair(anchors, y, regularization=0.0, ref_embeddings=positives,
        ...               ref_labels=y)
        >>> round(float(loss), 4)
        0.3937

    References:
        Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective",
        NeurIPS 2016, section 3.2 (`N-pair-mc`).
    """
    own = numerics.mask_rows(embeddings, options.get("where"))
    squares = (jnp.sum(jnp.square(x), axis=-1) for x in (own, candidates(own, options)))
    row = Partial(_n_pair_row, regularization=regularization)
    return rows.apply(
        rows.Fold(row, given=rows.Fold(_negatives_step, _all_negatives)),
        embeddings,
        labels,
        measure=similarities.dot,
        reduction=reduction,
        per_anchor=next(squares),
        per_candidate=next(squares),
        **options,
    )


def _n_pair_row(
    dot: Array,
    positive: Array,
    negative: Array,
    own: Array,
    others: Array,
    negatives: "_Negatives",
    *,
    regularization: ArrayLike,
) -> Terms:
    del negative
    penalty = regularization * (own[:, None] + others[None, :])
    return _against_negatives(dot, positive, negatives, penalty)


class _Negatives(NamedTuple):
    """Logsumexp of an anchor's negatives, the largest, and if there is one; `[b]`."""

    total: Array
    hardest: Array
    some: Array


def _negatives_step(
    cosine: Array,
    positive: Array,
    negative: Array,
    *unused: Any,
    scale: ArrayLike = 1.0,
) -> _running.Exponentials:
    del positive, unused
    return _running.exponentials(scale * cosine, negative)


def _all_negatives(state: _running.Exponentials, *unused: Any) -> _Negatives:
    del unused
    total, some = _running.log(state)
    return _Negatives(total, state.peak, some)


def _against_negatives(
    targets: Array,
    positive: Array,
    negatives: _Negatives,
    penalty: ArrayLike = 0.0,
) -> Terms:
    """`log(1 + sum_n exp(logit_n - target_p)) + penalty` summed over the positives.

    One logsumexp serves all positives of a row.
    """
    total, hardest, some = (x[:, None] for x in negatives)
    gap = total - targets
    terms = positive & some
    return Terms(
        jnp.sum(jnp.where(terms, jax.nn.softplus(gap) + penalty, 0.0), axis=1),
        jnp.sum(terms, axis=1, dtype=gap.dtype),
        jnp.sum(terms & (hardest > targets), axis=1, dtype=gap.dtype),
    )


def tuplet_margin(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    margin: ArrayLike = 0.1,
    scale: ArrayLike = 64.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Any:
    """Tuplet margin loss: a slack angle for the positive, against all negatives.

    `log(1 + sum_n exp(s (cos(theta_an) - cos(theta_ap - m))))` for each positive pair.
    The slack keeps the loss from pulling positives that are already within `m`. There
    is no arccosine: duplicates and antipodes have finite gradients.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        labels: int `[batch]`, or `Pairs` `[batch, n]`.
        margin: `m` in radians; 0.1 is 5.73 degrees.
        scale: `s`.
        reduction: of `Terms`, whose terms are positive pairs of an anchor that has a
            negative; active are those with `cos(theta_an) > cos(theta_ap - m)` for a
            negative.
        **options: see `rows.Options`.

    Returns:
        A scalar, or what `reduction` returns; 0 if there is no term.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.array([[1.0, 0], [0.6, 0.8], [0, 1.0]]), jnp.array([0, 0, 1])
        >>> round(float(tuplet_margin(x, y, scale=10.0)), 4)
        0.7443

    References:
        Yu and Tao, "Deep Metric Learning with Tuplet Margin Loss", ICCV 2019,
        section 3.
    """
    step = Partial(_negatives_step, scale=scale)
    row = Partial(_tuplet_margin_row, margin=margin, scale=scale)
    return rows.apply(
        rows.Fold(row, given=rows.Fold(step, _all_negatives)),
        embeddings,
        labels,
        prepare=numerics.l2_normalize,
        measure=similarities.dot,
        reduction=reduction,
        **options,
    )


def _tuplet_margin_row(
    cosine: Array,
    positive: Array,
    negative: Array,
    negatives: _Negatives,
    *,
    margin: ArrayLike,
    scale: ArrayLike,
) -> Terms:
    del negative
    slack = cosine * jnp.cos(margin) + numerics.sine(cosine) * jnp.sin(margin)
    return _against_negatives(jnp.asarray(scale * slack), positive, negatives)


def angular(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    angle: ArrayLike = math.pi / 4,
    n_pair_weight: ArrayLike = 0.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Any:
    """Angular loss: bounds the angle at the negative of each triangle.

    `log(1 + sum_n exp(4 t (x_a + x_p).x_n - 2 (1 + t) x_a.x_p))`, `t = tan(alpha)^2`,
    for each positive pair. All three are normalised; in pytorch-metric-learning the
    negatives are not. Time is `batch^2 * dim * positives`, since the row of each
    positive is needed; memory a block of rows.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        labels: int `[batch]`, or `Pairs` `[batch, n]`.
        angle: `alpha` in radians; the paper finds 36 to 55 degrees good, according to
            the data.
        n_pair_weight: weight of the N-pair term `log(1 + sum_n exp(x_a.x_n - x_a.x_p))`
            on the same unit vectors. The paper's joint loss, N-pair plus twice the
            angular one, is twice this with 0.5.
        reduction: of `Terms`, whose terms are positive pairs of an anchor that has a
            negative; active are those with a negative that breaks the bound.
        **options: see `rows.Options`.

    Returns:
        A scalar, or what `reduction` returns; 0 if there is no term.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.array([[1.0, 0], [0.6, 0.8], [0, 1.0]]), jnp.array([0, 0, 1])
        >>> round(float(angular(x, y)), 4)
        1.1711

    References:
        Wang et al., "Deep Metric Learning with Angular Loss", ICCV 2017,
        arXiv:1708.01682, section 3.
    """
    own = numerics.mask_rows(embeddings, options.get("where"))
    return rows.apply(
        Partial(_angular_row, angle=angle, n_pair_weight=n_pair_weight),
        embeddings,
        labels,
        prepare=numerics.l2_normalize,
        measure=similarities.dot,
        reduction=reduction,
        per_candidate=numerics.l2_normalize(candidates(own, options)),
        **options,
    )


def _angular_row(
    cosine: Array,
    positive: Array,
    negative: Array,
    others: Array,
    *,
    angle: ArrayLike,
    n_pair_weight: ArrayLike,
) -> Terms:
    slope = jnp.square(jnp.tan(angle))

    def step(column: Array, some: Array) -> tuple[Array, Array]:
        s_ap = jnp.take_along_axis(cosine, column[:, None], axis=1)
        s_pn = similarities.dot(others[column], others)
        f = 4.0 * slope * (cosine + s_pn) - 2.0 * (1.0 + slope) * s_ap
        chosen = negative & some[:, None]
        broken = jnp.any(chosen & (f > 0), axis=1).astype(cosine.dtype)
        return numerics.softplus_sum(f, chosen), broken

    negatives = _all_negatives(_negatives_step(cosine, positive, negative))
    simple = _against_negatives(cosine, positive, negatives)
    zeros = jnp.zeros_like(simple.total)
    total, active = sum_over_positives(step, positive, (zeros, zeros))
    return Terms(total + n_pair_weight * simple.total, simple.count, active)
