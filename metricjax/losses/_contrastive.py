"""Softmax over the candidates of an anchor: SupCon, NT-Xent and DCL."""

from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import _running, numerics, reductions, rows, similarities
from metricjax.pairs import Pairs
from metricjax.reductions import Reduction, Terms


def supcon(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    temperature: ArrayLike = 0.1,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Any:
    """Supervised contrastive loss, the mean over positives outside of the logarithm.

    `-1/|P(i)| sum_{p in P(i)} log(exp(s_ip / t) / sum_{a != i} exp(s_ia / t))`, where
    `s` is the cosine and the sum runs over all other candidates. The authors' code also
    multiplies by `t / 0.07`, which this does not.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        labels: int `[batch]`, or `Pairs` `[batch, n]`.
        temperature: `t`.
        reduction: of `Terms`, whose terms are anchors with a positive; all are active.
        **options: see `rows.Options`. Rows are padded with `where`; vectors of other
            views or of a queue go to `ref_embeddings`.

    Returns:
        A scalar, or what `reduction` returns; 0 if no anchor has a positive.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.array([[1.0, 0], [1.0, 0], [0, 1.0]]), jnp.array([0, 0, 1])
        >>> round(float(supcon(x, y, temperature=1.0)), 4)
        0.3133

    References:
        Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020,
        arXiv:2004.11362, eq. 2 (`L_out`).
    """
    step = Partial(_softmax_step, temperature=temperature, other_positives=True)
    row = rows.Fold(step, _supcon_terms)
    return _apply(row, embeddings, labels, reduction, options)


def ntxent(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    temperature: ArrayLike = 0.1,
    other_positives: bool = True,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Any:
    """NT-Xent (SimCLR): cross-entropy of each positive pair against the candidates.

    `-log(exp(s_ip / t) / sum_{a != i} exp(s_ia / t))` for each positive pair, where `s`
    is the cosine and the sum runs over all other candidates, 2N - 1 for two views of N
    items. Without the other positives it is `-log(exp(s_ip / t) / (exp(s_ip / t) +
    sum_{n in N(i)} exp(s_in / t)))`, as in pytorch-metric-learning; the two differ as
    soon as an anchor has more than one positive. Both need only a row, not an array of
    pairs by negatives.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        labels: int `[batch]`, or `Pairs` `[batch, n]`; for views of items that have no
            label, `pairs.view_labels`.
        temperature: `t`; the paper's is 0.1 on ImageNet and 0.5 on CIFAR-10,
            pytorch-metric-learning's 0.07.
        other_positives: whether the denominator of a pair holds the other positives of
            its anchor. Static.
        reduction: of `Terms`, whose terms are positive pairs; all are active.
        **options: see `rows.Options`.

    Returns:
        A scalar, or what `reduction` returns; 0 if there is no positive pair.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.array([[1.0, 0], [1.0, 0], [0, 1.0]]), jnp.array([0, 0, 1])
        >>> round(float(ntxent(x, y, temperature=1.0)), 4)
        0.3133

    References:
        Chen et al., "A Simple Framework for Contrastive Learning of Visual
        Representations", ICML 2020, arXiv:2002.05709, eq. 1.
    """
    step = Partial(
        _softmax_step, temperature=temperature, other_positives=other_positives
    )
    row = rows.Fold(step, _over_pairs)
    if not other_positives:
        normaliser = rows.Fold(step, _normaliser)
        step = Partial(_pairs_step, temperature=temperature)
        row = rows.Fold(step, given=normaliser)
    return _apply(row, embeddings, labels, reduction, options)


def dcl(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    temperature: ArrayLike = 0.1,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Any:
    """Decoupled contrastive loss (DCL): NT-Xent without the positive below the line.

    `-s_ip / t + log sum_{n in N(i)} exp(s_in / t)` for each positive pair, where `s` is
    the cosine. A pair that is close already keeps its full gradient, which helps small
    batches. It can be negative.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        labels: int `[batch]`, or `Pairs` `[batch, n]`; for views of items that have no
            label, `pairs.view_labels`.
        temperature: `t`.
        reduction: of `Terms`, whose terms are positive pairs of an anchor that has a
            negative; all are active.
        **options: see `rows.Options`.

    Returns:
        A scalar, or what `reduction` returns; 0 if there is no such pair.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.array([[1.0, 0], [1.0, 0], [0, 1.0]]), jnp.array([0, 0, 1])
        >>> round(float(dcl(x, y, temperature=1.0)), 4)
        -1.0

    References:
        Yeh et al., "Decoupled Contrastive Learning", ECCV 2022, arXiv:2110.06848, eq.
        6.
    """
    step = Partial(_softmax_step, temperature=temperature, other_positives=False)
    row = rows.Fold(step, _over_pairs)
    return _apply(row, embeddings, labels, reduction, options)


def _apply(
    row: rows.Fold,
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    reduction: Reduction | None,
    options: rows.Options,
) -> Any:
    return rows.apply(
        row,
        embeddings,
        labels,
        prepare=numerics.l2_normalize,
        measure=similarities.dot,
        reduction=reduction,
        **options,
    )


class _Softmax(NamedTuple):
    """What the softmax of an anchor is made of.

    Attributes:
        all: the exponentials below the line.
        logits: `[b]`, sum of the logits of the positives.
        count: `[b]`, number of positives.
    """

    all: _running.Exponentials
    logits: Array
    count: Array


def _softmax_step(
    cosine: Array,
    positive: Array,
    negative: Array,
    *,
    temperature: ArrayLike,
    other_positives: bool,
) -> _Softmax:
    logits = cosine / temperature
    candidates = positive | negative if other_positives else negative
    every = _running.exponentials(logits, candidates)
    count = jnp.sum(positive, axis=1, dtype=logits.dtype)
    # From the peak on, so that XLA has no more than two blocks of rows at a time.
    peak = jnp.where(every.total != 0, every.peak, 0.0)
    above = jnp.sum(jnp.where(positive, logits - peak[:, None], 0.0), axis=1)
    return _Softmax(every, above + count * peak, count)


def _supcon_terms(state: _Softmax) -> Terms:
    normaliser, _ = _running.log(state.all)
    mean = numerics.divide(state.logits, state.count)
    some = state.count > 0
    anchors = some.astype(mean.dtype)
    return Terms(jnp.where(some, normaliser - mean, 0.0), anchors, anchors)


def _over_pairs(state: _Softmax) -> Terms:
    """`normaliser - logit` of each positive; none where nothing is below the line."""
    normaliser, some = _running.log(state.all)
    count = jnp.where(some, state.count, 0.0)
    return Terms(jnp.where(some, count * normaliser - state.logits, 0.0), count, count)


def _normaliser(state: _Softmax) -> tuple[Array, Array]:
    return _running.log(state.all)


def _pairs_step(
    cosine: Array,
    positive: Array,
    negative: Array,
    normaliser: tuple[Array, Array],
    *,
    temperature: ArrayLike,
) -> Terms:
    """Each positive against the negatives alone."""
    del negative
    total, some = (x[:, None] for x in normaliser)
    # Without candidates the pair itself is all there is: log(1) = 0.
    cost = jnp.where(some, jax.nn.softplus(total - cosine / temperature), 0.0)
    count = jnp.sum(positive, axis=1, dtype=cost.dtype)
    return Terms(jnp.sum(jnp.where(positive, cost, 0.0), axis=1), count, count)
