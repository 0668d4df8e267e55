"""The idx files of MNIST and of the sets that copied its format, gzipped or not.

An idx file is big-endian: two zero bytes, a type code (8: uint8), the number of axes,
the length of each axis in 4 bytes, then the values.
"""

import gzip
import math
import pathlib
import zlib

import numpy as np
from numpy.typing import NDArray

from metricjax.data import dataset

NAMES = {
    "mnist": tuple("0123456789"),
    "fashion_mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
}

_PREFIX = {"train": "train", "test": "t10k"}

# The first labels of each set. Both have the same file names, so that a folder alone
# does not tell which of them it holds.
_FIRST_LABELS = {
    ("mnist", "train"): (5, 0, 4, 1, 9, 2, 1, 3),
    ("mnist", "test"): (7, 2, 1, 0, 4, 1, 4, 9),
    ("fashion_mnist", "train"): (9, 0, 0, 3, 0, 2, 7, 2),
    ("fashion_mnist", "test"): (9, 2, 1, 1, 6, 1, 4, 6),
}


def file_name(split: str) -> str:
    """The name of the image file of a split."""
    if split not in _PREFIX:
        raise ValueError(f"Expected split train or test, got {split!r}.")
    return f"{_PREFIX[split]}-images-idx3-ubyte.gz"


def find(name: str, folder: pathlib.Path, split: str) -> pathlib.Path | None:
    """The image file of a split in `folder/name` or in `folder`; None if neither."""
    for place in (folder / name, folder):
        path = _existing(place / file_name(split))
        if path is not None:
            return path
    return None


def load(name: str, images_path: pathlib.Path, split: str) -> dataset.Dataset:
    """A split of `mnist` or `fashion_mnist` from its image file and the label file.

    Args:
        name: "mnist" or "fashion_mnist".
        images_path: what `find` gave; the labels lie beside it.
        split: "train" or "test".

    Returns:
        The data set, in the order of the files.

    Raises:
        FileNotFoundError: if the label file is missing.
        ValueError: if a file is damaged, the files do not fit each other, or they
            hold the other of the two sets.
    """
    expected = images_path.parent / f"{_PREFIX[split]}-labels-idx1-ubyte.gz"
    labels_path = _existing(expected)
    if labels_path is None:
        raise FileNotFoundError(
            f"Expected the labels of {images_path} in {expected}, got no such file."
        )
    images, labels = read(images_path, axes=3), read(labels_path, axes=1)
    for (other, part), first in _FIRST_LABELS.items():
        if other != name and part == split and tuple(labels[:8]) == first:
            raise ValueError(
                f"Expected {name} in {images_path.parent}, got {other}; put the files "
                "into one folder for each set, named mnist and fashion_mnist."
            )
    source = f"{images_path} and {labels_path}"
    return dataset.checked(images, labels, NAMES[name], source)


def read(path: pathlib.Path, *, axes: int) -> NDArray[np.uint8]:
    """The array in an idx file of unsigned bytes.

    Args:
        path: the file; gzipped if its name ends in .gz.
        axes: how many axes the array must have.

    Returns:
        A uint8 array.

    Raises:
        ValueError: if the file is empty, truncated, too long, not idx, or of another
            type or number of axes.

    Example:
        >>> import tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "labels")
        >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]))
        >>> read(path, axes=1)
        array([7, 9], dtype=uint8)
    """
    content = _content(path)
    if content[:4] != bytes([0, 0, 8, axes]):
        raise ValueError(
            f"Expected an idx file of uint8 with {axes} axes in {path}, got a file "
            f"that starts with {content[:4].hex() or 'nothing'}; download it again."
        )
    start = 4 + 4 * axes
    lengths = [content[i : i + 4] for i in range(4, start, 4)]
    shape = [int.from_bytes(length, "big") for length in lengths]
    if len(content) - start != math.prod(shape):
        raise ValueError(
            f"Expected uint8 values of shape {shape} in {path}, got "
            f"{max(len(content) - start, 0)} bytes of them; download it again."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _content(path: pathlib.Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        with gzip.open(path) as file:
            return file.read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(
            f"Expected a whole gzip file in {path}, got: {error}; download it again."
        ) from error


def _existing(path: pathlib.Path) -> pathlib.Path | None:
    """This .gz file, or the same unpacked; None if neither exists."""
    for candidate in (path, path.with_suffix("")):
        if candidate.is_file():
            return candidate
    return None
