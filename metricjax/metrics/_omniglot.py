"""The official one-shot runs of Omniglot and their baselines; public in `fewshot`."""

import pathlib
import zipfile
from os import PathLike
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from metricjax import _checks, numerics


class OneShotRuns(NamedTuple):
    """One-shot tasks: each query shows the same class as one support image."""

    support: np.ndarray  # bool [runs, classes, height, width], True where there is ink
    queries: np.ndarray  # bool [runs, queries, height, width]
    answers: np.ndarray  # int32 [runs, queries], the support image of each query


def read_omniglot_runs(path: str | PathLike[str]) -> OneShotRuns:
    """Read the official runs of Omniglot from `all_runs.zip` or the unpacked folder.

    Folders `run01`, `run02`, ... each hold `class_labels.txt` with one line
    `test_path training_path` for each query. Needs Pillow (extra `train`).

    Args:
        path: of the archive or folder.

    Returns:
        `OneShotRuns`, runs and images in the order of their names.

    Raises:
        ValueError: if there is no run, or one is not whole.
        FileNotFoundError: if an image that is named is missing.

    Example:
        >>> runs = read_omniglot_runs("all_runs.zip")  # doctest: +SKIP
        >>> runs.support.shape, runs.answers.shape  # doctest: +SKIP
        ((20, 20, 105, 105), (20, 20))

    References:
        Lake, Salakhutdinov & Tenenbaum, Science 2015; the files:
        https://github.com/brendenlake/omniglot
    """
    path = pathlib.Path(path)
    root = zipfile.Path(path) if path.is_file() else path
    folders = sorted(
        item.name for item in root.iterdir() if (item / "class_labels.txt").is_file()
    )
    if not folders:
        raise ValueError(
            f"Expected runs with a class_labels.txt in {path}, got none; pass "
            "all_runs.zip of Omniglot, or the folder that holds run01."
        )
    runs = [_read_run(root, name) for name in folders]
    shapes = {tuple(part.shape for part in run) for run in runs}
    if len(shapes) > 1:
        raise ValueError(
            f"Expected runs of one size in {path}, got {sorted(shapes)}; is a run cut "
            "short?"
        )
    return OneShotRuns(*map(np.stack, zip(*runs, strict=True)))


def _read_run(root: zipfile.Path | pathlib.Path, name: str) -> OneShotRuns:
    text = (root / name / "class_labels.txt").read_text(encoding="utf-8")
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if not lines or any(len(line) != 2 for line in lines):
        raise ValueError(
            f"Expected lines 'test_path training_path' in {name}/class_labels.txt, "
            f"got {text[:80]!r}."
        )
    answer = dict(lines)
    tests, classes = sorted(answer), sorted(set(answer.values()))
    places = {training: i for i, training in enumerate(classes)}
    return OneShotRuns(
        np.stack([_read_ink(root / item) for item in classes]),
        np.stack([_read_ink(root / item) for item in tests]),
        np.array([places[answer[item]] for item in tests], np.int32),
    )


def _read_ink(path: zipfile.Path | pathlib.Path) -> np.ndarray:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "Expected Pillow, which reads images, got none; "
            'install it with: pip install "metricjax[train]"'
        ) from error
    with path.open("rb") as file, Image.open(file) as image:
        return ~np.asarray(image.convert("1"))


def pixel_distances(x: ArrayLike, y: ArrayLike) -> Array:
    """Euclidean distance of two sets of images, pixel by pixel.

    Args:
        x: `[n, ...]`, bool or floating.
        y: `[m, ...]`, the same.

    Returns:
        `[n, m]`.

    Raises:
        ValueError: if images of the two sets differ in size.

    Example:
        >>> x = jnp.array([[[True, False], [False, False]]])
        >>> pixel_distances(x, ~x).tolist()
        [[2.0]]
    """
    x, y = (_as_float(side) for side in (x, y))
    x, y = (side.reshape(len(side), -1) for side in (x, y))
    _checks.check_same_dim("x", x, "y", y)
    squares = jnp.sum(x * x, axis=1)[:, None] + jnp.sum(y * y, axis=1)[None]
    return numerics.sqrt(squares - 2 * numerics.matmul(x, y.T))


def _as_float(images: ArrayLike) -> Array:
    images = jnp.asarray(images)
    if images.dtype == jnp.bool_:
        return images.astype(jnp.float32)
    return numerics.promote(images)


def modified_hausdorff(x: ArrayLike, y: ArrayLike) -> np.ndarray:
    """Modified Hausdorff distance of two sets of drawings; on the host.

    Of the ink A and B of two images, each moved so that its mean is at the origin:
    `max(mean_a min_b |a - b|, mean_b min_a |a - b|)`, in pixels.

    Args:
        x: bool `[n, height, width]`, True where there is ink.
        y: bool `[m, height, width]`.

    Returns:
        `[n, m]` float64; infinite where one image has no ink.

    Raises:
        ValueError: if an array is not a stack of images.
        TypeError: if a dtype is not bool.

    Example:
        >>> x = np.zeros((2, 4, 4), bool)
        >>> x[0, 0, :2] = x[1, 3, 1:3] = True
        >>> modified_hausdorff(x[:1], x).tolist()
        [[0.0, 0.0]]

    References:
        Dubuisson & Jain, "A Modified Hausdorff Distance for Object Matching", ICPR
        1994, distance D22; centring as in the Omniglot demo of Lake et al.
    """
    left, right = (
        [_centred(image) for image in _drawings(name, images)]
        for name, images in (("x", x), ("y", y))
    )
    return np.array([[_hausdorff(a, b) for b in right] for a in left])


def _drawings(name: str, images: ArrayLike) -> np.ndarray:
    images = np.asarray(images)
    if images.ndim != 3:
        raise ValueError(
            f"Expected `{name}` of shape [images, height, width], got "
            f"{_checks.describe(images)}."
        )
    _checks.check_mask(name, images, images.shape)
    return images


def _centred(image: np.ndarray) -> np.ndarray:
    """Coordinates of the ink `[points, 2]`, with their mean at the origin."""
    points = np.argwhere(image)
    if not len(points):
        return points.astype(np.float32)
    return (points - points.mean(axis=0)).astype(np.float32)


def _hausdorff(a: np.ndarray, b: np.ndarray) -> float:
    if not (len(a) and len(b)):
        return float("inf")
    # In place: with a new array for each step this takes ten times as long.
    squares = a[:, :1] - b[:, 0]
    squares *= squares
    rest = a[:, 1:] - b[:, 1]
    rest *= rest
    squares += rest
    nearest = squares.min(axis=1), squares.min(axis=0)
    return float(max(np.sqrt(side).mean(dtype=np.float64) for side in nearest))
