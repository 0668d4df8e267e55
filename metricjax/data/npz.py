"""Labelled images in one NumPy .npz file."""

import pathlib
import tokenize

import numpy as np

from metricjax.data import dataset

_CURE = "save it with np.savez_compressed(path, images=..., labels=...)."


def load(path: pathlib.Path) -> dataset.Dataset:
    """The arrays `images`, `labels` and `names` of an .npz file.

    `images` is `[n, height, width]` or `[n, height, width, channels]` uint8.
    `labels` is `[n]`: indices into `names` if that array is there, otherwise any
    integers or strings, which become the class names in sorted order. Without
    `labels`, the images are `[classes, examples, height, width(, channels)]`.

    Args:
        path: the file.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or its arrays do not fit.
    """
    arrays = _arrays(path)
    images = arrays["images"]
    if "labels" not in arrays:
        return _from_grid(images, arrays.get("names"), path)
    labels = arrays["labels"]
    if "names" in arrays:
        return dataset.checked(images, labels, _texts(arrays["names"]), path)
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise ValueError(
            f"Expected `labels` [n] of integers or strings in {path}, got "
            f"{labels.dtype}{list(labels.shape)}; give class indices, not one-hot rows."
        )
    names, indices = np.unique(labels, return_inverse=True)
    return dataset.checked(images, indices, _texts(names), path)


def _from_grid(
    images: np.ndarray, names: np.ndarray | None, path: pathlib.Path
) -> dataset.Dataset:
    if images.ndim not in (4, 5):
        raise ValueError(
            f"Expected `labels` beside `images` in {path}, or images [classes, "
            f"examples, height, width], got images of shape {list(images.shape)}."
        )
    classes, examples = images.shape[:2]
    labels = np.repeat(np.arange(classes), examples)
    texts = _texts(np.arange(classes) if names is None else names)
    return dataset.checked(images.reshape(-1, *images.shape[2:]), labels, texts, path)


def _arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"Expected an .npz file in {path}, got no such file.")
    keys = ("images", "labels", "names")
    with path.open("rb") as stream:
        try:
            file = np.load(stream, allow_pickle=False)
            found = {key: file[key] for key in keys if key in file.files}
        # The last three come from the headers of the arrays in the zip, and from a
        # file that holds a single array.
        except (
            *dataset.ZIP_DAMAGE,
            ValueError,
            tokenize.TokenError,
            AttributeError,
        ) as error:
            raise ValueError(
                f"Expected a whole .npz file of plain arrays in {path}, got: {error}; "
                f"{_CURE}"
            ) from error
    if "images" not in found:
        raise ValueError(
            f"Expected the arrays `images` and `labels` in {path}, got {file.files}; "
            f"{_CURE}"
        )
    return found


def _texts(names: np.ndarray) -> tuple[str, ...]:
    return tuple(str(name) for name in names.reshape(-1).tolist())
