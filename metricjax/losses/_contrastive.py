"""Softmax over the candidates of an anchor: SupCon and its relatives."""

from typing import Any, Unpack

import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import numerics, reductions, rows, similarities
from metricjax.pairs import Pairs
from metricjax.reductions import Reduction, Terms


def supcon(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    temperature: ArrayLike = 0.1,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Array | Any:
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
    return rows.apply(
        Partial(_supcon_row, temperature=temperature),
        embeddings,
        labels,
        prepare=numerics.l2_normalize,
        measure=similarities.dot,
        reduction=reduction,
        **options,
    )


def _supcon_row(
    cosine: Array, positive: Array, negative: Array, *, temperature: ArrayLike
) -> Terms:
    logits = cosine / temperature
    count = jnp.sum(positive, axis=1, dtype=logits.dtype)
    some = count > 0
    # A row with nothing in it would give log(0); its total is left out below.
    normaliser = numerics.logsumexp(logits, positive | negative)
    normaliser = jnp.where(some, normaliser, 0.0)
    mean = numerics.divide(jnp.sum(jnp.where(positive, logits, 0.0), axis=1), count)
    anchors = some.astype(logits.dtype)
    return Terms(jnp.where(some, normaliser - mean, 0.0), anchors, anchors)
