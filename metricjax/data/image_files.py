"""Image files found and read, with one plain sentence for each bad one."""

import itertools
import math
import os
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metricjax.data import dataset

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm"})
# The EXIF entry for orientation, and the Pillow transposition that undoes each value:
# 2, 4 mirrored; 3 upside down; 5, 7 mirrored and turned; 6, 8 turned.
_ORIENTATION = 0x0112
_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
_GREY_MODES = ("1", "L", "LA", "I")


class Files(NamedTuple):
    """Image files of a folder.

    Attributes:
        paths: of the images.
        names: the identity of each; "" where none is given.
        problems: one sentence for each thing that cannot be used.
        ignored: files that are no images by their suffix.
    """

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    problems: tuple[str, ...] = ()
    ignored: tuple[Path, ...] = ()


def find_identities(folder: str | os.PathLike[str]) -> Files:
    """The images of a folder with one sub-folder for each identity.

    Images may lie deeper inside a sub-folder. Hidden files are passed over. Links that
    lead out of the folder, linked folders and folders that cannot be opened are
    problems; so are sub-folders without an image.

    Args:
        folder: the folder that holds the sub-folders.

    Returns:
        What was found, in the order of the names.

    Raises:
        FileNotFoundError: if there is no such folder, or it has no sub-folder.
        ValueError: if there is no image at all.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for place in ("ann/1.png", "bob/2.png", "bob/1.png", "bob/notes.txt"):
        ...     (root / place).parent.mkdir(exist_ok=True)
        ...     (root / place).touch()
        >>> found = find_identities(root)
        >>> found.names, [path.name for path in found.ignored]
        (('ann', 'bob', 'bob'), ['notes.txt'])
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(
            f"Expected a folder of identities in {root}, got no such folder."
        )
    parts = [
        _identity(entry, root)
        for entry in sorted(root.iterdir())
        if not entry.name.startswith(".") and (entry.is_dir() or entry.is_symlink())
    ]
    loose = [e for e in sorted(root.iterdir()) if e.is_file() and is_image(e)]
    if not parts:
        raise FileNotFoundError(
            f"Expected one sub-folder for each identity in {root}, got "
            f"{len(loose)} images and no sub-folder; put the images of a person or "
            "thing into a folder of its name."
        )
    problems = [f"{path} lies beside the folders of identities." for path in loose]
    found = _joined(parts, problems)
    if not found.paths and not found.problems:
        raise ValueError(f"Expected images in {root}, got none.")
    return found


def find_images(path: str | os.PathLike[str]) -> Files:
    """One image, or all images of a folder at any depth.

    Args:
        path: a file, which is taken whatever its suffix, or a folder.

    Returns:
        What was found, in the order of the names; identities are "".

    Raises:
        FileNotFoundError: if there is nothing.
        ValueError: if a folder has no image.

    Example:
        >>> [str(path) for path in find_images("a.png").paths]
        ['a.png']
    """
    path = Path(path)
    if not path.is_dir():
        return Files((path,), ("",))
    found = _joined([_walk(path, path, name="")], [])
    if not found.paths and not found.problems:
        raise ValueError(f"Expected images in {path}, got none.")
    return found


def is_image(path: Path) -> bool:
    """Whether a file is an image by its suffix, and not hidden."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _identity(entry: Path, root: Path) -> Files:
    if entry.is_symlink():
        if not entry.is_dir():
            return Files((), ())
        return Files((), (), (f"{entry} is a link to a folder: copy the folder.",))
    found = _walk(entry, root, name=entry.name)
    if not found.paths and not found.problems:
        return found._replace(problems=(f"{entry} has no image.",))
    return found


def _walk(folder: Path, root: Path, *, name: str) -> Files:
    """All images below a folder; links are followed to files inside `root` only."""
    paths, problems, ignored = [], [], []

    def failed(error: OSError) -> None:
        problems.append(f"{error.filename} cannot be opened: {error.strerror}.")

    inside = root.resolve()
    for place, folders_here, files in os.walk(folder, onerror=failed):
        folders_here[:] = sorted(f for f in folders_here if not f.startswith("."))
        for linked in (Path(place, f) for f in folders_here):
            if linked.is_symlink():
                problems.append(f"{linked} is a link to a folder: copy the folder.")
        for path in (Path(place, file) for file in sorted(files)):
            if path.name.startswith("."):
                continue
            if not is_image(path):
                ignored.append(path)
            elif path.is_symlink() and not path.resolve().is_relative_to(inside):
                problems.append(f"{path} is a link that leads out of {root}.")
            else:
                paths.append(path)
    return Files(tuple(paths), (name,) * len(paths), tuple(problems), tuple(ignored))


def _joined(parts: list[Files], problems: list[str]) -> Files:
    columns = [tuple(itertools.chain(*column)) for column in zip(*parts, strict=True)]
    joined = Files(*columns)
    return joined._replace(problems=(*joined.problems, *problems))


def read(path: Path, *, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """One image file, upright, as grey or colour bytes.

    What a file is, is told by its content, not by its suffix.

    Args:
        path: a file that Pillow reads.
        size: (height, width) to stretch the image to; its own if None.

    Returns:
        `[height, width, channels]` uint8, 1 channel if the file is grey, else 3.

    Raises:
        OSError: if there is no such file, or it may not be read.
        ValueError: if it is no image, is damaged, or is gigantic once unpacked.
        ImportError: if Pillow is missing.
    """
    return fitted(open_upright(path), size)


def fitted(image: Any, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """The pixels `[height, width, channels]` of a Pillow image, of a size if given."""
    if size is not None and (image.height, image.width) != size:
        image = dataset.shrunk(image, size)
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def open_upright(path: Path) -> Any:
    """A file as a Pillow image in mode L or RGB; raises as `read` does."""
    with quiet():
        return open_in_thread(path)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Pillow, which warns of odd metadata; not for threads.

    Filters of warnings belong to the whole process: two threads that change them at
    the same time may leave them changed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def open_in_thread(path: Path) -> Any:
    """As `open_upright`, in any thread: warnings are left as they are."""
    _check_regular(path)
    image_module = dataset.import_pillow()
    # What Pillow raises for a file that is cut short, garbled or not an image
    # (UnidentifiedImageError is an OSError), or that claims to be gigantic.
    damage = (
        *(OSError, SyntaxError, EOFError, ValueError, IndexError, struct.error),
        image_module.DecompressionBombError,
    )
    try:
        with image_module.open(path) as file:
            if file.width * file.height <= (image_module.MAX_IMAGE_PIXELS or math.inf):
                return _upright(_eight_bits(file, image_module), file.getexif())
            claimed = f"{file.width} x {file.height} pixels"
    except damage as error:
        raise ValueError(
            f"Expected an image file in {path}, got: {error}; remove or replace it."
        ) from error
    raise ValueError(f"Expected an image of a usual size in {path}, got {claimed}.")


def is_grey(path: Path) -> bool:
    """Whether a file is grey by its header; a damaged one counts as grey."""
    image_module = dataset.import_pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with image_module.open(path) as file:
                return file.mode in _GREY_MODES or file.mode.startswith("I")
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error):
        return True
    except image_module.DecompressionBombError:
        return True


def sentence(path: Path, error: ValueError | OSError) -> str:
    """Why a file cannot be read, in one sentence that names it."""
    if isinstance(error, OSError):
        return f"{path} cannot be opened: {error.strerror or error}."
    return str(error)


def _check_regular(path: Path) -> None:
    # A pipe or a device would keep the reader waiting for ever.
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise ValueError(f"Expected an image file in {path}, got {kind}.")
    # So that a lack of permission is told as such, not as a damaged image.
    path.open("rb").close()


def _upright(image, exif):
    """The image turned as its camera says.

    `ImageOps.exif_transpose` also writes the other EXIF entries anew, and fails on a
    good picture if one of them is odd.
    """
    turn = _TURNS.get(exif.get(_ORIENTATION))
    return image if turn is None else image.transpose(turn)


def _eight_bits(image, image_module):
    """A Pillow image in mode L or RGB."""
    if image.mode.startswith("I"):
        # 16-bit grey; Pillow's own conversion clips at 255 instead of scaling.
        values = np.asarray(image).astype(np.int64)
        return image_module.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8))
    return image.convert("L" if image.mode in _GREY_MODES else "RGB")
