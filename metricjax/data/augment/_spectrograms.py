"""Masked stretches of time and bands of frequency, for pictures of sounds."""

import jax
import jax.numpy as jnp
from jax import Array

from metricjax.data.augment._checks import check_images


def time_mask(key: Array, images: Array, *, width: int, masks: int = 2) -> Array:
    """Each spectrogram with random stretches of time set to 0.

    Args:
        key: a random key.
        images: `[batch, frequencies, frames, channels]`, floating.
        width: the largest length of a stretch in frames; each is uniform in
            `[0, width]`, at a uniform place that has room for it.
        masks: how many stretches; they may overlap.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: if the images have another shape, or fewer than `width` frames.
        TypeError: if they are not floating.

    Example:
        >>> images = jnp.ones((1, 2, 6, 1))
        >>> time_mask(jax.random.key(1), images, width=3)[0, :, :, 0].tolist()
        [[0.0, 0.0, 0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]]

    References:
        Park, Chan, Zhang, Chiu, Zoph, Cubuk and Le, "SpecAugment: A Simple Data
        Augmentation Method for Automatic Speech Recognition", Interspeech 2019,
        arXiv:1904.08779, section 2; its time warping is left out, and its bound on
        the share of masked time is the caller's choice of `width` and `masks`.
    """
    return _masked(key, images, 2, width, masks)


def frequency_mask(key: Array, images: Array, *, width: int, masks: int = 2) -> Array:
    """Each spectrogram with random bands of frequencies set to 0.

    Args:
        key: a random key.
        images: `[batch, frequencies, frames, channels]`, floating.
        width: the largest width of a band in rows; each is uniform in `[0, width]`, at
            a uniform place that has room for it.
        masks: how many bands; they may overlap.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: if the images have another shape, or fewer than `width` rows.
        TypeError: if they are not floating.

    Example:
        >>> images = jnp.ones((1, 6, 1, 1))
        >>> frequency_mask(jax.random.key(1), images, width=3)[0, :, 0, 0].tolist()
        [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]

    References:
        Park et al., "SpecAugment", Interspeech 2019, arXiv:1904.08779, section 2.
    """
    return _masked(key, images, 1, width, masks)


def _masked(key: Array, images: Array, axis: int, width: int, masks: int) -> Array:
    """Images with random stretches along an axis set to 0."""
    check_images(images)
    size = images.shape[axis]
    if not 0 <= width <= size or masks < 0:
        raise ValueError(
            f"Expected `width` in [0, {size}] and `masks` of at least 0 for images of "
            f"shape {list(images.shape)}, got {width!r} and {masks!r}."
        )
    width_key, start_key = jax.random.split(key)
    shape = (images.shape[0], masks, 1)
    lengths = jax.random.randint(width_key, shape, 0, width + 1)
    starts = jax.random.randint(start_key, shape, 0, size - lengths + 1)
    places = jnp.arange(size)[None, None]
    masked = jnp.any((places >= starts) & (places < starts + lengths), axis=1)
    other = 3 - axis
    return jnp.where(jnp.expand_dims(masked, (other, 3)), 0, images)
