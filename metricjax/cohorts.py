"""Cohorts: items that belong to neither of a pair, to judge its similarity by.

    cohort = mj.cohorts.of(train_embeddings)
    score = Partial(mj.similarities.s_norm, cohort=cohort)    # in the place of cosine

A cohort is known by the mean and covariance of its unit vectors, which give mean and
standard deviation of the cosines of an item with all of its members at once.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from metricjax import _checks, numerics

__all__ = ["Cohort", "of", "with_each"]


class Cohort(NamedTuple):
    """What is known of a cohort.

    Attributes:
        mean: `[dim]`, of its unit vectors.
        covariance: `[dim, dim]`, of its unit vectors.
    """

    mean: Array
    covariance: Array


def of(embeddings: ArrayLike, *, where: ArrayLike | None = None) -> Cohort:
    """The cohort of these embeddings.

    Args:
        embeddings: `[n, dim]`, of any lengths; those of the training will do. None
            should be of a class that is compared.
        where: bool `[n]`, False for padding.

    Returns:
        The `Cohort`.

    Raises:
        ValueError: if `embeddings` is not a matrix, or `where` has another length.
        TypeError: if a dtype is wrong.

    Example:
        >>> cohort = of(jnp.array([[2.0, 0.0], [0.0, 3.0]]))
        >>> cohort.mean.tolist(), cohort.covariance.tolist()
        ([0.5, 0.5], [[0.25, -0.25], [-0.25, 0.25]])
    """
    _checks.check_embeddings("embeddings", embeddings)
    x = numerics.l2_normalize(embeddings)
    used = jnp.ones(x.shape[0], bool)
    if where is not None:
        _checks.check_mask("where", where, x.shape[:1])
        used = jnp.asarray(where)
    x = jnp.where(used[:, None], x, 0.0)
    count = jnp.maximum(jnp.sum(used), 1)
    mean = jnp.sum(x, axis=0) / count
    apart = jnp.where(used[:, None], x - mean, 0.0)
    return Cohort(mean, numerics.matmul(apart.T, apart) / count)


def with_each(cohort: Cohort, embeddings: ArrayLike) -> tuple[Array, Array]:
    """Mean and standard deviation of the cosines of each item with the cohort.

    `x . mean` and `sqrt(x^T covariance x)` for a unit vector `x`.

    Args:
        cohort: from `of`.
        embeddings: `[n, dim]`, of any lengths.

    Returns:
        Two arrays `[n]`; the standard deviation is 1 where there is none to divide by.

    Raises:
        ValueError: if `embeddings` is not a matrix, or has another `dim`.
        TypeError: if it is not floating.

    Example:
        >>> cohort = of(jnp.array([[1.0, 0.0], [0.0, 1.0]]))
        >>> means, spreads = with_each(cohort, jnp.array([[3.0, 0.0]]))
        >>> means.tolist(), spreads.tolist()
        ([0.5], [0.5])
    """
    _checks.check_embeddings("embeddings", embeddings)
    x = numerics.l2_normalize(embeddings)
    if jnp.shape(cohort.mean) != x.shape[1:]:
        raise ValueError(
            f"Expected a `cohort` of dim {x.shape[1]}, got one of "
            f"{list(jnp.shape(cohort.mean))}; make it from the same encoder."
        )
    mean, covariance = (jnp.asarray(leaf, x.dtype) for leaf in cohort)
    means = numerics.matmul(x, mean[:, None])[:, 0]
    variances = jnp.sum(numerics.matmul(x, covariance) * x, axis=1)
    # What is below the rounding of the largest is none, and not to be divided by.
    some = variances > jnp.finfo(x.dtype).eps * jnp.trace(covariance)
    return means, jnp.where(some, jnp.sqrt(jnp.where(some, variances, 1.0)), 1.0)
