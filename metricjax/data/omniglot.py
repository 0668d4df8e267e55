"""Omniglot: 1,623 handwritten characters of 50 alphabets, 20 drawers each.

Lake, Salakhutdinov and Tenenbaum, "Human-level concept learning through probabilistic
program induction", Science 350(6266), 2015.
"""

import pathlib
import re
import struct
import zipfile
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metricjax.data import dataset, tfds

_ZIPS = {
    "train": "images_background",
    "test": "images_evaluation",
    "small1": "images_background_small1",
    "small2": "images_background_small2",
}
_MEMBER = re.compile(r"(?:.*/)?([^/]+)/(character\d+)/\d+_(\d+)\.png")
_SIDE = 105


def file_name(split: str) -> str:
    """The name of the zip of a split."""
    if split not in _ZIPS:
        raise ValueError(
            f"Expected a split of omniglot, one of {', '.join(_ZIPS)}, got {split!r}."
        )
    return f"{_ZIPS[split]}.zip"


def find(name: str, folder: pathlib.Path, split: str) -> pathlib.Path | None:
    """The zip of a split in `folder/name` or in `folder`; None if neither has it."""
    for place in (folder / name, folder):
        path = place / file_name(split)
        if path.is_file():
            return path
    return None


def load(name: str, path: pathlib.Path, split: str) -> dataset.Dataset:
    """The characters in one of the zips, 105 x 105, ink 255 on 0.

    Classes are characters, named "Alphabet/character01", in the order of their names.
    `extra` holds `alphabet`, an index into the alphabets in the order of their names,
    and `drawer`, 1 to 20, as in the file names.

    Args:
        name: "omniglot", for messages.
        path: what `find` gave.
        split: the split, for messages.

    Returns:
        The data set.

    Raises:
        ValueError: if the zip or an image in it is damaged.
        ImportError: if Pillow is missing.
    """
    image_module = dataset.import_pillow()
    try:
        with zipfile.ZipFile(path) as file:
            members = sorted(n for n in file.namelist() if _MEMBER.fullmatch(n))
            images = np.empty((len(members), _SIDE, _SIDE), np.uint8)
            for out, member in zip(images, members, strict=True):
                with file.open(member) as stream, image_module.open(stream) as image:
                    out[...] = _ink(image, f"{path}/{member}")
    # The last two: a PNG with a broken header.
    except (*dataset.ZIP_DAMAGE, SyntaxError, struct.error) as error:
        raise ValueError(
            f"Expected a whole zip of PNG images in {path}, got: {error}; download it "
            "again."
        ) from error
    if not members:
        raise ValueError(
            f"Expected the {split} images of {name}, Alphabet/character01/0001_01.png "
            f"and so on, in {path}, got none; download it again."
        )
    return _labelled(images, members, path)


def load_prepared(
    name: str, folder: pathlib.Path | None, split: str
) -> dataset.Dataset:
    """The same characters from a prepared TensorFlow data set.

    Those carry no drawer and no name of the alphabet: classes are named "7/12", the
    12th character (from 0) of alphabet 7, and `extra` holds `alphabet` alone.

    Args:
        name: the name in TensorFlow Datasets.
        folder: where it was prepared; None for its default place.
        split: as in `load`.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: if it was not prepared.
        ImportError: if TensorFlow Datasets is missing.
    """
    keys = ("alphabet", "alphabet_char_id")
    found = tfds.load(name, folder, split, extra=keys)
    pairs = np.stack([found.extra[key] for key in keys], axis=1)
    characters, labels = np.unique(pairs, axis=0, return_inverse=True)
    return dataset.checked(
        255 - found.images[..., :1],
        labels.reshape(-1),
        [f"{alphabet}/{character}" for alphabet, character in characters.tolist()],
        name,
    )._replace(extra={"alphabet": pairs[:, 0].astype(np.int32)})


def _ink(image, source: str) -> NDArray[np.uint8]:
    """The image with ink 255: in the files ink is the 0 of a 1-bit image."""
    if image.size != (_SIDE, _SIDE) or image.mode not in ("1", "L"):
        raise ValueError(
            f"Expected a {_SIDE} x {_SIDE} grey image in {source}, got {image.size} in "
            f"mode {image.mode}; download the zip again."
        )
    return 255 - np.asarray(image.convert("L"))


def _labelled(
    images: NDArray[np.uint8], members: Sequence[str], path: pathlib.Path
) -> dataset.Dataset:
    found = [match.groups() for match in map(_MEMBER.fullmatch, members) if match]
    alphabets, characters, drawers = zip(*found, strict=True)
    full_names = [f"{a}/{c}" for a, c in zip(alphabets, characters, strict=True)]
    names, labels = np.unique(full_names, return_inverse=True)
    _, alphabet_ids = np.unique(alphabets, return_inverse=True)
    extra = {
        "alphabet": alphabet_ids.astype(np.int32),
        "drawer": np.array(drawers, np.int32),
    }
    return dataset.checked(images, labels, names.tolist(), path)._replace(extra=extra)
