"""Margins that depend on the length of the embedding, or on how far training is."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from metricjax import numerics
from metricjax.margins._targets import Margin, angle

# AdaFace keeps the shifted angle this far inside of [0, pi], and divides by no less.
ADAFACE_GUARD = 1e-3


def adaface(cosine: ArrayLike, *, quality: ArrayLike, margin: ArrayLike = 0.4) -> Array:
    """AdaFace: `cos(theta - m z) - m (1 + z)`, with the quality `z` of the image.

    At `z = -1` it is ArcFace(m), at 0 CosFace(m), at 1 a negative angular margin with
    an additive one of 2 m. The shifted angle is clipped to [0.001, pi - 0.001].

    Args:
        cosine: target cosines, any shape.
        quality: `z` in [-1, 1]; see `adaface_quality`.
        margin: `m`.

    Returns:
        An array of the shape of `cosine`, in at least float32.

    Example:
        >>> [round(float(adaface(0.5, quality=z)), 4) for z in (-1.0, 0.0, 1.0)]
        [0.1233, 0.1, -0.0022]

    References:
        Kim et al., "AdaFace: Quality Adaptive Margin for Face Recognition", CVPR 2022,
        arXiv:2204.00964, eq. 18 and 19.
    """
    shifted = angle(numerics.promote(cosine)) - margin * quality
    shifted = jnp.clip(shifted, ADAFACE_GUARD, jnp.pi - ADAFACE_GUARD)
    return jnp.cos(shifted) - margin * (1.0 + quality)


def adaface_quality(
    norms: ArrayLike,
    *,
    mean: ArrayLike,
    std: ArrayLike,
    concentration: ArrayLike = 0.333,
) -> Array:
    """Length of an embedding as quality, `clip(h (|x| - mu) / (sigma + 0.001), -1, 1)`.

    Args:
        norms: `|x|`, any shape.
        mean: `mu` of the lengths; see `memory.NormStatistics`.
        std: `sigma` of the lengths.
        concentration: `h`; at 0.333 about two thirds of normally distributed lengths
            come to lie in [-0.333, 0.333].

    Returns:
        `z`, an array of the shape of `norms`, in at least float32.

    Example:
        >>> z = adaface_quality(jnp.array([10.0, 20.0, 50.0]), mean=20.0, std=10.0)
        >>> [round(float(v), 3) for v in z]
        [-0.333, 0.0, 0.999]

    References:
        Kim et al., "AdaFace", CVPR 2022, arXiv:2204.00964, eq. 17.
    """
    norms = numerics.promote(norms)
    mean, std = (jnp.asarray(v, norms.dtype) for v in (mean, std))
    return jnp.clip(concentration * (norms - mean) / (std + ADAFACE_GUARD), -1.0, 1.0)


def magface_margin(
    norms: ArrayLike,
    *,
    low_norm: ArrayLike = 10.0,
    high_norm: ArrayLike = 110.0,
    low_margin: ArrayLike = 0.45,
    high_margin: ArrayLike = 0.8,
) -> Array:
    """Angular margin that grows with the length of the embedding, linear and clipped.

    Args:
        norms: `|x|`, any shape.
        low_norm: length at which the margin is `low_margin`, as it is below.
        high_norm: length at which the margin is `high_margin`, as it is above.
        low_margin: in radians.
        high_margin: in radians.

    Returns:
        The margins, an array of the shape of `norms`, in at least float32.

    Example:
        >>> margins = magface_margin(jnp.array([1.0, 60.0, 200.0]))
        >>> [round(float(m), 3) for m in margins]
        [0.45, 0.625, 0.8]

    References:
        Meng et al., "MagFace: A Universal Representation for Face Recognition and
        Quality Assessment", CVPR 2021, arXiv:2103.06627; defaults of the authors' code.
    """
    low, high = jnp.asarray(low_margin), jnp.asarray(high_margin)
    norms = jnp.clip(numerics.promote(norms), low_norm, high_norm)
    share = (norms - low_norm) / (jnp.asarray(high_norm) - low_norm)
    return low + (high - low) * share


def annealed(cosine: ArrayLike, *, margin: Margin, annealing: ArrayLike) -> Array:
    """A margin mixed with none, `(lambda c + t(c)) / (1 + lambda)`.

    L-Softmax and SphereFace begin with a large lambda, that is without margin.

    Args:
        cosine: target cosines, any shape.
        margin: `t`, for instance `sphereface`.
        annealing: `lambda >= 0`; see `sphereface_annealing`.

    Returns:
        An array of the shape of `cosine`, in at least float32.

    Example:
        >>> from metricjax.margins import cosface
        >>> round(float(annealed(0.5, margin=cosface, annealing=4.0)), 4)
        0.43

    References:
        Liu et al., "Large-Margin Softmax Loss for Convolutional Neural Networks", ICML
        2016, arXiv:1612.02295 (optimisation).
    """
    cosine = numerics.promote(cosine)
    return jnp.asarray((annealing * cosine + margin(cosine)) / (1.0 + annealing))


def sphereface_annealing(
    step: ArrayLike,
    *,
    start: ArrayLike = 1000.0,
    decay: ArrayLike = 0.12,
    power: ArrayLike = 1.0,
    end: ArrayLike = 5.0,
) -> Array:
    """The SphereFace authors' lambda, `max(5, 1000 (1 + 0.12 step)^-1)`.

    Other schedules, of this or of a margin or a scale, are in `optax.schedules`; their
    values go in as they are.

    Args:
        step: of training, from 0.
        start: at step 0.
        decay: factor of the step.
        power: of the decay.
        end: which it doesn't fall below.

    Returns:
        `lambda`, in at least float32.

    Example:
        >>> [round(float(sphereface_annealing(i)), 2) for i in (0, 100, 28_000)]
        [1000.0, 76.92, 5.0]

    References:
        Liu et al., "SphereFace", CVPR 2017, arXiv:1704.08063, the authors' training
        configuration.
    """
    decayed = start / (1.0 + decay * numerics.promote(step)) ** power
    return jnp.maximum(decayed, end)
