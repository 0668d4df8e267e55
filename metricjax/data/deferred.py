"""Images that are not in memory: they are read, or decoded, when they are indexed."""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricjax import _cores
from metricjax.data import image_files

Read = Callable[[NDArray[np.intp]], NDArray[np.uint8]]


class Rows:
    """Images that stand for an array `[n, height, width, channels]` uint8.

    `images[i]`, `images[1:4]`, `images[[3, 0]]` and `images[mask]` are arrays of what
    was asked for and of nothing else; further indices go to the other axes.
    `np.asarray(images)` is all of it. Nothing that was read is kept.
    """

    def __init__(
        self, read: Read, rows: NDArray[np.integer], image_shape: Sequence[int]
    ) -> None:
        self._read, self._rows = read, np.asarray(rows, np.intp)
        self.shape = (len(rows), *image_shape)
        self.dtype, self.ndim = np.dtype(np.uint8), len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> NDArray[np.uint8]:
        first, *others = index if isinstance(index, tuple) else (index,)
        rows = self._rows[first]
        found = np.asarray(self._read(rows.reshape(-1)))
        found = found.reshape(*rows.shape, *self.shape[1:])
        return found[(*(slice(None),) * rows.ndim, *others)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("Expected leave to copy: these images lie apart on disk.")
        return np.asarray(self[:], dtype)

    def select(self, rows: Any) -> "Rows":
        """Some of the images, in this order; nothing is read yet."""
        return Rows(self._read, self._rows[rows], self.shape[1:])


class Later:
    """`Rows` of which an index only selects: it gives `Rows`, which are read later."""

    def __init__(self, images: Rows) -> None:
        self._images, self.shape = images, images.shape
        self.dtype, self.ndim = images.dtype, images.ndim

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, rows: Any) -> Rows:
        return self._images.select(rows)


class Part:
    """`Rows` of which one run is in memory; what else is asked for is read then."""

    def __init__(self, images: Rows, own: slice) -> None:
        self._images, self.shape = images, images.shape
        self.dtype, self.ndim = images.dtype, images.ndim
        self._start, self._stop, _ = own.indices(len(images))
        self._pixels = images[self._start : self._stop]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Any) -> NDArray[np.uint8]:
        first, *others = index if isinstance(index, tuple) else (index,)
        if isinstance(first, slice) and first.step in (None, 1):
            start, stop, _ = first.indices(len(self))
            if self._start <= start <= stop <= self._stop:
                held = slice(start - self._start, stop - self._start)
                return self._pixels[(held, *others)]
        return self._images[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._images.__array__(dtype, copy)


def on_disk(images: np.memmap, rows: NDArray[np.integer]) -> Rows:
    """Some rows of an array that lies on disk, where they would fill the memory."""
    return Rows(images.__getitem__, rows, images.shape[1:])


def of_files(
    paths: Sequence[Path],
    rows: NDArray[np.integer],
    image_shape: tuple[int, int, int],
    *,
    threads: int | None = None,
) -> Rows:
    """Image files, decoded in threads whenever they are indexed.

    Args:
        paths: of image files.
        rows: `[n]` int, those of the files that are meant.
        image_shape: (height, width, channels) that all of them are brought to.
        threads: at work at once; one for each core by default.

    Returns:
        The images. Where one cannot be decoded, an index raises an OSError that names
        the file.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "a.pgm")
        >>> path.write_bytes(b"P5 2 1 255 " + bytes([10, 20]))
        13
        >>> images = of_files([path], np.array([0, 0, 0]), (1, 2, 1))
        >>> images.shape, images[:2].shape, images[2].tolist()
        ((3, 1, 2, 1), (2, 1, 2, 1), [[[10], [20]]])
    """
    read = functools.partial(
        _decode, paths, image_shape=image_shape, threads=threads or _cores.count()
    )
    return Rows(read, rows, image_shape)


def _decode(
    paths: Sequence[Path],
    rows: NDArray[np.intp],
    *,
    image_shape: tuple[int, int, int],
    threads: int,
) -> NDArray[np.uint8]:
    # A small class gives an image several times to a batch.
    files, places = np.unique(rows, return_inverse=True)
    out = np.empty((len(files), *image_shape), np.uint8)
    threads = max(1, min(threads, len(files)))

    def fill(first: int) -> None:
        for i in range(first, len(files), threads):
            _decode_into(out[i], paths[files[i]])

    with ThreadPoolExecutor(threads) as pool:
        # Raises what a thread raised.
        list(pool.map(fill, range(threads)))
    return out[places]


def _decode_into(out: NDArray[np.uint8], path: Path) -> None:
    try:
        pixels = image_files.fitted(image_files.open_in_thread(path), out.shape[:2])
        if pixels.shape[2] > out.shape[2]:
            raise ValueError(f"Expected a grey image in {path}, got one in colour.")
    except (ValueError, OSError) as error:
        raise OSError(
            f"{image_files.sentence(path, error)} It could be used when the data set "
            "was looked through: put it back as it was, and start the same command "
            "again."
        ) from error
    # Grey pixels are repeated in every channel.
    out[...] = pixels
