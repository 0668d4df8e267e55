"""Shifted crops, mirror images and colours, for photos."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from metricjax import numerics
from metricjax.data.augment._checks import check_images
from metricjax.data.augment._warp import pixels

# ITU-R BT.601: the share of red, green and blue in the brightness of a pixel.
_LUMA = (0.299, 0.587, 0.114)


def crop(key: Array, images: Array, *, pad: int = 4, reflect: bool = False) -> Array:
    """Each image padded on all sides, then cut back to its size at a random place.

    The same as a shift by a whole number of pixels, uniform in `[-pad, pad]` along each
    axis.

    Args:
        key: a random key.
        images: `[batch, height, width, channels]`, floating.
        pad: the padding in pixels.
        reflect: whether the padding mirrors the image, without repeating its border;
            otherwise it is 0.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: if the images have another shape, or are too small for the padding.
        TypeError: if they are not floating.

    Example:
        >>> images = jnp.arange(3.0).reshape(1, 1, 3, 1)
        >>> crop(jax.random.key(0), images, pad=0)[0, 0, :, 0].tolist()
        [0.0, 1.0, 2.0]

    References:
        He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", CVPR
        2016, arXiv:1512.03385, section 4.2 (4 pixels of zeros, and `flip`).
    """
    check_images(images)
    batch, height, width, _ = images.shape
    if not 0 <= pad < min(height, width):
        raise ValueError(
            f"Expected `pad` in [0, {min(height, width)}) for images of {height} x "
            f"{width}, got {pad!r}; shift by less than the image's size."
        )
    down, right = jax.random.randint(key, (2, batch, 1), -pad, pad + 1)
    rows, columns = jnp.arange(height)[None] + down, jnp.arange(width)[None] + right
    if reflect:
        rows, columns = _reflected(rows, height), _reflected(columns, width)
        return pixels(images, rows[:, :, None], columns[:, None, :])
    inside_rows = (rows >= 0) & (rows < height)
    inside_columns = (columns >= 0) & (columns < width)
    inside = inside_rows[:, :, None, None] & inside_columns[:, None, :, None]
    rows, columns = jnp.clip(rows, 0, height - 1), jnp.clip(columns, 0, width - 1)
    found = pixels(images, rows[:, :, None], columns[:, None, :])
    return jnp.where(inside, found, 0)


def flip(key: Array, images: Array) -> Array:
    """Each image mirrored left to right, or not, with probability one half.

    Args:
        key: a random key.
        images: `[batch, height, width, channels]`, floating.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: if the images have another shape.
        TypeError: if they are not floating.

    Example:
        >>> images = jnp.tile(jnp.array([[1.0, 2.0]]), (4, 1))[:, None, :, None]
        >>> flip(jax.random.key(0), images)[:, 0, :, 0].tolist()
        [[1.0, 2.0], [1.0, 2.0], [2.0, 1.0], [2.0, 1.0]]
    """
    check_images(images)
    mirrored = jax.random.bernoulli(key, shape=(images.shape[0], 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def color(
    key: Array,
    images: Array,
    *,
    brightness: ArrayLike = 0.4,
    contrast: ArrayLike = 0.4,
    saturation: ArrayLike = 0.4,
) -> Array:
    """Each image with its own brightness, contrast and saturation, in this order.

    With grey(x) the brightness of each pixel and factors b, c, s, each uniform in
    `[max(0, 1 - range), 1 + range]` of its range:
    `x = b x`, `x = m + c (x - m)` with m the mean of grey(x) over the image,
    `x = grey(x) + s (x - grey(x))`, and last the values are cut off at 0 and 1.

    Args:
        key: a random key.
        images: `[batch, height, width, channels]`, floating in 0..1; red, green and
            blue, or one grey channel, which has no saturation.
        brightness: range of the factor of brightness, at least 0.
        contrast: range of the factor of contrast, at least 0.
        saturation: range of the factor of saturation, at least 0.

    Returns:
        Images of the same shape and dtype, in 0..1.

    Raises:
        ValueError: if the images have another shape or number of channels.
        TypeError: if they are not floating.

    Example:
        >>> images = jnp.full((1, 2, 2, 3), 0.5)
        >>> changed = color(jax.random.key(0), images, brightness=0.0)
        >>> bool(jnp.allclose(changed, 0.5))
        True

    References:
        The ranges: Chen, Kornblith, Norouzi and Hinton, "A Simple Framework for
        Contrastive Learning of Visual Representations", ICML 2020, arXiv:2002.05709,
        appendix A, at strength 0.5. Its changes of hue, and the random order of the
        steps, are left out.
    """
    check_images(images)
    if images.shape[3] not in (1, 3):
        raise ValueError(
            "Expected `images` with 1 or 3 channels, got shape "
            f"{list(images.shape)}; colours are red, green and blue."
        )
    keys = jax.random.split(key, 3)
    b, c, s = (
        _factor(one, images, spread)
        for one, spread in zip(keys, (brightness, contrast, saturation), strict=True)
    )
    # The three steps at once, since all of them, grey(x) and the mean are linear. As
    # steps, or with the mean taken of grey(x), XLA on the CPU computes what made the
    # images several times over: 8 to 9 ms, not 1.2, after `affine` of 128 photos.
    grey = _grey(images)
    mean = _grey(jnp.mean(images, axis=(1, 2), keepdims=True))
    changed = b * c * (s * images + (1 - s) * grey) + b * (1 - c) * mean
    return jnp.clip(changed, 0.0, 1.0)


def _reflected(index: Array, size: int) -> Array:
    """Indices beyond either end, mirrored at the pixel of that end."""
    index = jnp.abs(index)
    return jnp.where(index >= size, 2 * (size - 1) - index, index)


def _grey(images: Array) -> Array:
    """The brightness of each pixel, `[batch, height, width, 1]`."""
    if images.shape[3] == 1:
        return images
    luma = jnp.array(_LUMA, images.dtype)
    grey = jnp.einsum("bhwc,c->bhw", images, luma, precision=numerics.HIGHEST)
    return grey[..., None]


def _factor(key: Array, images: Array, spread: ArrayLike) -> Array:
    """A random factor about 1 for each image, `[batch, 1, 1, 1]`."""
    spread = jnp.asarray(spread, images.dtype)
    shape = (images.shape[0], 1, 1, 1)
    low = jnp.maximum(1 - spread, 0)
    return jax.random.uniform(key, shape, images.dtype, low, 1 + spread)
