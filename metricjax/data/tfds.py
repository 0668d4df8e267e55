"""Data sets that were prepared by TensorFlow Datasets.

To prepare one downloads its files and needs TensorFlow (`pip install tensorflow`):

    import tensorflow_datasets as tfds

    builder = tfds.builder("kmnist", data_dir="DIR", file_format="array_record")
    builder.download_and_prepare()

To read it here needs neither: `data.load("tfds:kmnist", data_dir="DIR")`.

Without a network, put the files that the builder would download into a folder, under
the names that they have in their addresses, and give it as the manual folder:

    config = tfds.download.DownloadConfig(manual_dir="FOLDER")
    builder.download_and_prepare(download_config=config)

Every file must have the size and the hash that are registered with the builder, or it
is refused (`NonMatchingChecksumError`). The prepared folder can also be made on another
machine and copied: `DIR/kmnist` is all there is to it.

The images of `emnist` are transposed, as in the files of its authors.
"""

import importlib
import pathlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metricjax.data import dataset


def load(
    name: str,
    folder: pathlib.Path | None,
    split: str,
    *,
    size: tuple[int, int] | None = None,
    extra: Sequence[str] = (),
) -> dataset.Dataset:
    """A split of a prepared data set that has the features `image` and `label`.

    Images of one bit, which the decoders give as 0 and 1 or as 0 and 255, come out as
    0 and 255.

    Args:
        name: as in `tfds.data_source`, "name" or "name/config:version".
        folder: where to look before the default place of TensorFlow Datasets.
        split: its name, or a slice such as "train[:1000]".
        size: (height, width) to stretch all images to; if None they must agree.
        extra: further integer features to keep.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: if it was not prepared; the message says how to.
        ImportError: if TensorFlow Datasets is missing.
        ValueError: if there is no such data set, or its features do not fit.
    """
    source, features = _opened(name, folder, split)
    missing = {"image", "label", *extra} - set(features)
    if missing:
        raise ValueError(
            f"Expected the features image and label in tfds:{name}, got "
            f"{sorted(features)}; save it as .npz and load npz:PATH instead."
        )
    images, columns = _read(source, ("label", *extra), size, name)
    if images.size and images.max() <= 1:
        images *= 255
    names = getattr(features["label"], "names", None)
    if names is None:
        names = [str(value) for value in range(columns["label"].max(initial=-1) + 1)]
    found = dataset.checked(images, columns["label"], names, f"tfds:{name}")
    return found._replace(extra={key: columns[key] for key in extra})


def _opened(name: str, folder: pathlib.Path | None, split: str):
    """The random-access source and the features of a prepared data set.

    It is looked for in the folder, then in the default place.
    """
    tfds = _module()
    for place in dict.fromkeys((folder, None)):
        try:
            source = tfds.data_source(name, split=split, data_dir=place, download=False)
            return source, tfds.builder(name, data_dir=place).info.features
        except tfds.core.DatasetNotFoundError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"Expected a name of TensorFlow Datasets, got {name!r}: {reason}"
            ) from error
        # KeyError: no such split, or none at all. NotImplementedError: prepared in a
        # format without random access, or not at all.
        except (KeyError, NotImplementedError):
            continue
    place = f', data_dir="{folder}"' if folder else ""
    raise FileNotFoundError(
        f"Expected split {split!r} of a prepared tfds:{name} in the format "
        "array_record, got none. To prepare it (this needs TensorFlow): "
        f'tfds.builder("{name}", file_format="array_record"{place})'
        ".download_and_prepare()"
    )


def _module():
    try:
        return importlib.import_module("tensorflow_datasets")
    except ImportError as error:
        raise ImportError(
            "Expected the package tensorflow-datasets; install it with: "
            'pip install "metricjax[train]"'
        ) from error


def _read(
    source, keys: Sequence[str], size: tuple[int, int] | None, name: str
) -> tuple[np.ndarray, dict[str, NDArray[np.int32]]]:
    """All images in one array, and the other features as columns."""
    columns = {key: np.empty(len(source), np.int32) for key in keys}
    images = np.empty(0, np.uint8)
    for i in range(len(source)):
        example = source[i]
        image = np.asarray(example["image"])
        if size is not None:
            image = dataset.resized(image[None], size)[0]
        if i == 0:
            images = np.empty((len(source), *image.shape), image.dtype)
        if image.shape != images.shape[1:]:
            raise ValueError(
                f"Expected images of one shape in tfds:{name}, got "
                f"{list(images.shape[1:])} and {list(image.shape)}; give a common size."
            )
        images[i] = image
        for key, column in columns.items():
            column[i] = example[key]
    return images, columns
