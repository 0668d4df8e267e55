"""Distances of other geometries: angle, signal to noise, and hyperbolic space."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from metricjax import _checks, numerics
from metricjax.distances._euclidean import squared_euclidean
from metricjax.distances._pairwise import sides
from metricjax.numerics import HIGHEST, Precision

BALL_EDGE = 1e-3


def cosine(
    x: ArrayLike, y: ArrayLike | None = None, *, precision: Precision = HIGHEST
) -> Array:
    """Cosine distance, `1 - x_i.y_j / (||x_i|| ||y_j||)`, in [0, 2].

    A zero vector is at distance 1 from everything, with zero gradient.

    Args:
        x: `[n, dim]`.
        y: `[m, dim]`; `x` if None.
        precision: of the matrix product.

    Returns:
        `[n, m]`.

    Raises:
        ValueError: if `x` or `y` is not a matrix, or their `dim` differ.
        TypeError: if one is not floating.

    Example:
        >>> cosine(jnp.array([[1.0, 0]]), jnp.array([[0, 2.0], [3.0, 0]])).tolist()
        [[1.0, 0.0]]
    """
    x, y = (numerics.l2_normalize(side) for side in sides(x, y))
    return 1.0 - numerics.matmul(x, y.T, precision=precision)


def snr(
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    exact: bool = False,
    precision: Precision = HIGHEST,
) -> Array:
    """Signal-to-noise distance, `var(x_i - y_j) / var(x_i)`, over the coordinates.

    The anchor `x_i` is the signal, the difference is the noise: it is not symmetric,
    and it does not change if both are scaled or shifted by a number. The variances are
    those of the centred rows, so that one matrix product gives them all; see
    `squared_euclidean` for what `exact` buys.

    Args:
        x: `[n, dim]`, the anchors.
        y: `[m, dim]`; `x` if None.
        exact: whether to sum squared differences. Static.
        precision: of the matrix product.

    Returns:
        `[n, m]`, not negative; 0 for an anchor whose coordinates are all equal, which
        has no signal.

    Raises:
        ValueError: if `x` or `y` is not a matrix, or their `dim` differ.
        TypeError: if one is not floating.

    Example:
        >>> snr(jnp.array([[1.0, -1.0]]), jnp.array([[2.0, -2.0], [5.0, 7.0]])).tolist()
        [[1.0, 4.0]]

    References:
        Yuan et al., "Signal-to-Noise Ratio: A Robust Distance Metric for Deep Metric
        Learning", CVPR 2019, arXiv:1904.02616, section 3.
    """
    x, y = (side - side.mean(axis=1, keepdims=True) for side in sides(x, y))
    noise = squared_euclidean(x, y, exact=exact, precision=precision)
    return numerics.divide(noise, jnp.sum(jnp.square(x), axis=1, keepdims=True))


def hyperbolic(
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    curvature: ArrayLike = 0.1,
    exact: bool = False,
    precision: Precision = HIGHEST,
) -> Array:
    """Distance in the Poincare ball of radius `1 / sqrt(c)`.

    `arcosh(1 + 2 c ||x - y||^2 / ((1 - c ||x||^2)(1 - c ||y||^2))) / sqrt(c)`, computed
    as twice an inverse hyperbolic sine, which keeps its digits for close points. For
    `c -> 0` it tends to twice the Euclidean distance.

    Args:
        x: `[n, dim]`, points in the ball, as `to_ball` makes them. What is farther from
            the origin than 0.999 of the radius is moved back to there.
        y: `[m, dim]`; `x` if None.
        curvature: `c > 0`; the space has curvature `-c`. It may be traced.
        exact: whether to sum squared differences; see `squared_euclidean`. Near the
            edge the metric is steep, and so is its rounding error. Static.
        precision: of the matrix product.

    Returns:
        `[n, m]`, not negative, with gradient zero where it is zero.

    Raises:
        ValueError: if `x` or `y` is not a matrix, or their `dim` differ.
        TypeError: if one is not floating.

    Example:
        >>> hyperbolic(jnp.zeros((1, 1)), jnp.array([[0.5]]), curvature=1.0).round(4)
        Array([[1.0986]], dtype=float32)

    References:
        Khrulkov et al., "Hyperbolic Image Embeddings", CVPR 2020, arXiv:1904.02239,
        section 4. The default curvature: Ermolov et al., "Hyperbolic Vision
        Transformers: Combining Improvements in Metric Learning", CVPR 2022,
        arXiv:2203.10833.
    """
    x, y = (_inside(side, curvature) for side in sides(x, y))
    gap = squared_euclidean(x, y, exact=exact, precision=precision)
    room_x, room_y = (
        1.0 - curvature * jnp.sum(jnp.square(side), axis=1) for side in (x, y)
    )
    half = numerics.sqrt(curvature * gap / (room_x[:, None] * room_y[None, :]))
    return 2.0 * jnp.arcsinh(half) / jnp.sqrt(curvature)


def to_ball(
    x: ArrayLike, *, curvature: ArrayLike = 0.1, clip: ArrayLike | None = 2.3
) -> Array:
    """Vectors of ordinary space as points of the Poincare ball, for `hyperbolic`.

    The exponential map at the origin, `tanh(sqrt(c) ||x||) x / (sqrt(c) ||x||)`.

    Args:
        x: `[n, dim]`.
        curvature: `c > 0`, that of `hyperbolic`. It may be traced.
        clip: longer vectors are shortened to this length first, since the gradient
            vanishes towards the edge of the ball. None for no limit.

    Returns:
        `[n, dim]`, in at least float32; the zero vector stays zero, with slope one.

    Raises:
        ValueError: if `x` is not a matrix.
        TypeError: if `x` is not floating.

    Example:
        >>> to_ball(jnp.array([[0.0, 0.5]]), curvature=1.0).round(4)
        Array([[0.    , 0.4621]], dtype=float32)

    References:
        Khrulkov et al., "Hyperbolic Image Embeddings", CVPR 2020, arXiv:1904.02239,
        section 4. Clipping: Guo et al., "Clipped Hyperbolic Classifiers Are
        Super-Hyperbolic Classifiers", CVPR 2022, arXiv:2107.11472; 2.3 is Ermolov et
        al.'s (see `hyperbolic`).
    """
    _checks.check_embeddings("x", x)
    x = numerics.promote(x)
    if clip is not None:
        x = _shorten(x, clip)
    length = jnp.sqrt(curvature) * numerics.norm(x, keepdims=True)
    nonzero = length > 0
    return x * jnp.where(nonzero, numerics.divide(jnp.tanh(length), length), 1.0)


def _shorten(x: Array, limit: ArrayLike) -> Array:
    length = numerics.norm(x, keepdims=True)
    return jnp.where(length > limit, x * numerics.divide(limit, length), x)


def _inside(x: Array, curvature: ArrayLike) -> Array:
    """`x`, moved back to just inside of the ball where it is outside of that.

    On the edge itself everything is infinitely far.
    """
    return _shorten(x, (1.0 - BALL_EDGE) / jnp.sqrt(curvature))


def negative(
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    similarity: Callable[..., Array],
) -> Array:
    """A similarity as a distance, `-s(x_i, y_j)`; it may be negative.

    With `similarities.dot` it is the distance of a search for the largest dot product.
    Configure it with `jax.tree_util.Partial(negative, similarity=similarities.dot)`.

    Args:
        x: `[n, dim]`.
        y: `[m, dim]`; `x` if None.
        similarity: `(x, y) -> [n, m]`, larger is closer.

    Returns:
        `[n, m]`.

    Example:
        >>> from metricjax import similarities
        >>> x, y = jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 4.0]])
        >>> negative(x, y, similarity=similarities.dot).tolist()
        [[-11.0]]
    """
    return -similarity(x, y)
