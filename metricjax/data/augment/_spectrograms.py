"""Masks, another room's sound and its noise, for pictures of sounds."""

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


def equalize(
    key: Array, images: Array, *, deviation: float = 0.1, knots: int = 5
) -> Array:
    """Each spectrogram as through another microphone: `x + gain(frequency)`.

    On a logarithmic scale a filter is a sum. The gain is normal noise at `knots`
    frequencies with cubic interpolation between them. Levels are clipped to `[0, 1]`;
    silence, which is 0, stays 0.

    Args:
        key: a random key.
        images: `[batch, frequencies, frames, channels]`, floating, in 0..1.
        deviation: standard deviation of the gain, as a share of the range of levels:
            0.1 is 6 dB where the range is 60 dB.
        knots: how many frequencies, evenly spread.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: if the images have another shape.
        TypeError: if they are not floating.

    Example:
        >>> images = jnp.full((1, 3, 2, 1), 0.5)
        >>> changed = equalize(jax.random.key(0), images)
        >>> bool((changed[..., 0, :] == changed[..., 1, :]).all())
        True

    References:
        After Nam, Kim and Park, "FilterAugment: An Acoustic Environmental Data
        Augmentation Method", ICASSP 2022, arXiv:2110.03282, with a smooth gain.
    """
    check_images(images)
    gain = deviation * _curve(key, images, knots)
    changed = jnp.clip(images + gain.astype(images.dtype), 0, 1)
    return jnp.where(images > 0, changed, 0)


def noise(
    key: Array,
    images: Array,
    *,
    level: float = 0.4,
    tilt: float = 0.1,
    deviation: float = 0.05,
    knots: int = 4,
) -> Array:
    """Each spectrogram in a room with a noise of its own: `max(x, noise)`.

    The sum of two sounds is on a logarithmic scale nearly the louder of them. The noise
    has a level, uniform in `[-0.3 level, level]`, so that a quarter of the images have
    hardly any; a color, normal at `knots` frequencies with cubic interpolation;
    and normal noise in each pixel. It is clipped to `[0, 1]`.

    Args:
        key: a random key.
        images: `[batch, frequencies, frames, channels]`, floating, in 0..1.
        level: the largest level of the noise, as a share of the range of levels.
        tilt: standard deviation of the color.
        deviation: standard deviation from pixel to pixel.
        knots: how many frequencies, evenly spread.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: if the images have another shape.
        TypeError: if they are not floating.

    Example:
        >>> images = jnp.full((4, 6, 5, 1), 0.2)
        >>> changed = noise(jax.random.key(0), images)
        >>> bool((changed >= images).all()), bool((changed > images).any())
        (True, True)

    References:
        That the louder sound is what is seen: Roweis, "Factorial models and
        refiltering for speech separation and denoising", Eurospeech 2003. Levels and
        colors are our own.
    """
    check_images(images)
    level_key, tilt_key, pixel_key = jax.random.split(key, 3)
    dtype = _dtype(images)
    shape = (images.shape[0], 1, 1, 1)
    heights = jax.random.uniform(level_key, shape, dtype, -0.3 * level, level)
    color = tilt * _curve(tilt_key, images, knots)
    pixels = deviation * jax.random.normal(pixel_key, images.shape, dtype)
    heard = jnp.clip(heights + color + pixels, 0, 1)
    return jnp.maximum(images, heard.astype(images.dtype))


def _curve(key: Array, images: Array, knots: int) -> Array:
    """Smooth normal noise over frequency, `[batch, frequencies, 1, 1]`."""
    batch, rows = images.shape[:2]
    points = jax.random.normal(key, (batch, knots), _dtype(images))
    curve = jax.image.resize(points, (batch, rows), "cubic", antialias=False)
    return curve[:, :, None, None]


def _dtype(images: Array) -> jnp.dtype:
    """The dtype of what is drawn, which half precision would make coarse."""
    return jnp.dtype(jnp.float64 if images.dtype == jnp.float64 else jnp.float32)


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
