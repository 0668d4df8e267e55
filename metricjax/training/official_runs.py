"""The official one-shot runs of Omniglot: where they are, and how an encoder does.

    runs = official_runs.find(data_dir)
    if runs is not None:
        official_runs.error(runs, embed, size=35)

They are for the last figure alone: nothing is learned on them, and nothing chosen.
"""

import os
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from metricjax import similarities
from metricjax.data import dataset
from metricjax.metrics import fewshot
from metricjax.training.evaluate import Similarity

__all__ = ["error", "find", "images"]

_FILE = "all_runs.zip"


def find(
    data_dir: str | os.PathLike[str] | None = None,
) -> fewshot.OneShotRuns | None:
    """Read the runs, if their file is in the folder of raw data files.

    Args:
        data_dir: the folder, which has `omniglot/all_runs.zip` or `all_runs.zip`;
            METRICJAX_DATA_DIR by default.

    Returns:
        The runs, or None if there is no such file.

    Raises:
        ValueError: if the file is damaged.

    Example:
        >>> import tempfile
        >>> find(tempfile.mkdtemp()) is None
        True
    """
    folder = Path(data_dir or os.environ.get("METRICJAX_DATA_DIR") or ".")
    for place in (folder / "omniglot", folder):
        if (place / _FILE).is_file():
            return fewshot.read_omniglot_runs(place / _FILE)
    return None


def images(ink: np.ndarray, *, size: int | None = None) -> np.ndarray:
    """Drawings of the runs as images of the data set: bytes, ink 255 on 0.

    Args:
        ink: bool `[runs, n, height, width]`, the `support` or `queries` of the runs.
        size: the new side in pixels, reached as `data.load` does.

    Returns:
        `[runs * n, size, size, 1]` uint8.

    Example:
        >>> images(np.ones((2, 3, 4, 4), bool)).shape
        (6, 4, 4, 1)
    """
    found = np.where(ink, 255, 0).astype(np.uint8)
    found = found.reshape(-1, *found.shape[2:], 1)
    return found if size is None else dataset.resized(found, (size, size))


def error(
    runs: fewshot.OneShotRuns,
    embed: Callable[[np.ndarray], np.ndarray],
    *,
    size: int | None = None,
    similarity: Similarity = similarities.cosine,
) -> float:
    """The error that papers report: each image answered on its own, mean of the runs.

    Args:
        runs: from `find`.
        embed: of images `[n, size, size, 1]` uint8, their embeddings `[n, dim]`.
        size: the side of the images that it sees; by default that of the files.
        similarity: `(x [n, dim], y [m, dim]) -> [n, m]`, larger is closer.

    Returns:
        The share of wrong answers; ties share the answer evenly.

    Example:
        >>> ink = np.eye(4, dtype=bool).reshape(1, 4, 2, 2)
        >>> runs = fewshot.OneShotRuns(ink, ink, np.array([[0, 1, 2, 2]]))
        >>> error(runs, lambda x: x.reshape(len(x), -1).astype(np.float32))
        0.25
    """
    count = len(runs.answers)
    queries, support = (
        jnp.asarray(embed(images(part, size=size)))
        for part in (runs.queries, runs.support)
    )
    scores = [
        similarity(asked, known)
        for asked, known in zip(
            queries.reshape(count, -1, queries.shape[-1]),
            support.reshape(count, -1, support.shape[-1]),
            strict=True,
        )
    ]
    return float(jnp.mean(fewshot.one_shot_error(jnp.stack(scores), runs.answers)))
