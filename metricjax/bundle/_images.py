"""Image files as an encoder sees them, with one plain sentence for each bad one."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metricjax.bundle._bundle import Bundle, Embed, embedder
from metricjax.data import dataset, image_files
from metricjax.data.image_files import Files

BATCH = 64


class Embedded(NamedTuple):
    """Embeddings of image files.

    Attributes:
        embeddings: `[n, dim]` float32, unit vectors.
        paths: the file of each.
        names: the identity of each.
        problems: one sentence for each file that has no embedding.
    """

    embeddings: np.ndarray
    paths: tuple[Path, ...]
    names: tuple[str, ...]
    problems: tuple[str, ...]


def read_image(
    path: str | os.PathLike[str], image_shape: tuple[int, int, int]
) -> np.ndarray:
    """One image file as an encoder sees it.

    Turned upright by its EXIF orientation, stretched to the size, grey or colour as
    the encoder wants. What a file is, is told by its content, not by its suffix.

    Args:
        path: the file.
        image_shape: `(height, width, channels)` with 1 or 3 channels.

    Returns:
        `[height, width, channels]` uint8.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no image, is damaged, or is gigantic once unpacked.
        ImportError: if Pillow is missing.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "a.pgm")
        >>> path.write_bytes(b"P5 2 1 255 " + bytes([10, 20]))
        13
        >>> read_image(path, (1, 2, 3)).tolist()
        [[[10, 10, 10], [20, 20, 20]]]
    """
    height, width, channels = image_shape
    pixels = image_files.read(Path(path), size=(height, width))
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    grey = dataset.import_pillow().fromarray(pixels).convert("L")
    return np.asarray(grey)[..., None]


def embed_files(
    bundle: Bundle,
    files: Files,
    *,
    embed: Embed | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Embedded:
    """Embeddings of image files; only a batch of images is in memory at a time.

    Args:
        bundle: the encoder.
        files: from `find_identities` or `find_images`.
        embed: `embedder(bundle)`, if it is there already.
        advance: called with the number of files done, after each batch.

    Returns:
        The embeddings, and a sentence for each file that cannot be read or whose
        embedding is not a finite vector.

    Raises:
        ImportError: if Pillow is missing.

    Example:
        >>> def apply(params, state, images, *, train, key=None):
        ...     return images.reshape(images.shape[0], -1) / 255, state
        >>> from metricjax.bundle import find_images, make
        >>> ready = make({}, {}, {}, image_shape=(1, 2, 1), apply=apply)
        >>> embed_files(ready, find_images("gone.png")).problems
        ('gone.png cannot be opened: No such file or directory.',)
    """
    embed = embedder(bundle) if embed is None else embed
    parts = [embed(np.zeros((0, *bundle.image_shape), np.uint8))]
    kept, problems = [], list(files.problems)
    for numbers in _batches(len(files.paths)):
        images, read = [], []
        for i in numbers:
            try:
                images.append(read_image(files.paths[i], bundle.image_shape))
            except (ValueError, OSError) as error:
                problems.append(image_files.sentence(files.paths[i], error))
            else:
                read.append(i)
        part = embed(np.stack(images)) if images else parts[0]
        usable = np.isfinite(part).all(axis=1) & (part != 0).any(axis=1)
        for i, good in zip(read, usable, strict=True):
            if not good:
                problems.append(f"{files.paths[i]} has an embedding of NaN or zeros.")
        kept += [i for i, good in zip(read, usable, strict=True) if good]
        parts.append(part[usable])
        advance(len(numbers))
    return Embedded(
        np.concatenate(parts),
        tuple(files.paths[i] for i in kept),
        tuple(files.names[i] for i in kept),
        tuple(problems),
    )


def _batches(count: int) -> Iterator[range]:
    for start in range(0, count, BATCH):
        yield range(start, min(start + BATCH, count))
