"""Margins on the target cosine: elementwise functions `cosine -> cosine`.

A margin makes the target harder to reach, so that classes end up further apart.
Angles are in radians. Parameters may be arrays that broadcast with the cosines: one
margin per example, or `margins_of_classes[labels]`. They may be traced, so that they
can be learned or scheduled.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from metricjax import numerics

__all__ = [
    "arcface",
    "combined",
    "continuous",
    "cosface",
    "easy",
    "safe",
    "sphereface",
    "straight_through",
]

Margin = Callable[[Array], Array]
Fallback = Callable[[Array, Array, ArrayLike], Array]


def safe(cosine: Array, shifted: Array, margin: ArrayLike) -> Array:
    """Beyond `theta = pi - m`, where `cos(theta + m)` turns back: `c - m sin(m)`.

    The fallback of the ArcFace authors' code. It jumps down by `1 - cos m - m sin m`
    there: at m = 0.5 from -1 to -1.117.

    Args:
        cosine: target cosines.
        shifted: `cos(theta + m)`.
        margin: radians.

    Returns:
        An array of the shape of `cosine`.

    Example:
        >>> round(float(safe(jnp.array(-1.0), jnp.array(-0.9), 0.5)), 4)
        -1.2397
    """
    fallback = cosine - margin * jnp.sin(margin)
    return jnp.where(cosine > -jnp.cos(margin), shifted, fallback)


def easy(cosine: Array, shifted: Array, margin: ArrayLike) -> Array:
    """No margin for angles above 90 degrees: `c` where `c <= 0`.

    The "easy margin" of the ArcFace authors' code.

    Args:
        cosine: target cosines.
        shifted: `cos(theta + m)`.
        margin: radians; not used.

    Returns:
        An array of the shape of `cosine`.

    Example:
        >>> float(easy(jnp.array(-0.5), jnp.array(-0.9), 0.5))
        -0.5
    """
    del margin
    return jnp.where(cosine > 0, shifted, cosine)


def continuous(cosine: Array, shifted: Array, margin: ArrayLike) -> Array:
    """Beyond `theta = pi - m`: `c - (1 - cos m)`, which continues without a jump.

    Args:
        cosine: target cosines.
        shifted: `cos(theta + m)`.
        margin: radians.

    Returns:
        An array of the shape of `cosine`.

    Example:
        >>> round(float(continuous(jnp.array(-1.0), jnp.array(-0.9), 0.5)), 4)
        -1.1224
    """
    fallback = cosine - (1.0 - jnp.cos(margin))
    return jnp.where(cosine > -jnp.cos(margin), shifted, fallback)


def arcface(
    cosine: ArrayLike, *, margin: ArrayLike = 0.5, fallback: Fallback = safe
) -> Array:
    """Additive angular margin, `cos(theta + m)`.

    Computed as `c cos m - sin(theta) sin m`, without an arccosine; its slope is
    `sin(theta + m) / sin(theta)`, capped as in `numerics.sine`.

    Args:
        cosine: target cosines, any shape.
        margin: `m` in radians, in [0, pi).
        fallback: what to do where `theta + m > pi`: `safe` (default), `easy` or
            `continuous`.

    Returns:
        An array of the shape of `cosine`, in at least float32.

    Example:
        >>> round(float(arcface(0.5)), 4)
        0.0236

    References:
        Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition",
        CVPR 2019, arXiv:1801.07698, eq. 3.
    """
    cosine = numerics.promote(cosine)
    shifted = cosine * jnp.cos(margin) - numerics.sine(cosine) * jnp.sin(margin)
    return fallback(cosine, shifted, margin)


def cosface(cosine: ArrayLike, *, margin: ArrayLike = 0.35) -> Array:
    """Additive cosine margin, `c - m`.

    Args:
        cosine: target cosines, any shape.
        margin: `m`, in units of the cosine.

    Returns:
        An array of the shape of `cosine`, in at least float32.

    Example:
        >>> round(float(cosface(0.5)), 4)
        0.15

    References:
        Wang et al., "CosFace: Large Margin Cosine Loss for Deep Face Recognition", CVPR
        2018, arXiv:1801.09414, eq. 4.
    """
    return numerics.promote(cosine) - margin


def sphereface(
    cosine: ArrayLike, *, margin: ArrayLike = 1.35, monotone: bool = True
) -> Array:
    """Multiplicative angular margin, `psi(theta) = (-1)^k cos(m theta) - 2k`.

    `k = floor(m theta / pi)`; psi continues `cos(m theta)` downwards where that would
    turn back. The paper's m is 4, with annealing; 1.35 is what ArcFace's comparison
    uses without it.

    Args:
        cosine: target cosines, any shape.
        margin: `m >= 1`, a factor; any real number.
        monotone: whether to use psi (default), or the plain `cos(m theta)`, which
            rewards angles above `pi / m`. Static.

    Returns:
        An array of the shape of `cosine`, in at least float32.

    Example:
        >>> [round(float(sphereface(c, margin=4.0)), 4) for c in (1.0, 0.5, -1.0)]
        [1.0, -1.5, -7.0]

    References:
        Liu et al., "SphereFace: Deep Hypersphere Embedding for Face Recognition", CVPR
        2017, arXiv:1704.08063, eq. 7.
    """
    return combined(
        cosine, angle_factor=margin, angle_shift=0.0, shift=0.0, monotone=monotone
    )


def combined(
    cosine: ArrayLike,
    *,
    angle_factor: ArrayLike = 1.0,
    angle_shift: ArrayLike = 0.3,
    shift: ArrayLike = 0.2,
    monotone: bool = True,
) -> Array:
    """SphereFace, ArcFace and CosFace in one: `cos(m1 theta + m2) - m3`.

    The defaults are the paper's first combination, (1, 0.3, 0.2); its second is (0.9,
    0.4, 0.15).

    Args:
        cosine: target cosines, any shape.
        angle_factor: `m1`, a factor.
        angle_shift: `m2` in radians.
        shift: `m3`, in units of the cosine.
        monotone: whether to continue downwards beyond `m1 theta + m2 = pi` (see
            `sphereface`) or to turn back, as the equation does as written. Static.

    Returns:
        An array of the shape of `cosine`, in at least float32.

    Example:
        >>> round(float(combined(0.5)), 4)
        0.0217

    References:
        Deng et al., "ArcFace", CVPR 2019, arXiv:1801.07698, eq. 4 and table 2.
    """
    cosine = numerics.promote(cosine)
    # The two-argument arctangent is exact at both ends, where arccos has no slope.
    angle = angle_factor * jnp.arctan2(numerics.sine(cosine), cosine) + angle_shift
    if not monotone:
        return jnp.cos(angle) - shift
    turns = jnp.floor(angle / jnp.pi)
    sign = 1.0 - 2.0 * jnp.mod(turns, 2.0)
    return sign * jnp.cos(angle) - 2.0 * turns - shift


def straight_through(cosine: ArrayLike, *, margin: Margin) -> Array:
    """The value of another margin, with the gradient of no margin at all.

    So trains the widely used insightface code, where the margin is applied outside of
    the graph: its gradient is that of the plain cosine.

    Args:
        cosine: target cosines, any shape.
        margin: the margin whose value to take, for instance `arcface`, or
            `jax.tree_util.Partial(cosface, margin=0.4)`.

    Returns:
        An array of the shape of `cosine`, in at least float32.

    Example:
        >>> import jax
        >>> float(jax.grad(lambda c: straight_through(c, margin=arcface))(0.5))
        1.0
    """
    cosine = numerics.promote(cosine)
    return numerics.straight_through(margin(cosine), cosine)
