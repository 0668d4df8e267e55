"""Pair losses that weigh the pairs of an anchor against each other."""

from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import distances, numerics, reductions, rows
from metricjax.losses._pairwise import on_cosines
from metricjax.pairs import Pairs
from metricjax.reductions import Reduction, Terms


def multi_similarity(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    positive_scale: ArrayLike = 2.0,
    negative_scale: ArrayLike = 50.0,
    base: ArrayLike = 0.5,
    epsilon: ArrayLike | None = 0.1,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Any:
    """Multi-similarity loss: mined pairs of an anchor, weighed by how hard they are.

    `log(1 + sum_p exp(-a (s_ap - l))) / a + log(1 + sum_n exp(b (s_an - l))) / b`, over
    the pairs that are hard for the anchor: negatives with `s_an > min_p s_ap - e`,
    positives with `s_ap < max_n s_an + e`.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        labels: int `[batch]`, or `Pairs` `[batch, n]`.
        positive_scale: `a`.
        negative_scale: `b`; 40 in some of the authors' settings.
        base: `l`, the similarity around which pairs start to count; that of the
            authors' code.
        epsilon: `e` of the mining; None for all pairs, as in pytorch-metric-learning,
            which also counts anchors without a positive or a negative.
        reduction: of `Terms`, whose terms are anchors with a positive and a negative;
            active are those with a hard pair. The paper's mean is over all.
        **options: see `rows.Options`.

    Returns:
        A scalar, or what `reduction` returns; 0 if there is no term.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.array([[1.0, 0], [0.6, 0.8], [0, 1.0]]), jnp.array([0, 0, 1])
        >>> round(float(multi_similarity(x, y)), 4)
        0.2995

    References:
        Wang et al., "Multi-Similarity Loss with General Pair Weighting for Deep Metric
        Learning", CVPR 2019, arXiv:1904.06627, section 4.
    """
    row = Partial(
        _multi_similarity_row,
        positive_scale=positive_scale,
        negative_scale=negative_scale,
        base=base,
        epsilon=epsilon,
    )
    return on_cosines(row, embeddings, labels, reduction, options)


def _multi_similarity_row(
    cosine: Array,
    positive: Array,
    negative: Array,
    *,
    positive_scale: ArrayLike,
    negative_scale: ArrayLike,
    base: ArrayLike,
    epsilon: ArrayLike | None,
) -> Terms:
    some = _both(positive, negative)
    if epsilon is not None:
        least = jnp.min(jnp.where(positive, cosine, jnp.inf), axis=1, keepdims=True)
        most = jnp.max(jnp.where(negative, cosine, -jnp.inf), axis=1, keepdims=True)
        positive = positive & (cosine < most + epsilon)
        negative = negative & (cosine > least - epsilon)
    above = jnp.asarray(cosine - base)
    pull = numerics.softplus_sum(-(positive_scale * above), positive) / positive_scale
    push = numerics.softplus_sum(negative_scale * above, negative) / negative_scale
    kept = some & jnp.any(positive | negative, axis=1)
    return Terms(
        jnp.where(some, pull + push, 0.0),
        some.astype(cosine.dtype),
        kept.astype(cosine.dtype),
    )


def _both(positive: Array, negative: Array) -> Array:
    """Bool `[b]`: the row has a positive and a negative."""
    return jnp.any(positive, axis=1) & jnp.any(negative, axis=1)


def circle(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    margin: ArrayLike = 0.4,
    scale: ArrayLike = 80.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Any:
    """Circle loss: each similarity is pushed as hard as it is far from its optimum.

    `log(1 + sum_n exp(s a_n (s_an - m)) sum_p exp(-s a_p (s_ap - 1 + m)))`, weighed by
    `a_n = [s_an + m]_+` and `a_p = [1 + m - s_ap]_+`, which carry no gradient.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        labels: int `[batch]`, or `Pairs` `[batch, n]`.
        margin: `m`; 0.4 for retrieval, 0.25 for faces.
        scale: `s` (`gamma`); 80 for retrieval, 256 for faces.
        reduction: of `Terms`, whose terms are anchors with a positive and a negative;
            all are active.
        **options: see `rows.Options`.

    Returns:
        A scalar, or what `reduction` returns; 0 if there is no term.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.array([[1.0, 0], [0.6, 0.8], [0, 1.0]]), jnp.array([0, 0, 1])
        >>> round(float(circle(x, y, scale=4.0)), 4)
        1.2402

    References:
        Sun et al., "Circle Loss: A Unified Perspective of Pair Similarity
        Optimization", CVPR 2020, arXiv:2002.10857, section 3.
    """
    row = Partial(_circle_row, margin=margin, scale=scale)
    return on_cosines(row, embeddings, labels, reduction, options)


def _circle_row(
    cosine: Array,
    positive: Array,
    negative: Array,
    *,
    margin: ArrayLike,
    scale: ArrayLike,
) -> Terms:
    some = _both(positive, negative)
    constant, m = jax.lax.stop_gradient((cosine, jnp.asarray(margin)))
    push = jnp.maximum(constant + m, 0.0) * (cosine - margin)
    pull = jnp.maximum(1.0 + m - constant, 0.0) * (cosine - 1.0 + margin)
    logits = (
        numerics.logsumexp(jnp.asarray(scale * push), negative),
        numerics.logsumexp(-jnp.asarray(scale * pull), positive),
    )
    total = jnp.where(some, logits[0], 0.0) + jnp.where(some, logits[1], 0.0)
    anchors = some.astype(cosine.dtype)
    return Terms(jnp.where(some, jax.nn.softplus(total), 0.0), anchors, anchors)


def nca(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    scale: ArrayLike = 1.0,
    expected: bool = False,
    distance: distances.Distance = distances.squared_euclidean,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Any:
    """Neighbourhood components analysis: the nearest neighbour should be of the class.

    `-log p_i`, where `p_i = sum_p exp(-s d_ip) / sum_{k != i} exp(-s d_ik)` is the
    chance that a softly chosen neighbour is a positive. In logarithms throughout: no
    hard row is lost where `p_i` underflows.

    Args:
        embeddings: `[batch, dim]`; not normalised inside.
        labels: int `[batch]`, or `Pairs` `[batch, n]`.
        scale: `s`, the inverse temperature; the paper's is 1.
        expected: whether to use `1 - p_i`, the expected error of the soft neighbour,
            which is the paper's first objective; its gradient vanishes where `p_i`
            does. Static.
        distance: `(x, y) -> [n, m]`; squared Euclidean.
        reduction: of `Terms`, whose terms are anchors with a positive; active are those
            that also have a negative.
        **options: see `rows.Options`.

    Returns:
        A scalar, or what `reduction` returns; 0 if no anchor has a positive.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.array([[0.0], [1.0], [1.5]]), jnp.array([0, 0, 1])
        >>> round(float(nca(x, y)), 4)
        0.6944

    References:
        Goldberger et al., "Neighbourhood Components Analysis", NeurIPS 2004,
        section 2: first `expected`, then the logarithmic form.
    """
    return rows.apply(
        Partial(_nca_row, scale=scale, expected=expected),
        embeddings,
        labels,
        measure=distance,
        reduction=reduction,
        **options,
    )


def _nca_row(
    distances: Array,
    positive: Array,
    negative: Array,
    *,
    scale: ArrayLike,
    expected: bool,
) -> Terms:
    logits = -jnp.asarray(scale * distances)
    some = jnp.any(positive, axis=1)
    near = jnp.where(some, numerics.logsumexp(logits, positive), 0.0)
    far = jnp.any(negative, axis=1)
    push = jnp.where(far, numerics.logsumexp(logits, negative), 0.0)
    # -log(e^near / (e^near + e^push)); exactly 0, not a rounding, without negatives.
    gap = jnp.where(some & far, push - near, 0.0)
    cost = jax.nn.sigmoid(gap) if expected else jax.nn.softplus(gap)
    active = (some & far).astype(logits.dtype)
    return Terms(active * cost, some.astype(logits.dtype), active)


def ranked_list(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    margin: ArrayLike = 0.4,
    boundary: ArrayLike = 1.2,
    positive_temperature: ArrayLike = 0.0,
    negative_temperature: ArrayLike = 10.0,
    balance: ArrayLike = 0.5,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Any:
    """Ranked list loss: positives inside a ball, negatives outside of a larger one.

    `(1 - l) sum_p w_p [d_ap - (b - m)]_+ / sum w + l sum_n w_n [b - d_an]_+ / sum w`
    for each anchor, over the pairs that break their bound, weighed by `exp(T [.]_+)`.
    The weights are constants, as the paper's gradient has them; pytorch-metric-learning
    differentiates through them.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        labels: int `[batch]`, or `Pairs` `[batch, n]`.
        margin: `m`, between the two balls, in units of the distance of unit vectors.
        boundary: `b` (`alpha`), the radius outside of which negatives should be.
        positive_temperature: `T` of the positives; 0 is a plain mean, as in the paper.
        negative_temperature: `T` of the negatives.
        balance: `l`, the share of the negatives.
        reduction: of `Terms`, whose terms are anchors with a positive and a negative;
            active are those with a pair that breaks its bound.
        **options: see `rows.Options`.

    Returns:
        A scalar, or what `reduction` returns; 0 if there is no term.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.array([[1.0, 0], [0.6, 0.8], [0, 1.0]]), jnp.array([0, 0, 1])
        >>> round(float(ranked_list(x, y)), 4)
        0.1891

    References:
        Wang et al., "Ranked List Loss for Deep Metric Learning", CVPR 2019,
        arXiv:1903.03238, section 3.
    """
    row = Partial(
        _ranked_list_row,
        margin=margin,
        boundary=boundary,
        temperatures=(positive_temperature, negative_temperature),
        balance=balance,
    )
    return rows.apply(
        row,
        embeddings,
        labels,
        prepare=numerics.l2_normalize,
        measure=distances.euclidean,
        reduction=reduction,
        **options,
    )


def _ranked_list_row(
    distances: Array,
    positive: Array,
    negative: Array,
    *,
    margin: ArrayLike,
    boundary: ArrayLike,
    temperatures: tuple[ArrayLike, ArrayLike],
    balance: ArrayLike,
) -> Terms:
    some = _both(positive, negative)
    inner = jnp.asarray(distances - boundary + margin)
    outer = jnp.asarray(boundary - distances)
    pull, pulls = _weighted_mean(inner, positive, temperatures[0])
    push, pushes = _weighted_mean(outer, negative, temperatures[1])
    total = (1.0 - balance) * pull + balance * push
    return Terms(
        jnp.where(some, total, 0.0),
        some.astype(distances.dtype),
        (some & (pulls | pushes)).astype(distances.dtype),
    )


def _weighted_mean(
    excess: Array, mask: Array, temperature: ArrayLike
) -> tuple[Array, Array]:
    """Mean of what is positive, weighed by `exp(temperature * excess)`; any there."""
    mask = mask & (excess > 0)
    some = jnp.any(mask, axis=1)
    logits = jax.lax.stop_gradient(jnp.asarray(temperature * excess))
    total = jnp.where(some, numerics.logsumexp(logits, mask), 0.0)[:, None]
    weight = jnp.where(mask, jnp.exp(jnp.where(mask, logits - total, 0.0)), 0.0)
    return jnp.sum(weight * excess, axis=1), some
