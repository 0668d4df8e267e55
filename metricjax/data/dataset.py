"""The form in which every data set is delivered, and the checks at its boundary."""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# What zipfile raises for a damaged file. RuntimeError: a flipped bit asks for a
# password, or for a compression that does not exist. UnicodeDecodeError: in a name.
ZIP_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError),
    *(RuntimeError, UnicodeDecodeError),
)


class Dataset(NamedTuple):
    """Labelled images, or other things in the form of uint8 arrays.

    Attributes:
        images: `[n, height, width, channels]` uint8, with 1 or 3 channels; if they are
            streamed, what stands for such an array and is read when it is indexed. Of
            texts `[n, buckets]` uint8, the counts of `text.hashed_ngrams`, which
            `encoders.MLP` takes with `image_shape=(buckets,)`.
        labels: `[n]` int32, in `[0, len(names))`.
        names: the name of each class.
        extra: further values of each image, `[n]` each, by name.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]
    names: tuple[str, ...]
    extra: Mapping[str, NDArray[np.int32]] = MappingProxyType({})


def checked(
    images: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    source: object,
    *,
    vectors: bool = False,
) -> Dataset:
    """A `Dataset` of these arrays, or an error that names their source.

    Values are checked here because a jitted function cannot see them: a label out of
    range would be clamped or wrapped without a word.

    Args:
        images: `[n, height, width]` or `[n, height, width, channels]` uint8.
        labels: `[n]` int.
        names: the name of each class.
        source: the file or folder of the arrays, for messages.
        vectors: whether `images` are `[n, features]` instead.

    Returns:
        The data set, with an axis of channels and int32 labels.

    Raises:
        ValueError: if shapes, dtypes or label values are wrong.
    """
    if images.ndim == 3 and not vectors:
        images = images[..., None]
    if images.dtype != np.uint8:
        raise ValueError(
            f"Expected uint8 images in {source}, got {images.dtype}; scale them to "
            "0..255 and convert with images.astype(np.uint8)."
        )
    if vectors:
        if images.ndim != 2 or 0 in images.shape:
            raise ValueError(
                f"Expected vectors [n, features] in {source}, got shape "
                f"{list(images.shape)}."
            )
    elif images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
        raise ValueError(
            "Expected images [n, height, width] or [n, height, width, channels] with "
            f"1 or 3 channels in {source}, got shape {list(images.shape)}."
        )
    _check_labels(labels, len(images), len(names), source)
    return Dataset(images, labels.astype(np.int32), tuple(names))


def _check_labels(
    labels: np.ndarray, images: int, classes: int, source: object
) -> None:
    if labels.shape != (images,):
        raise ValueError(
            f"Expected one label for each of the {images} images in {source}, got "
            f"labels of shape {list(labels.shape)}; labels are class indices [n]."
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"Expected integer labels in {source}, got {labels.dtype}; convert with "
            "labels.astype(np.int32)."
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"Expected labels in [0, {classes}) in {source}, got values from "
            f"{labels.min()} to {labels.max()}; the file does not fit its class names."
        )


def resized(images: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Images stretched to one size.

    Shrinking by whole factors takes the mean of each block of pixels; any other
    change is bilinear, with anti-aliasing where it shrinks.

    Args:
        images: `[n, height, width, channels]` uint8 with 1 or 3 channels.
        size: the new (height, width).

    Returns:
        `[n, *size, channels]` uint8.

    Raises:
        ImportError: if Pillow is missing.

    Example:
        >>> image = np.array([[0, 200], [100, 100]], np.uint8)[None, :, :, None]
        >>> resized(image, (1, 1)).tolist()
        [[[[100]]]]
    """
    if images.shape[1:3] == size:
        return images
    image_module = import_pillow()
    channels = images.shape[3]
    out = np.empty((len(images), *size, channels), np.uint8)
    for row, pixels in zip(out, images, strict=True):
        image = image_module.fromarray(pixels[..., 0] if channels == 1 else pixels)
        row[...] = np.asarray(shrunk(image, size)).reshape(row.shape)
    return out


def shrunk(image, size: tuple[int, int]):
    """A Pillow image stretched to (height, width), by the rule of `resized`."""
    height, width = size
    if image.height % height == 0 and image.width % width == 0:
        return image.reduce((image.width // width, image.height // height))
    filters = import_pillow().Resampling
    return image.resize((width, height), filters.BILINEAR)


def import_pillow():
    """The module `PIL.Image`.

    Raises:
        ImportError: if Pillow is missing; the message says what to install.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "Expected the package pillow, which reads and resizes images; install it "
            'with: pip install "metricjax[train]"'
        ) from error
    return Image
