"""A folder of image files, one sub-folder for each identity, or any list of files."""

import pathlib

import numpy as np

from metricjax.data import dataset, image_files, pixels
from metricjax.data.image_files import Files

_SHOWN = 3


def load(
    folder: pathlib.Path,
    *,
    size: tuple[int, int] | None = None,
    stream: bool = False,
) -> dataset.Dataset:
    """The images of a folder; identities and files in the order of their names.

    The classes are the sub-folders; images may lie deeper inside them. Hidden files
    and files of other kinds are passed over. The images are grey if all files are, else
    colour. Pictures are turned upright by their EXIF orientation, and transparency is
    dropped. Large sets are decoded into a file once; see `pixels.decode`.

    Args:
        folder: the folder that holds the sub-folders.
        size: (height, width) to stretch all images to; if None they must agree.
        stream: decode the images whenever they are indexed; see `deferred.Rows`.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: if there is no such folder, or it has no sub-folder.
        ValueError: if a file is damaged, a sub-folder has no image, or sizes differ.
        ImportError: if Pillow is missing.
    """
    files = image_files.find_identities(folder)
    decoded = pixels.decode(files.paths, size=size, stream=stream)
    return assembled(files, decoded, folder)


def assembled(
    files: Files,
    decoded: pixels.Decoded,
    source: object,
    *,
    skip_bad: bool = False,
) -> dataset.Dataset:
    """The data set of decoded files.

    Args:
        files: named images.
        decoded: from `pixels.decode(files.paths)`.
        source: where they come from, for messages.
        skip_bad: go on without what cannot be used.

    Returns:
        The data set; classes are the names in their order, without those that have no
        image left.

    Raises:
        ValueError: if a file cannot be used, sizes differ, or nothing is left.
    """
    problems = (*files.problems, *decoded.problems)
    if problems and not skip_bad:
        more = f" ... and {len(problems) - _SHOWN} more." if problems[_SHOWN:] else ""
        raise ValueError(
            f"Expected images that can be read in {source}, got {len(problems)} "
            f"things that cannot be used: {' '.join(problems[:_SHOWN])}{more} Mend or "
            "remove them, or pass --skip-bad to train.py."
        )
    if not len(decoded.rows):
        raise ValueError(f"Expected an image that can be read in {source}, got none.")
    if decoded.images is None:
        raise ValueError(_unequal(files, decoded, source))
    names, labels = np.unique(
        [files.names[row] for row in decoded.rows], return_inverse=True
    )
    return dataset.checked(decoded.images, labels, names.tolist(), source)


def _unequal(files: Files, decoded: pixels.Decoded, source: object) -> str:
    other = int(np.flatnonzero((decoded.sizes != decoded.sizes[0]).any(axis=1))[0])
    first, second = decoded.sizes[[0, other]].tolist()
    paths = [files.paths[decoded.rows[row]] for row in (0, other)]
    return (
        f"Expected images of one size in {source}, got {first} in {paths[0]} and "
        f"{second} in {paths[1]}; give a common size (size=64, or --image-size 64 to "
        "train.py)."
    )
