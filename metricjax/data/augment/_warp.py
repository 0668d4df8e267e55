"""Maps of the plane: affine, elastic, symmetries, and resampling to another size."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from metricjax.data.augment._checks import check_images

# The side of the grid of random displacements that `elastic` makes smooth.
_GRID = 5


def affine(
    key: Array,
    images: Array,
    *,
    rotation: float = 0.26,
    scale: float | Sequence[float] = 0.22,
    shear: float = 0.3,
    shift: float | Sequence[float] = 0.08,
    elastic: float | Sequence[float] = 0.0,
    strength: float = 1.0,
    size: int | Sequence[int] | None = None,
) -> Array:
    """Each image under its own small random map, bilinearly resampled.

    The map is affine, plus a smooth random displacement where `elastic` is positive.
    Pixels that come from outside the image are 0. The axes of a spectrogram are not of
    one kind: `scale`, `shift` and `elastic` may be two numbers, for height and width.

    Args:
        key: a random key.
        images: `[batch, height, width, channels]`, floating.
        rotation: largest angle, in radians; uniform in `[-rotation, rotation]`.
        scale: each axis is scaled by `exp(u)` with u uniform in `[-scale, scale]`.
        shear: largest shear, in pixels down for each pixel to the right.
        shift: largest shift along each axis, as a share of the image's size.
        elastic: standard deviation of the displacements, as a share of half the
            image's size: normal noise on a grid of 5 x 5, resized by cubic
            interpolation. Plain numbers, not traced; 0.042 suits characters.
        strength: multiplies the five ranges.
        size: the new (height, width), or one number for both, reached by the same
            resampling; the whole image maps to the whole output, as in `resize`.

    Returns:
        Images `[batch, *size, channels]` of the same dtype.

    Raises:
        ValueError: if the images have another shape, `size` is not a size, or there
            are neither one nor two numbers where two may be.
        TypeError: if the images are not floating.

    Example:
        >>> images = jnp.ones((2, 8, 8, 1))
        >>> affine(jax.random.key(0), images, elastic=0.04, size=6).shape
        (2, 6, 6, 1)

    References:
        The ranges and their use on characters: Koch, Zemel and Salakhutdinov, "Siamese
        Neural Networks for One-shot Image Recognition", 2015, section 4.2. Elastic
        maps: Simard, Steinkraus and Platt, "Best Practices for Convolutional Neural
        Networks Applied to Visual Document Analysis", ICDAR 2003, section 2.
    """
    check_images(images)
    batch, height, width, _ = images.shape
    shape, dtype = _shape(size, images), _dtype(images)
    u = strength * jax.random.uniform(key, (6, batch), dtype, -1.0, 1.0)
    angle, shear_x = rotation * u[0], shear * u[1]
    high, wide = _both("scale", scale)
    scale_y, scale_x = jnp.exp(high * u[2]), jnp.exp(wide * u[3])
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    # The rows of scale @ rotation @ shear, which maps output to input coordinates.
    yy, yx = scale_y * cos, scale_y * (cos * shear_x - sin)
    xy, xx = scale_x * sin, scale_x * (sin * shear_x + cos)
    y, x = _centered(images, shape)
    column = lambda v: v[:, None, None]  # noqa: E731
    down, right = _both("shift", shift)
    source_y = column(yy) * y + column(yx) * x + column(down * height * u[4])
    source_x = column(xy) * y + column(xx) * x + column(right * width * u[5])
    elastic_y, elastic_x = _both("elastic", elastic)
    if elastic_y > 0 or elastic_x > 0:
        # A key of its own, so that `elastic` does not change the affine map.
        field = _field(jax.random.fold_in(key, 1), batch, shape, dtype)
        source_y += strength * elastic_y * height / 2 * field[..., 0]
        source_x += strength * elastic_x * width / 2 * field[..., 1]
    return _bilinear(images, source_y + (height - 1) / 2, source_x + (width - 1) / 2)


def resize(images: Array, size: int | Sequence[int]) -> Array:
    """Images resampled to another size, as `affine` does with a map that moves nothing.

    For evaluation after training with `affine(..., size=size)`. Pixel centers are
    mapped so that the whole image fills the whole output. There is no anti-aliasing,
    and what lies outside is 0, so that enlarging darkens the border.

    Args:
        images: `[batch, height, width, channels]`, floating.
        size: the new (height, width), or one number for both.

    Returns:
        Images `[batch, *size, channels]` of the same dtype.

    Raises:
        ValueError: if the images have another shape, or `size` is not a size.
        TypeError: if the images are not floating.

    Example:
        >>> resize(jnp.array([[1.0, 2.0], [3.0, 4.0]])[None, :, :, None], 1).item()
        2.5
    """
    check_images(images)
    batch, height, width, _ = images.shape
    shape = _shape(size, images)
    y, x = _centered(images, shape)
    every = (batch, *shape)
    y, x = y + (height - 1) / 2, x + (width - 1) / 2
    return _bilinear(images, jnp.broadcast_to(y, every), jnp.broadcast_to(x, every))


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
    last = images.shape[1] - 1
    which = which[:, None, None]
    place = jnp.arange(last + 1)
    row, column = place[None, :, None], place[None, None, :]
    # From each pixel back to its source. As one gather: a choice between turned copies
    # would be computed again for each of the four neighbours that `affine` reads.
    column = jnp.where(which >= 4, last - column, column)
    row, column = _where(which % 4 >= 2, (last - row, last - column), (row, column))
    row, column = _where(which % 2 == 1, (column, last - row), (row, column))
    return pixels(images, row, column)


def pixels(images: Array, rows: Array, columns: Array) -> Array:
    """The pixels of each image at its own rows and columns, of `[batch, ...]` each."""
    # Image by image, not with an index for the image too: the compiler then sees that
    # none needs another one, and leaves each on its device.
    return jax.vmap(lambda image, row, column: image[row, column])(
        images, rows, columns
    )


def _where(chosen: Array, these: tuple, those: tuple) -> tuple[Array, Array]:
    """A pair of arrays, chosen together."""
    return jnp.where(chosen, these[0], those[0]), jnp.where(chosen, these[1], those[1])


def _both(name: str, value: float | Sequence[float]) -> tuple[Any, Any]:
    """What holds for height and for width."""
    if not isinstance(value, Sequence):
        return value, value
    if len(value) != 2:
        raise ValueError(
            f"Expected `{name}` to be one number or (height, width), got {value!r}."
        )
    return value[0], value[1]


def _shape(size: int | Sequence[int] | None, images: Array) -> tuple[int, int]:
    """The (height, width) of the output."""
    if size is None:
        return images.shape[1], images.shape[2]
    shape = (size, size) if isinstance(size, int) else tuple(size)
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(
            f"Expected `size` to be one length or (height, width), got {size!r}."
        )
    return shape


def _centered(images: Array, shape: tuple[int, int]) -> tuple[Array, Array]:
    """The pixels of the output as offsets from the center of the image, in its pixels.

    Returns:
        y `[1, height, 1]` and x `[1, 1, width]`.
    """
    y, x = (
        (jnp.arange(new, dtype=_dtype(images)) - (new - 1) / 2) * (old / new)
        for new, old in zip(shape, images.shape[1:3], strict=True)
    )
    return y[None, :, None], x[None, None, :]


def _dtype(images: Array) -> jnp.dtype:
    """The dtype of positions, which half precision would misplace."""
    return jnp.dtype(jnp.float64 if images.dtype == jnp.float64 else jnp.float32)


def _field(key: Array, batch: int, shape: tuple[int, int], dtype) -> Array:
    """A smooth random field `[batch, *shape, 2]` of standard deviation about one."""
    noise = jax.random.normal(key, (batch, _GRID, _GRID, 2), dtype)
    return jax.image.resize(noise, (batch, *shape, 2), "cubic", antialias=False)


def _bilinear(images: Array, y: Array, x: Array) -> Array:
    """Values of images at real positions `[batch, height, width]`; 0 outside."""
    given, images = images.dtype, images.astype(_dtype(images))
    top, left = jnp.floor(y), jnp.floor(x)
    down, right = y - top, x - left
    top, left = top.astype(jnp.int32), left.astype(jnp.int32)
    upper = _lerp(_inside(images, top, left), _inside(images, top, left + 1), right)
    lower = _lerp(
        _inside(images, top + 1, left), _inside(images, top + 1, left + 1), right
    )
    return _lerp(upper, lower, down).astype(given)


def _lerp(a: Array, b: Array, share: Array) -> Array:
    return a + share[..., None] * (b - a)


def _inside(images: Array, y: Array, x: Array) -> Array:
    # Indexing: on XLA's CPU it took 0.3 ms for 128 images of 28 x 28, less than padding
    # and one flat take (0.35), all four neighbours in one take (0.5) or sums over all
    # pixels with bilinear weights (2 to 5).
    _, height, width, _ = images.shape
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    rows, columns = jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1)
    return jnp.where(inside[..., None], pixels(images, rows, columns), 0)
