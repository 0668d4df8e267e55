"""Random changes of images, on the device and under `jax.jit`.

Every function takes a key first and floating images `[batch, height, width, channels]`
whose background is 0, and is pure: the same key gives the same images.
"""

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["affine", "symmetry"]


def affine(
    key: Array,
    images: Array,
    *,
    rotation: float = 0.26,
    scale: float = 0.22,
    shear: float = 0.3,
    shift: float = 0.08,
    strength: float = 1.0,
) -> Array:
    """Each image under its own small random affine map, bilinearly resampled.

    Pixels that come from outside the image are 0.

    Args:
        key: a random key.
        images: `[batch, height, width, channels]`, floating.
        rotation: largest angle, in radians; uniform in `[-rotation, rotation]`.
        scale: each axis is scaled by `exp(u)` with u uniform in `[-scale, scale]`.
        shear: largest shear, in pixels down for each pixel to the right.
        shift: largest shift along each axis, as a share of the image's size.
        strength: multiplies the four ranges.

    Returns:
        Images of the same shape and dtype.

    Example:
        >>> images = jnp.ones((2, 8, 8, 1))
        >>> affine(jax.random.key(0), images).shape
        (2, 8, 8, 1)

    References:
        The ranges and their use on characters: Koch, Zemel and Salakhutdinov, "Siamese
        Neural Networks for One-shot Image Recognition", 2015, section 4.2.
    """
    batch, height, width, _ = images.shape
    u = strength * jax.random.uniform(key, (6, batch), images.dtype, -1.0, 1.0)
    angle, shear_x = rotation * u[0], shear * u[1]
    scale_y, scale_x = jnp.exp(scale * u[2]), jnp.exp(scale * u[3])
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    # The rows of scale @ rotation @ shear, which maps output to input coordinates.
    yy, yx = scale_y * cos, scale_y * (cos * shear_x - sin)
    xy, xx = scale_x * sin, scale_x * (sin * shear_x + cos)
    y = (jnp.arange(height) - (height - 1) / 2)[None, :, None]
    x = (jnp.arange(width) - (width - 1) / 2)[None, None, :]
    column = lambda v: v[:, None, None]  # noqa: E731
    source_y = column(yy) * y + column(yx) * x + column(shift * height * u[4])
    source_x = column(xy) * y + column(xx) * x + column(shift * width * u[5])
    return _bilinear(images, source_y + (height - 1) / 2, source_x + (width - 1) / 2)


def symmetry(images: Array, which: Array) -> Array:
    """Each square image under one of the eight symmetries of the square.

    Args:
        images: `[batch, size, size, channels]`.
        which: `[batch]` int: 0 to 3 for so many quarter turns counter-clockwise, 4 to 7
            for the mirror image (left to right) after 0 to 3 quarter turns.

    Returns:
        Images of the same shape.

    Raises:
        ValueError: if the images are not square.

    Example:
        >>> image = jnp.array([[1, 2], [3, 4]])[None, :, :, None]
        >>> symmetry(image, jnp.array([1]))[0, :, :, 0].tolist()
        [[2, 4], [1, 3]]
    """
    if images.shape[1] != images.shape[2]:
        raise ValueError(
            f"Expected square images, got shape {images.shape}; crop or resize them."
        )
    which = which[:, None, None, None]
    turned = jnp.where(which % 2 == 1, jnp.rot90(images, axes=(1, 2)), images)
    turned = jnp.where(which % 4 >= 2, turned[:, ::-1, ::-1], turned)
    return jnp.where(which >= 4, turned[:, :, ::-1], turned)


def _bilinear(images: Array, y: Array, x: Array) -> Array:
    """Values of images at real positions `[batch, height, width]`; 0 outside."""
    top, left = jnp.floor(y), jnp.floor(x)
    down, right = y - top, x - left
    top, left = top.astype(jnp.int32), left.astype(jnp.int32)
    upper = _lerp(_pixels(images, top, left), _pixels(images, top, left + 1), right)
    lower = _lerp(
        _pixels(images, top + 1, left), _pixels(images, top + 1, left + 1), right
    )
    return _lerp(upper, lower, down)


def _lerp(a: Array, b: Array, share: Array) -> Array:
    return a + share[..., None] * (b - a)


def _pixels(images: Array, y: Array, x: Array) -> Array:
    _, height, width, _ = images.shape
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    rows, columns = jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1)
    batch = jnp.arange(images.shape[0])[:, None, None]
    return jnp.where(inside[..., None], images[batch, rows, columns], 0)
