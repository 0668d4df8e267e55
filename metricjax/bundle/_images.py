"""Image files found, read and embedded, with one plain sentence for each bad one."""

import itertools
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metricjax.bundle._bundle import Bundle, Embed, embedder
from metricjax.data import dataset, folders

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm"})
BATCH = 64


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
    path = Path(path)
    _check_regular(path)
    image_module = dataset.import_pillow()
    height, width, channels = image_shape
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd metadata too, which is of no interest here.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", image_module.DecompressionBombWarning)
            pixels = folders.read(path, size=(height, width))
    except image_module.DecompressionBombWarning as error:
        raise ValueError(
            f"Expected an image of a usual size in {path}, got: {error}"
        ) from error
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    grey = image_module.fromarray(pixels).convert("L")
    return np.asarray(grey)[..., None]


def _check_regular(path: Path) -> None:
    # A pipe or a device would keep the reader waiting for ever.
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise ValueError(f"Expected an image file in {path}, got {kind}.")
    # So that a lack of permission is told as such, not as a damaged image.
    path.open("rb").close()


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
        >>> from metricjax.bundle import make
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
                problems.append(sentence(files.paths[i], error))
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


def sentence(path: Path, error: ValueError | OSError) -> str:
    """Why a file cannot be read, in one sentence that names it."""
    if isinstance(error, OSError):
        return f"{path} cannot be opened: {error.strerror or error}."
    return str(error)


def _batches(count: int) -> Iterator[range]:
    for start in range(0, count, BATCH):
        yield range(start, min(start + BATCH, count))
