"""Lifted structure: all negatives of a pair, or of an anchor, in one logsumexp."""

from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import _running, distances, reductions, rows
from metricjax.pairs import Pairs
from metricjax.reductions import Reduction, Terms


def lifted_structure(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    margin: ArrayLike = 1.0,
    distance: distances.Distance = distances.euclidean,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Any:
    """Lifted structured loss, with the negatives of both ends of a positive pair.

    `[log(sum_{k in N_i} exp(m - d_ik) + sum_{l in N_j} exp(m - d_jl)) + d_ij]_+^2 / 2`
    for each positive pair. Two passes: the logsumexp of each candidate, then the pairs.
    With references the candidate's negatives are among the references.

    Args:
        embeddings: `[batch, dim]`; not normalised inside.
        labels: int `[batch]`, or `Pairs` `[batch, n]`.
        margin: `m`, in units of the distance.
        distance: `(x, y) -> [n, m]`; Euclidean, not squared.
        reduction: of `Terms`, whose terms are positive pairs one end of which has a
            negative; active are those that cost something.
        **options: see `rows.Options`.

    Returns:
        A scalar, or what `reduction` returns; 0 if there is no term.

    Raises:
        ValueError: if shapes disagree, or with `Pairs` and references, which leave the
            negatives of a reference unknown.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.array([[0.0], [1.0], [3.0]]), jnp.array([0, 0, 1])
        >>> round(float(lifted_structure(x, y)), 4)
        0.0491

    References:
        Song et al., "Deep Metric Learning via Lifted Structured Feature Embedding",
        CVPR 2016, arXiv:1511.06452, eq. 4.
    """
    step = Partial(_negatives_step, margin=margin)
    far = _negatives_of_candidates(embeddings, labels, step, distance, options)
    return rows.apply(
        rows.Fold(_lifted_row, given=rows.Fold(step, _running.log)),
        embeddings,
        labels,
        measure=distance,
        reduction=reduction,
        per_candidate=(far.total, far.count > 0),
        **options,
    )


def _negatives_of_candidates(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    step: Partial,
    distance: distances.Distance,
    options: rows.Options,
) -> Terms:
    """Terms with the logsumexp of each candidate's negatives, and if it has any."""
    row = rows.Fold(step, _negatives_terms)
    refs, ref_labels = options.get("ref_embeddings"), options.get("ref_labels")
    if refs is None:
        own: rows.Options = {**options}
        own.pop("weights", None)
        return rows.terms(row, embeddings, labels, measure=distance, **own)
    if isinstance(labels, Pairs) or ref_labels is None:
        raise ValueError(
            "Expected `ref_labels` with `ref_embeddings`, got None or `Pairs`; the "
            "negatives of a reference are needed too, so pass integer labels."
        )
    ring = options.get("ring", False)
    return rows.terms(
        row,
        refs,
        ref_labels,
        measure=distance,
        where=options.get("ref_where"),
        ids=options.get("ref_ids"),
        block_size=options.get("block_size"),
        # Each device has all references, unless they go round.
        axis_name=options.get("axis_name") if ring else None,
        ring=ring,
    )


def _negatives_step(
    distances: Array,
    positive: Array,
    negative: Array,
    *unused: Any,
    margin: ArrayLike,
) -> _running.Exponentials:
    """`sum_n exp(m - d_n)`."""
    del positive, unused
    return _running.exponentials(margin - distances, negative)


def _negatives_terms(state: _running.Exponentials) -> Terms:
    pull, some = _running.log(state)
    count = some.astype(pull.dtype)
    return Terms(pull, count, count)


def _lifted_row(
    distances: Array,
    positive: Array,
    negative: Array,
    candidates: tuple[Array, Array],
    anchors: tuple[Array, Array],
) -> Terms:
    del negative
    own, some = (x[:, None] for x in anchors)
    other, other_some = (x[None, :] for x in candidates)
    # Each side is 0 where it is empty, so that neither branch is infinite.
    one = jnp.where(some, own, other)
    both = jnp.where(some & other_some, jnp.logaddexp(own, other), one)
    terms = positive & (some | other_some)
    excess = jnp.where(terms, both + distances, 0.0)
    return Terms(
        jnp.sum(jnp.square(jnp.maximum(excess, 0.0)), axis=1) / 2.0,
        jnp.sum(terms, axis=1, dtype=excess.dtype),
        jnp.sum(excess > 0, axis=1, dtype=excess.dtype),
    )


def generalized_lifted_structure(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    margin: ArrayLike = 1.0,
    soft: bool = False,
    distance: distances.Distance = distances.euclidean,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Any:
    """Generalised lifted structure: all positives against all negatives of an anchor.

    `[log sum_p exp(d_ap) + log sum_n exp(m - d_an)]_+` for each anchor.

    Args:
        embeddings: `[batch, dim]`; not normalised inside.
        labels: int `[batch]`, or `Pairs` `[batch, n]`.
        margin: `m`, in units of the distance.
        soft: whether to use `log(1 + exp(x))` for the hinge. Static.
        distance: `(x, y) -> [n, m]`; Euclidean, not squared.
        reduction: of `Terms`, whose terms are anchors with a positive and a negative,
            while pytorch-metric-learning averages over all anchors; active are those
            above zero before the hinge.
        **options: see `rows.Options`.

    Returns:
        A scalar, or what `reduction` returns; 0 if there is no term.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.array([[0.0], [1.0], [1.5]]), jnp.array([0, 0, 1])
        >>> round(float(generalized_lifted_structure(x, y)), 4)
        1.0

    References:
        Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification",
        2017, arXiv:1703.07737, eq. 8.
    """
    row = rows.Fold(
        Partial(_generalized_step, margin=margin),
        Partial(_generalized_terms, soft=soft),
    )
    return rows.apply(
        row,
        embeddings,
        labels,
        measure=distance,
        reduction=reduction,
        **options,
    )


def _generalized_step(
    distances: Array, positive: Array, negative: Array, *, margin: ArrayLike
) -> tuple[_running.Exponentials, _running.Exponentials]:
    pull = _running.exponentials(distances, positive)
    return pull, _running.exponentials(margin - distances, negative)


def _generalized_terms(
    state: tuple[_running.Exponentials, _running.Exponentials], *, soft: bool
) -> Terms:
    (pull, some_positive), (push, some_negative) = map(_running.log, state)
    some = some_negative & some_positive
    excess = jnp.where(some, pull + push, 0.0)
    penalty = jax.nn.softplus(excess) if soft else jnp.maximum(excess, 0.0)
    return Terms(
        jnp.where(some, penalty, 0.0),
        some.astype(excess.dtype),
        (excess > 0).astype(excess.dtype),
    )
