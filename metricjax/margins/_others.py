"""What some methods do to the cosines of the other classes.

`(cosine [b, classes], target [b, 1]) -> [b, classes]`, where `target` has its margin.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from metricjax import numerics
from metricjax.margins._targets import angle, stretch

Others = Callable[[Array, Array], Array]


def curricularface_others(
    cosine: ArrayLike, target: ArrayLike, *, curriculum: ArrayLike
) -> Array:
    """CurricularFace: `c_j (t + c_j)` where the class beats the target, else `c_j`.

    `t` grows in training from 0, where hard classes are played down, towards one, where
    they are emphasised.

    Args:
        cosine: of the other classes, `[b, classes]`.
        target: with its margin, `[b, 1]`.
        curriculum: `t`; see `memory.update_curriculum`.

    Returns:
        An array of the shape of `cosine`, in at least float32.

    Example:
        >>> cosine = jnp.array([[0.5, 0.1]])
        >>> out = curricularface_others(cosine, jnp.array([[0.2]]), curriculum=0.3)
        >>> [round(float(c), 4) for c in out[0]]
        [0.4, 0.1]

    References:
        Huang et al., "CurricularFace: Adaptive Curriculum Learning Loss for Deep Face
        Recognition", CVPR 2020, arXiv:2004.00288.
    """
    cosine = numerics.promote(cosine)
    return jnp.where(cosine > target, cosine * (curriculum + cosine), cosine)


def mv_softmax_others(
    cosine: ArrayLike,
    target: ArrayLike,
    *,
    emphasis: ArrayLike = 1.2,
    adaptive: bool = True,
) -> Array:
    """MV-Softmax: `t c_j + t - 1` where the class beats the target, else `c_j`.

    Args:
        cosine: of the other classes, `[b, classes]`.
        target: with its margin, `[b, 1]`.
        emphasis: `t >= 1`; 1 changes nothing.
        adaptive: whether the emphasis grows with the cosine (default), or is the same
            for all: `c_j + t - 1`. Static.

    Returns:
        An array of the shape of `cosine`, in at least float32.

    Example:
        >>> out = mv_softmax_others(jnp.array([[0.5, 0.1]]), jnp.array([[0.2]]))
        >>> [round(float(c), 4) for c in out[0]]
        [0.8, 0.1]

    References:
        Wang et al., "Mis-classified Vector Guided Softmax Loss for Face Recognition",
        AAAI 2020, arXiv:1912.00833; the two forms are those of the authors' code.
    """
    cosine = numerics.promote(cosine)
    gain = (emphasis - 1.0) * (cosine + 1.0 if adaptive else 1.0)
    return jnp.where(cosine > target, cosine + gain, cosine)


def sphereface_r_others(
    cosine: ArrayLike, target: ArrayLike, *, margin: ArrayLike = 1.5
) -> Array:
    """SphereFace-R, second version: `cos(theta_j / m)`; the target has no margin.

    Args:
        cosine: of the other classes, `[b, classes]`.
        target: not used.
        margin: `m >= 1`, a factor.

    Returns:
        An array of the shape of `cosine`, in at least float32.

    Example:
        >>> round(float(sphereface_r_others(-1.0, 1.0, margin=2.0)), 4)
        -0.0

    References:
        Liu et al., "SphereFace Revived: Unifying Hyperspherical Face Recognition",
        TPAMI 2022, arXiv:2109.05565 (SphereFace-R v2).
    """
    del target
    return jnp.cos(angle(numerics.promote(cosine)) / margin)


def li_arcface_others(cosine: ArrayLike, target: ArrayLike) -> Array:
    """Li-ArcFace: `1 - 2 theta_j / pi`, linear in the angle.

    Args:
        cosine: of the other classes, `[b, classes]`.
        target: not used.

    Returns:
        An array of the shape of `cosine`, in at least float32.

    Example:
        >>> round(float(li_arcface_others(0.5, 1.0)), 4)
        0.3333

    References:
        Li et al., "AirFace", ICCV Workshops 2019, arXiv:1907.12256.
    """
    del target
    return 1.0 - 2.0 * angle(numerics.promote(cosine)) / jnp.pi


def sphereface2_others(
    cosine: ArrayLike,
    target: ArrayLike,
    *,
    margin: ArrayLike = 0.4,
    exponent: ArrayLike = 3.0,
) -> Array:
    """SphereFace2: `g(c_j) + m`, with `g` as in `sphereface2`.

    Args:
        cosine: of the other classes, `[b, classes]`.
        target: not used.
        margin: `m`, in units of the cosine.
        exponent: `t >= 1`.

    Returns:
        An array of the shape of `cosine`, in at least float32.

    Example:
        >>> round(float(sphereface2_others(0.0, 1.0)), 4)
        -0.35

    References:
        Wen et al., "SphereFace2", ICLR 2022, arXiv:2108.01513.
    """
    del target
    return jnp.asarray(stretch(numerics.promote(cosine), exponent) + margin)


def filtered_others(
    cosine: ArrayLike,
    target: Array,
    *,
    threshold: ArrayLike = 0.4,
    others: Others | None = None,
) -> Array:
    """A class with a cosine above `threshold` is left out, as a likely false label.

    A person who has two classes by mistake is otherwise pushed away from oneself. Its
    cosine becomes -1 and has no gradient; in the authors' code it becomes 0. Before
    classes have come apart, true negatives are above the threshold as well.

    Args:
        cosine: of the other classes, `[b, classes]`.
        target: with its margin, `[b, 1]`; for `others`.
        threshold: in units of the cosine; infinity leaves out nothing.
        others: what is done to the rest; nothing by default.

    Returns:
        An array of the shape of `cosine`, in at least float32.

    Example:
        >>> out = filtered_others(jnp.array([[0.5, 0.1]]), jnp.array([[0.2]]))
        >>> [round(float(c), 4) for c in out[0]]
        [-1.0, 0.1]

    References:
        An et al., "Killing Two Birds with One Stone: Efficient and Robust Training of
        Face Recognition CNNs by Partial FC", CVPR 2022, arXiv:2203.15565; the authors'
        code (insightface).
    """
    cosine = numerics.promote(cosine)
    kept = cosine if others is None else others(cosine, target)
    return jnp.where(cosine > threshold, -1.0, kept)


def straight_through_others(
    cosine: ArrayLike, target: Array, *, others: Others
) -> Array:
    """The value of `others`, with the gradient of the plain cosine.

    Args:
        cosine: of the other classes, `[b, classes]`.
        target: with its margin, `[b, 1]`.
        others: the function whose value to take.

    Returns:
        An array of the shape of `cosine`, in at least float32.

    Example:
        >>> import jax
        >>> def cost(cosine):
        ...     return straight_through_others(cosine, 1.0, others=li_arcface_others)
        >>> float(jax.grad(cost)(0.5))
        1.0

    References:
        Liu et al., "SphereFace Revived", TPAMI 2022, arXiv:2109.05565 (characteristic
        gradient detachment).
    """
    cosine = numerics.promote(cosine)
    return numerics.straight_through(others(cosine, target), cosine)
