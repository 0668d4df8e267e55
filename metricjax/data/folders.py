"""A folder of image files, one sub-folder for each identity."""

import pathlib
import struct

import numpy as np
from numpy.typing import NDArray

from metricjax.data import dataset

_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm"}
# The EXIF entry for orientation, and the Pillow transposition that undoes each value:
# 2, 4 mirrored; 3 upside down; 5, 7 mirrored and turned; 6, 8 turned.
_ORIENTATION = 0x0112
_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
_GREY_MODES = ("1", "L", "LA", "I")


def load(
    folder: pathlib.Path, *, size: tuple[int, int] | None = None
) -> dataset.Dataset:
    """The images of a folder; identities and files in the order of their names.

    The classes are the sub-folders; images may lie deeper inside them. Hidden files
    and files of other kinds are passed over. The images are grey if all files are, else
    colour. Pictures are turned upright by their EXIF orientation, and transparency is
    dropped.

    Args:
        folder: the folder that holds the sub-folders.
        size: (height, width) to stretch all images to; if None they must agree.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: if there is no such folder, or it has no sub-folder.
        ValueError: if a file is damaged, a sub-folder has no image, or sizes differ.
        ImportError: if Pillow is missing.
    """
    paths, labels, names = _listed(folder)
    images = [read(path, size=size) for path in paths]
    first = images[0].shape[:2]
    for path, image in zip(paths, images, strict=True):
        if image.shape[:2] != first:
            raise ValueError(
                f"Expected images of one size in {folder}, got {list(first)} in "
                f"{paths[0]} and {list(image.shape[:2])} in {path}; give a common size."
            )
    channels = max(image.shape[2] for image in images)
    out = np.empty((len(images), *first, channels), np.uint8)
    for row, image in zip(out, images, strict=True):
        row[...] = image
    return dataset.checked(out, np.array(labels), names, folder)


def read(
    path: pathlib.Path, *, size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """One image file, upright, as grey or colour bytes.

    Args:
        path: a file that Pillow reads.
        size: (height, width) to stretch the image to; its own if None.

    Returns:
        `[height, width, channels]` uint8, 1 channel if the file is grey, else 3.

    Raises:
        ValueError: if the file is not an image or is damaged.
        ImportError: if Pillow is missing.
    """
    image_module = dataset.import_pillow()
    # What Pillow raises for a file that is cut short, garbled or not an image
    # (UnidentifiedImageError is an OSError), or that claims to be gigantic.
    damage = (
        *(OSError, SyntaxError, EOFError, ValueError, IndexError, struct.error),
        image_module.DecompressionBombError,
    )
    try:
        with image_module.open(path) as file:
            image = _upright(_eight_bits(file, image_module), file.getexif())
    except damage as error:
        raise ValueError(
            f"Expected an image file in {path}, got: {error}; remove or replace it."
        ) from error
    if size is not None and (image.height, image.width) != size:
        image = dataset.shrunk(image, size)
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _upright(image, exif):
    """The image turned as its camera says.

    `ImageOps.exif_transpose` also writes the other EXIF entries anew, and fails on a
    good picture if one of them is odd.
    """
    turn = _TURNS.get(exif.get(_ORIENTATION))
    return image if turn is None else image.transpose(turn)


def _eight_bits(image, image_module):
    """A Pillow image in mode L or RGB."""
    if image.mode.startswith("I"):
        # 16-bit grey; Pillow's own conversion clips at 255 instead of scaling.
        values = np.asarray(image).astype(np.int64)
        return image_module.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8))
    return image.convert("L" if image.mode in _GREY_MODES else "RGB")


def _listed(
    folder: pathlib.Path,
) -> tuple[list[pathlib.Path], list[int], list[str]]:
    """Every image file with its label, and the names of the identities."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"Expected a folder of identities in {folder}, got no such folder."
        )
    identities = sorted(
        place
        for place in folder.iterdir()
        if place.is_dir() and not place.name.startswith(".")
    )
    if not identities:
        raise FileNotFoundError(
            f"Expected one sub-folder for each identity in {folder}, got none; put the "
            "images of a person or thing into a folder of its name."
        )
    paths, labels = [], []
    for label, identity in enumerate(identities):
        found = sorted(path for path in identity.rglob("*") if _is_image(path))
        if not found:
            kinds = ", ".join(sorted(_SUFFIXES))
            raise ValueError(
                f"Expected images ({kinds}) in {identity}, got none; remove the folder."
            )
        paths += found
        labels += [label] * len(found)
    return paths, labels, [identity.name for identity in identities]


def _is_image(path: pathlib.Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")
