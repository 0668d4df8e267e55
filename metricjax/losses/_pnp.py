"""PNP losses: a positive pays for the negatives that stand before it."""

from collections.abc import Callable
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import numerics, reductions, rows, similarities
from metricjax.losses import _each_positive
from metricjax.pairs import Pairs
from metricjax.reductions import Reduction, Terms

Penalty = Callable[[Array], Array]


def pnp(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    penalty: Penalty = jnp.asarray,
    temperature: ArrayLike = 0.01,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Any:
    """PNP: a penalty on the number of negatives that stand before each positive.

    `1/|P(i)| sum_{p in P(i)} f(R(p))` with `R(p) = sum_{n in N(i)} g(s_in - s_ip)`,
    where `g(x) = 1 / (1 + exp(-x / t))` and `s` is the cosine. `f(R) = R` is the
    paper's PNP-O; `pnp_iu` and `pnp_ib` have a slope that grows with R, `pnp_ds` and
    `pnp_dq` one that falls. The authors' code counts the anchor among its own positives
    (for which R is near 0); here it is not one. Time is `batch^2 * (dim + positives)`,
    memory a few blocks of rows.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        labels: int `[batch]`, or `Pairs` `[batch, n]`.
        penalty: `f`, elementwise on counts `>= 0`, with `f(0) = 0`; a module-level
            function, configured with `jax.tree_util.Partial`, whose parameters may be
            learned.
        temperature: `t`.
        reduction: of `Terms`, whose terms are anchors with a positive; all are active.
        **options: see `rows.Options`.

    Returns:
        A scalar, or what `reduction` returns; 0 if no anchor has a positive.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])
        >>> y = jnp.array([0, 0, 1])
        >>> round(float(pnp(x, y)), 4), round(float(pnp(x, y, penalty=jnp.sqrt)), 4)
        (1.0, 1.0)

    References:
        Li et al., "Rethinking the Optimization of Average Precision: Only Penalizing
        Negative Instances before Positive Ones is Enough", AAAI 2022, arXiv:2102.04640.
    """
    return rows.apply(
        Partial(_pnp_row, penalty=_as_partial(penalty), temperature=temperature),
        embeddings,
        labels,
        prepare=numerics.l2_normalize,
        measure=similarities.dot,
        reduction=reduction,
        **options,
    )


def pnp_iu(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    temperature: ArrayLike = 0.01,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Any:
    """PNP-Iu: `(1 + R) log(1 + R)`, whose slope grows without bound.

    Args:
        embeddings: see `pnp`.
        labels: see `pnp`.
        temperature: see `pnp`.
        reduction: see `pnp`.
        **options: see `rows.Options`.

    Returns:
        A scalar, or what `reduction` returns; 0 if no anchor has a positive.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])
        >>> round(float(pnp_iu(x, jnp.array([0, 0, 1]))), 4)
        1.3863

    References:
        Li et al., AAAI 2022, arXiv:2102.04640.
    """
    return pnp(
        embeddings,
        labels,
        penalty=_increasing_unbounded,
        temperature=temperature,
        reduction=reduction,
        **options,
    )


def pnp_ib(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    b: ArrayLike = 2.0,
    temperature: ArrayLike = 0.01,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Any:
    """PNP-Ib: `(b R - log(1 + b R)) / b^2`, whose slope grows to `1 / b`.

    Args:
        embeddings: see `pnp`.
        labels: see `pnp`.
        b: how fast the slope `R / (1 + b R)` reaches its bound.
        temperature: see `pnp`.
        reduction: see `pnp`.
        **options: see `rows.Options`.

    Returns:
        A scalar, or what `reduction` returns; 0 if no anchor has a positive.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])
        >>> round(float(pnp_ib(x, jnp.array([0, 0, 1]))), 4)
        0.2253

    References:
        Li et al., AAAI 2022, arXiv:2102.04640.
    """
    return pnp(
        embeddings,
        labels,
        penalty=Partial(_increasing_bounded, b=b),
        temperature=temperature,
        reduction=reduction,
        **options,
    )


def pnp_ds(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    temperature: ArrayLike = 0.01,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Any:
    """PNP-Ds: `log(1 + R)`, whose slope falls slowly.

    Args:
        embeddings: see `pnp`.
        labels: see `pnp`.
        temperature: see `pnp`.
        reduction: see `pnp`.
        **options: see `rows.Options`.

    Returns:
        A scalar, or what `reduction` returns; 0 if no anchor has a positive.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])
        >>> round(float(pnp_ds(x, jnp.array([0, 0, 1]))), 4)
        0.6931

    References:
        Li et al., AAAI 2022, arXiv:2102.04640.
    """
    return pnp(
        embeddings,
        labels,
        penalty=jnp.log1p,
        temperature=temperature,
        reduction=reduction,
        **options,
    )


def pnp_dq(
    embeddings: ArrayLike,
    labels: ArrayLike | Pairs,
    *,
    alpha: ArrayLike = 4.0,
    temperature: ArrayLike = 0.01,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[rows.Options],
) -> Any:
    """PNP-Dq: `1 - (1 + R)^-alpha`, whose slope falls quickly.

    A positive that stands behind many negatives, perhaps of another cluster of its
    class, is left in peace.

    Args:
        embeddings: see `pnp`.
        labels: see `pnp`.
        alpha: 4 in the authors' runs on Stanford Online Products; 1 in
            pytorch-metric-learning.
        temperature: see `pnp`.
        reduction: see `pnp`.
        **options: see `rows.Options`.

    Returns:
        A scalar, or what `reduction` returns; 0 if no anchor has a positive.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])
        >>> round(float(pnp_dq(x, jnp.array([0, 0, 1]))), 4)
        0.9375

    References:
        Li et al., AAAI 2022, arXiv:2102.04640.
    """
    return pnp(
        embeddings,
        labels,
        penalty=Partial(_decreasing_quickly, alpha=alpha),
        temperature=temperature,
        reduction=reduction,
        **options,
    )


def _as_partial(penalty: Penalty) -> Partial:
    return penalty if isinstance(penalty, Partial) else Partial(penalty)


def _increasing_unbounded(count: Array) -> Array:
    return (1.0 + count) * jnp.log1p(count)


def _increasing_bounded(count: Array, *, b: ArrayLike) -> Array:
    return jnp.asarray((b * count - jnp.log1p(b * count)) / jnp.square(b))


def _decreasing_quickly(count: Array, *, alpha: ArrayLike) -> Array:
    return -jnp.expm1(-(alpha * jnp.log1p(count)))


def _pnp_row(
    cosine: Array,
    positive: Array,
    negative: Array,
    *,
    penalty: Partial,
    temperature: ArrayLike,
) -> Terms:
    parameters = _each_positive.per_row((penalty, temperature), cosine)
    total = _each_positive.sum_terms(_penalised, cosine, positive, negative, parameters)
    count = jnp.sum(positive, axis=1, dtype=total.dtype)
    anchors = (count > 0).astype(total.dtype)
    return Terms(numerics.divide(total, count), anchors, anchors)


def _penalised(
    cosine: Array,
    value: Array,
    rivals: Array,
    negative: Array,
    parameters: tuple[Partial, Array],
) -> Array:
    """What one positive of each row pays."""
    del rivals
    penalty, temperature = parameters
    ahead = jax.nn.sigmoid((cosine - value[:, None]) / temperature[:, None])
    count = jnp.sum(jnp.where(negative, ahead, 0.0), axis=1)
    # The parameters of the penalty are those of each row.
    return jax.vmap(lambda penalty, count: penalty(count))(penalty, count)
