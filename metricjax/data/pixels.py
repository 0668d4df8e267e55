"""Image files decoded once into one array: in memory, or in a file if it is large."""

import hashlib
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metricjax.data import image_files

# Arrays up to this many bytes stay in memory, if that is no more than a quarter of
# what is free.
_SMALL = 256 * 2**20
_SHARE = 0.25
_FORMAT = 1
_IMAGES, _FACTS = "images.npy", "facts.npz"
_ARRAYS = ("rows", "digests", "sizes", "grey")

Advance = Callable[[int], None]


class Decoded(NamedTuple):
    """What a list of image files holds.

    Attributes:
        images: `[n, height, width, channels]` uint8, in memory or on disk; None if the
            files have different sizes and no common one was given.
        rows: `[n]` int, the number of the file of each image; the other files are bad.
        digests: `[n]` bytes, equal for equal pixels at their full size.
        sizes: `[n, 2]` int, height and width of each file, upright.
        grey: `[n]` bool, whether the file is grey.
        problems: one sentence for each file that cannot be read.
    """

    images: NDArray[np.uint8] | None
    rows: NDArray[np.int64]
    digests: NDArray[np.bytes_]
    sizes: NDArray[np.int64]
    grey: NDArray[np.bool_]
    problems: tuple[str, ...]


def decode(
    paths: Sequence[pathlib.Path],
    *,
    size: tuple[int, int] | None = None,
    advance: Advance = lambda count: None,
    room: int | None = None,
    cache: pathlib.Path | None = None,
) -> Decoded:
    """Decode every file once.

    An array that would fill more than `room` goes to a file below `cache`, named by
    the paths, sizes and times of the image files: the same list is read from there the
    next time. The file is complete or not there.

    Args:
        paths: of the image files.
        size: (height, width) to stretch all images to; if None they must agree.
        advance: called with the number of files done, after each.
        room: bytes that the array may take in memory; `memory_room()` if None.
        cache: folder of such files; `cache_folder()` if None.

    Returns:
        What was found. The images are grey if all files are, else colour.

    Raises:
        OSError: if the file of a large array cannot be written.
        ImportError: if Pillow is missing.
    """
    shape = _shape(paths, size)
    stretch = size is not None
    needed = 0 if shape is None else len(paths) * int(np.prod(shape))
    if needed <= (memory_room() if room is None else room):
        return _decode_into(_empty, paths, shape, advance, stretch=stretch)
    assert shape is not None, "an array without a shape needs no room"
    place = (cache_folder() if cache is None else cache) / _key(paths, shape)
    if not place.is_dir():
        found = _fill(place, paths, shape, advance, stretch=stretch)
        if found.images is None:
            return found
    return _reopened(place)


def memory_room() -> int:
    """The bytes that decoded images may take: 256 MiB, or a quarter of what is free."""
    # Not every system counts its free pages; then it is a quarter of all of them.
    pages = (
        "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    )
    free = os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
    return min(_SMALL, int(_SHARE * free))


def cache_folder() -> pathlib.Path:
    """Where large arrays lie: `metricjax/images` in the user's cache folder."""
    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(root, "metricjax", "images")


def _shape(
    paths: Sequence[pathlib.Path], size: tuple[int, int] | None
) -> tuple[int, int, int] | None:
    """(height, width, channels) of the array; None if no file can be read."""
    channels = 1 if all(image_files.is_grey(path) for path in paths) else 3
    if size is not None:
        return (*size, channels)
    for path in paths:
        try:
            height, width = image_files.read(path).shape[:2]
        except (ValueError, OSError):
            # It is met again, and told, when all files are decoded.
            continue
        return height, width, channels
    return None


def _empty(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.empty(shape, np.uint8)


def _decode_into(
    allocate: Callable[[tuple[int, ...]], np.ndarray],
    paths: Sequence[pathlib.Path],
    shape: tuple[int, int, int] | None,
    advance: Advance,
    *,
    stretch: bool,
) -> Decoded:
    out = None if shape is None else allocate((len(paths), *shape))
    rows, digests, sizes, grey, problems = [], [], [], [], []
    for number, path in enumerate(paths):
        advance(1)
        try:
            image = image_files.open_upright(path)
        except (ValueError, OSError) as error:
            problems.append(image_files.sentence(path, error))
            continue
        whole = image_files.fitted(image, None)
        sizes.append(whole.shape[:2])
        grey.append(whole.shape[2] == 1)
        digests.append(_digest(whole))
        if out is not None and not stretch and whole.shape[:2] != out.shape[1:3]:
            out = None
        if out is not None:
            # Grey pixels are repeated in every channel.
            out[len(rows)] = image_files.fitted(image, out.shape[1:3])
        rows.append(number)
    return Decoded(
        None if out is None else out[: len(rows)],
        np.array(rows, np.int64),
        np.array(digests, "S32"),
        np.array(sizes, np.int64).reshape(-1, 2),
        np.array(grey, bool),
        tuple(problems),
    )


def _digest(pixels: NDArray[np.uint8]) -> bytes:
    content = np.ascontiguousarray(pixels).data
    found = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    found.update(content)
    return found.hexdigest().encode()


def _key(paths: Sequence[pathlib.Path], shape: tuple[int, ...]) -> str:
    """What tells one decoded list of files from another."""
    digest = hashlib.sha256(json.dumps([_FORMAT, *shape]).encode())
    for path in paths:
        facts: list[Any] = [os.fsencode(path.absolute()).hex()]
        try:
            status = path.stat()
            facts += [status.st_size, status.st_mtime_ns]
        except OSError as error:
            facts += [error.strerror]
        digest.update(json.dumps(facts).encode())
    return digest.hexdigest()[:32]


def _fill(
    place: pathlib.Path,
    paths: Sequence[pathlib.Path],
    shape: tuple[int, int, int],
    advance: Advance,
    *,
    stretch: bool,
) -> Decoded:
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_name(f".{place.name}-{secrets.token_hex(8)}")
    fresh.mkdir()

    def allocate(shape: tuple[int, ...]) -> np.memmap:
        return _open_new(fresh / _IMAGES, shape)

    try:
        found = _decode_into(allocate, paths, shape, advance, stretch=stretch)
        if found.images is not None:
            facts = {name: getattr(found, name) for name in _ARRAYS}
            problems = np.array(json.dumps(found.problems))
            np.savez(fresh / _FACTS, problems=problems, **facts)
            fresh.rename(place)
    except OSError:
        # Another process may have been first; its file is as good.
        if not place.is_dir():
            raise
        return _reopened(place)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return found


def _open_new(path: pathlib.Path, shape: tuple[int, ...]) -> np.memmap:
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        # Of a file with holes, a full disk would be told by a signal that kills.
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                reason = f"{error.strerror} for {images.nbytes} bytes of images"
                raise OSError(error.errno, reason, str(path.parent.parent)) from error
    return images


def _reopened(place: pathlib.Path) -> Decoded:
    images = np.load(place / _IMAGES, mmap_mode="r")
    with np.load(place / _FACTS, allow_pickle=False) as facts:
        arrays = {name: facts[name] for name in _ARRAYS}
        problems = tuple(json.loads(str(facts["problems"])))
    return Decoded(images[: len(arrays["rows"])], problems=problems, **arrays)


class Rows:
    """Some rows of an array that lies on disk, read when they are indexed.

    It stands for `images[rows]` where that would fill the memory.
    """

    def __init__(self, images: NDArray[np.uint8], rows: NDArray[np.integer]) -> None:
        self._images, self._rows = images, rows
        self.dtype, self.ndim = images.dtype, images.ndim
        self.shape = (len(rows), *images.shape[1:])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> NDArray[np.uint8]:
        return np.asarray(self._images[self._rows[index]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("Expected leave to copy: these rows lie apart on disk.")
        return np.asarray(self[:], dtype)
