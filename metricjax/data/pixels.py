"""Image files decoded once into one array: in memory, or in a file if it is large.

Or looked through once, and decoded again whenever they are indexed.
"""

import functools
import hashlib
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metricjax import _cores
from metricjax.data import deferred, image_files

# Arrays up to this many bytes stay in memory, if that is no more than a quarter of
# what is free.
_SMALL = 256 * 2**20
_SHARE = 0.25
_FORMAT = 1
_IMAGES, _FACTS = "images.npy", "facts.npz"
_ARRAYS = ("rows", "digests", "sizes", "grey")
# Files read between two looks at what came out; whole images are never kept.
_CHUNK = 64

Advance = Callable[[int], None]


class Decoded(NamedTuple):
    """What a list of image files holds.

    Attributes:
        images: `[n, height, width, channels]` uint8, in memory or on disk, or
            `deferred.Rows` that stand for it; None if the files have different sizes
            and no common one was given.
        rows: `[n]` int, the number of the file of each image; the other files are bad.
        digests: `[n]` bytes, equal for equal pixels at their full size.
        sizes: `[n, 2]` int, height and width of each file, upright.
        grey: `[n]` bool, whether the file is grey.
        problems: one sentence for each file that cannot be read.
    """

    images: Any
    rows: NDArray[np.int64]
    digests: NDArray[np.bytes_]
    sizes: NDArray[np.int64]
    grey: NDArray[np.bool_]
    problems: tuple[str, ...]


def decode(
    paths: Sequence[pathlib.Path],
    *,
    size: tuple[int, int] | None = None,
    stream: bool = False,
    advance: Advance = lambda count: None,
    room: int | None = None,
    cache: pathlib.Path | None = None,
) -> Decoded:
    """Decode every file once.

    An array that would fill more than `room` goes to a file below `cache`, named by
    the paths, sizes and times of the image files: the same list is read from there the
    next time. The file is complete or not there.

    With `stream` the files are looked through once, to the last pixel, and no pixel is
    kept: the images are decoded again whenever they are indexed. What was found goes
    to the cache where the array would have gone.

    Args:
        paths: of the image files.
        size: (height, width) to stretch all images to; if None they must agree.
        stream: keep no pixels.
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
    needed = 0 if shape is None else len(paths) * int(np.prod(shape))
    look = functools.partial(
        _look_through,
        paths=paths,
        shape=None if stream else shape,
        advance=advance,
        stretch=size is not None,
    )
    if needed <= (memory_room() if room is None else room):
        return _to_be_streamed(look(_empty), paths, size) if stream else look(_empty)
    assert shape is not None, "an array without a shape needs no room"
    key = _key(paths, () if stream else shape)
    place = (cache_folder() if cache is None else cache) / key
    if not place.is_dir():
        found = _fill(place, look, keep_always=stream)
        if found.images is None and not stream:
            return found
    found = _reopened(place)
    return _to_be_streamed(found, paths, size) if stream else found


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


def _look_through(
    allocate: Callable[[tuple[int, ...]], np.ndarray],
    *,
    paths: Sequence[pathlib.Path],
    shape: tuple[int, int, int] | None,
    advance: Advance,
    stretch: bool,
) -> Decoded:
    """Read every file once; keep no pixels if no shape is given."""
    out = None if shape is None else allocate((len(paths), *shape))
    rows, looks, problems = [], [], []
    for number, look in enumerate(_looks(paths, None if shape is None else shape[:2])):
        advance(1)
        if isinstance(look, str):
            problems.append(look)
            continue
        if out is not None and not stretch and look.size != out.shape[1:3]:
            out = None
        if out is not None:
            # Grey pixels are repeated in every channel.
            out[len(rows)] = look.pixels
        rows.append(number)
        looks.append(look._replace(pixels=None))
    return Decoded(
        None if out is None else out[: len(rows)],
        np.array(rows, np.int64),
        np.array([look.digest for look in looks], "S32"),
        np.array([look.size for look in looks], np.int64).reshape(-1, 2),
        np.array([look.grey for look in looks], bool),
        tuple(problems),
    )


class _Look(NamedTuple):
    """What one file holds."""

    pixels: NDArray[np.uint8] | None
    size: tuple[int, int]
    grey: bool
    digest: bytes


def _looks(
    paths: Sequence[pathlib.Path], size: tuple[int, int] | None
) -> Iterator[_Look | str]:
    """Each file in turn, with its pixels at a size if one is given; or its problem."""
    look = functools.partial(_look, size=size)
    with ThreadPoolExecutor(_cores.count()) as pool:
        for start in range(0, len(paths), _CHUNK):
            with image_files.quiet():
                found = list(pool.map(look, paths[start : start + _CHUNK]))
            yield from found


def _look(path: pathlib.Path, size: tuple[int, int] | None) -> _Look | str:
    try:
        image = image_files.open_in_thread(path)
    except (ValueError, OSError) as error:
        return image_files.sentence(path, error)
    whole = image_files.fitted(image, None)
    pixels = None if size is None else image_files.fitted(image, size)
    return _Look(pixels, whole.shape[:2], whole.shape[2] == 1, _digest(whole))


def _to_be_streamed(
    found: Decoded, paths: Sequence[pathlib.Path], size: tuple[int, int] | None
) -> Decoded:
    """The same with images that are decoded when they are indexed."""
    if not len(found.rows) or (size is None and (found.sizes != found.sizes[0]).any()):
        return found
    height, width = found.sizes[0].tolist() if size is None else size
    shape = (height, width, 1 if found.grey.all() else 3)
    return found._replace(images=deferred.of_files(paths, found.rows, shape))


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
    place: pathlib.Path, look: Callable[..., Decoded], *, keep_always: bool
) -> Decoded:
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_name(f".{place.name}-{secrets.token_hex(8)}")
    fresh.mkdir()

    def allocate(shape: tuple[int, ...]) -> np.memmap:
        return _open_new(fresh / _IMAGES, shape)

    try:
        found = look(allocate)
        if keep_always or found.images is not None:
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
                reason = (
                    f"{error.strerror} for {images.nbytes} bytes of images; --stream "
                    "decodes them for each batch instead"
                )
                raise OSError(error.errno, reason, str(path.parent.parent)) from error
    return images


def _reopened(place: pathlib.Path) -> Decoded:
    with np.load(place / _FACTS, allow_pickle=False) as facts:
        arrays = {name: facts[name] for name in _ARRAYS}
        problems = tuple(json.loads(str(facts["problems"])))
    images = None
    if (place / _IMAGES).exists():
        images = np.load(place / _IMAGES, mmap_mode="r")[: len(arrays["rows"])]
    return Decoded(images, problems=problems, **arrays)
