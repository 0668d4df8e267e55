"""Pair losses that weigh the pairs of an anchor against each other."""

from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import _running, distances, numerics, reductions, rows
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
    scales = {"positive_scale": positive_scale, "negative_scale": negative_scale}
    step = Partial(_multi_similarity_step, base=base, epsilon=epsilon, **scales)
    # They decide which pairs count, which has no derivative.
    extremes = rows.Fold(_extremes, jax.lax.stop_gradient, _outer)
    row = rows.Fold(
        step,
        Partial(_multi_similarity_terms, **scales),
        given=None if epsilon is None else extremes,
    )
    return on_cosines(row, embeddings, labels, reduction, options)


def _extremes(cosine: Array, positive: Array, negative: Array) -> tuple[Array, Array]:
    """The least cosine of the positives and the largest of the negatives."""
    return (
        jnp.min(jnp.where(positive, cosine, jnp.inf), axis=1),
        jnp.max(jnp.where(negative, cosine, -jnp.inf), axis=1),
    )


def _outer(one: tuple[Array, Array], other: tuple[Array, Array]) -> tuple[Array, Array]:
    return jnp.minimum(one[0], other[0]), jnp.maximum(one[1], other[1])


class _PullAndPush(NamedTuple):
    """Exponentials of the positives and of the negatives, and whether there are any."""

    pull: _running.Exponentials
    push: _running.Exponentials
    some_positive: Array
    some_negative: Array


def _multi_similarity_step(
    cosine: Array,
    positive: Array,
    negative: Array,
    *extremes: tuple[Array, Array],
    positive_scale: ArrayLike,
    negative_scale: ArrayLike,
    base: ArrayLike,
    epsilon: ArrayLike | None,
) -> _PullAndPush:
    some = jnp.any(positive, axis=1), jnp.any(negative, axis=1)
    if epsilon is not None:
        least, most = (x[:, None] for x in extremes[0])
        positive = positive & (cosine < most + epsilon)
        negative = negative & (cosine > least - epsilon)
    above = cosine - base
    return _PullAndPush(
        _running.exponentials(-(positive_scale * above), positive),
        _running.exponentials(negative_scale * above, negative),
        *some,
    )


def _multi_similarity_terms(
    state: _PullAndPush, *_: Any, positive_scale: ArrayLike, negative_scale: ArrayLike
) -> Terms:
    total = _running.softplus(state.pull) / positive_scale
    total += _running.softplus(state.push) / negative_scale
    some = state.some_positive & state.some_negative
    kept = some & ((state.pull.total != 0) | (state.push.total != 0))
    return Terms(
        jnp.where(some, total, 0.0),
        some.astype(total.dtype),
        kept.astype(total.dtype),
    )


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
    row = rows.Fold(Partial(_circle_step, margin=margin, scale=scale), _circle_terms)
    return on_cosines(row, embeddings, labels, reduction, options)


Two = tuple[_running.Exponentials, _running.Exponentials]


def _circle_step(
    cosine: Array,
    positive: Array,
    negative: Array,
    *,
    margin: ArrayLike,
    scale: ArrayLike,
) -> Two:
    constant, m = jax.lax.stop_gradient((cosine, jnp.asarray(margin)))
    push = jnp.maximum(constant + m, 0.0) * (cosine - margin)
    pull = jnp.maximum(1.0 + m - constant, 0.0) * (cosine - 1.0 + margin)
    return (
        _running.exponentials(scale * push, negative),
        _running.exponentials(-(scale * pull), positive),
    )


def _circle_terms(state: Two) -> Terms:
    (push, some_negative), (pull, some_positive) = map(_running.log, state)
    some = some_negative & some_positive
    total = jnp.where(some, jax.nn.softplus(push + pull), 0.0)
    anchors = some.astype(total.dtype)
    return Terms(total, anchors, anchors)


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
        rows.Fold(
            Partial(_nca_step, scale=scale), Partial(_nca_terms, expected=expected)
        ),
        embeddings,
        labels,
        measure=distance,
        reduction=reduction,
        **options,
    )


def _nca_step(
    distances: Array, positive: Array, negative: Array, *, scale: ArrayLike
) -> Two:
    logits = -(scale * distances)
    return (
        _running.exponentials(logits, positive),
        _running.exponentials(logits, negative),
    )


def _nca_terms(state: Two, *, expected: bool) -> Terms:
    (near, some), (push, far) = map(_running.log, state)
    # -log(e^near / (e^near + e^push)); exactly 0, not a rounding, without negatives.
    gap = jnp.where(some & far, push - near, 0.0)
    cost = jax.nn.sigmoid(gap) if expected else jax.nn.softplus(gap)
    active = (some & far).astype(cost.dtype)
    return Terms(active * cost, some.astype(cost.dtype), active)


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
    step = Partial(
        _ranked_list_step,
        margin=margin,
        boundary=boundary,
        temperatures=(positive_temperature, negative_temperature),
    )
    row = rows.Fold(step, Partial(_ranked_list_terms, balance=balance))
    return rows.apply(
        row,
        embeddings,
        labels,
        prepare=numerics.l2_normalize,
        measure=distances.euclidean,
        reduction=reduction,
        **options,
    )


def _ranked_list_step(
    distances: Array,
    positive: Array,
    negative: Array,
    *,
    margin: ArrayLike,
    boundary: ArrayLike,
    temperatures: tuple[ArrayLike, ArrayLike],
) -> _PullAndPush:
    return _PullAndPush(
        _weighed(jnp.asarray(distances - boundary + margin), positive, temperatures[0]),
        _weighed(jnp.asarray(boundary - distances), negative, temperatures[1]),
        jnp.any(positive, axis=1),
        jnp.any(negative, axis=1),
    )


def _weighed(
    excess: Array, mask: Array, temperature: ArrayLike
) -> _running.Exponentials:
    """What is positive, weighed by `exp(temperature * excess)`, which is a constant."""
    logits = jax.lax.stop_gradient(temperature * excess)
    return _running.exponentials(logits, mask & (excess > 0), (excess,))


def _ranked_list_terms(state: _PullAndPush, *, balance: ArrayLike) -> Terms:
    pull, push = (numerics.divide(s.moments[0], s.total) for s in state[:2])
    total = (1.0 - balance) * pull + balance * push
    some = state.some_positive & state.some_negative
    broken = (state.pull.total != 0) | (state.push.total != 0)
    return Terms(
        jnp.where(some, total, 0.0),
        some.astype(total.dtype),
        (some & broken).astype(total.dtype),
    )
