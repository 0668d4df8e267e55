"""Margins that need nothing but the target cosine."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from metricjax import numerics

Margin = Callable[[Array], Array]
Fallback = Callable[[Array, Array, ArrayLike], Array]


def angle(cosine: Array) -> Array:
    """`theta` in [0, pi], with the capped slope of `numerics.sine` at both ends."""
    # The two-argument arctangent is exact at both ends, where arccos has no slope.
    return jnp.arctan2(numerics.sine(cosine), cosine)


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
    shifted = angle_factor * angle(cosine) + angle_shift
    if not monotone:
        return jnp.cos(shifted) - shift
    turns = jnp.floor(shifted / jnp.pi)
    sign = 1.0 - 2.0 * jnp.mod(turns, 2.0)
    return sign * jnp.cos(shifted) - 2.0 * turns - shift


def sphereface_r(cosine: ArrayLike, *, margin: ArrayLike = 1.5) -> Array:
    """Multiplicative margin that stops at the antipode, `cos(min(m theta, pi))`.

    The first version of SphereFace-R; flat for angles above `pi / m`, where only the
    detached gradient of `straight_through` goes on pulling. The second version leaves
    the target alone: see `sphereface_r_others`.

    Args:
        cosine: target cosines, any shape.
        margin: `m >= 1`, a factor; 1.5 in the authors' code.

    Returns:
        An array of the shape of `cosine`, in at least float32.

    Example:
        >>> [round(float(sphereface_r(c, margin=2.0)), 4) for c in (1.0, 0.5, -0.5)]
        [1.0, -0.5, -1.0]

    References:
        Liu et al., "SphereFace Revived: Unifying Hyperspherical Face Recognition",
        TPAMI 2022, arXiv:2109.05565 (SphereFace-R v1).
    """
    cosine = numerics.promote(cosine)
    return jnp.cos(jnp.minimum(margin * angle(cosine), jnp.pi))


def li_arcface(cosine: ArrayLike, *, margin: ArrayLike = 0.45) -> Array:
    """Additive angular margin on a linear target, `1 - 2 (theta + m) / pi`.

    It falls evenly with the angle, all the way, so that it needs no fallback. The other
    classes are linear too: see `li_arcface_others`.

    Args:
        cosine: target cosines, any shape.
        margin: `m` in radians.

    Returns:
        An array of the shape of `cosine`, in at least float32.

    Example:
        >>> [round(float(li_arcface(c, margin=0.0)), 4) for c in (1.0, 0.5, -1.0)]
        [1.0, 0.3333, -1.0]

    References:
        Li et al., "AirFace: Lightweight and Efficient Model for Face Recognition", ICCV
        Workshops 2019, arXiv:1907.12256 (Li-ArcFace).
    """
    shifted = angle(numerics.promote(cosine)) + margin
    return jnp.asarray(1.0 - 2.0 * shifted / jnp.pi)


def sphereface2(
    cosine: ArrayLike, *, margin: ArrayLike = 0.4, exponent: ArrayLike = 3.0
) -> Array:
    """Stretched cosine with an additive margin, `g(c) - m`.

    `g(c) = 2 ((c + 1) / 2)^t - 1` maps [-1, 1] to itself and spreads out the high
    cosines. The other classes have the margin on the other side: see
    `sphereface2_others`.

    Args:
        cosine: target cosines, any shape.
        margin: `m`, in units of the cosine.
        exponent: `t >= 1`.

    Returns:
        An array of the shape of `cosine`, in at least float32.

    Example:
        >>> [round(float(sphereface2(c, margin=0.0)), 4) for c in (1.0, 0.0, -1.0)]
        [1.0, -0.75, -1.0]

    References:
        Wen et al., "SphereFace2: Binary Classification is All You Need for Deep Face
        Recognition", ICLR 2022, arXiv:2108.01513 (similarity adjustment).
    """
    return jnp.asarray(stretch(numerics.promote(cosine), exponent) - margin)


def stretch(cosine: Array, exponent: ArrayLike) -> Array:
    """`g(c) = 2 ((c + 1) / 2)^t - 1`."""
    # Rounding may leave c below -1, where the power of a negative number is NaN.
    return 2.0 * jnp.maximum((cosine + 1.0) / 2.0, 0.0) ** exponent - 1.0


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
