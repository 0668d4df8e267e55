"""A CSV file of labelled texts, or of labelled image files."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from metricjax.data import _csv, dataset, folders, pixels, text
from metricjax.data.image_files import Files

_TEXT = ("text", "sentence", "question", "utterance")
_IMAGE = ("path", "image", "file", "filename")
_LABEL = ("label", "category", "class", "identity")


def load(
    path: pathlib.Path,
    *,
    size: tuple[int, int] | None = None,
    stream: bool = False,
) -> dataset.Dataset:
    """The examples of a CSV file with a header, in the order of its lines.

    The header, in any case, names one column of texts (text, sentence, question or
    utterance) or of image files (path, image, file or filename), and one of labels
    (label, category, class or identity). Other columns are passed over. Classes are in
    the order of their names.

    Texts become the counts of `text.hashed_ngrams`. Image files are looked for in the
    folder of the CSV file.

    Args:
        path: the file, in UTF-8.
        size: (height, width) to stretch all images to; if None they must agree.
        stream: decode the images whenever they are indexed; see `deferred.Rows`.

    Returns:
        The data set: `images` `[n, buckets]` of texts, else as in any other.

    Raises:
        FileNotFoundError: if the file or an image is missing.
        ValueError: if a file is damaged or empty, a column is missing, a cell is empty,
            or sizes differ.
        ImportError: if Pillow is missing and there are images to read.
    """
    table = _read(path)
    if table.is_images:
        files = _listed(table, path)
        decoded = pixels.decode(files.paths, size=size, stream=stream)
        return folders.assembled(files, decoded, path)
    if size is not None:
        raise ValueError(f"Expected no size for the texts in {path}, got {size}.")
    if stream:
        raise ValueError(
            f"Expected a list of image files to stream, got texts in {path}; leave "
            "`stream` out."
        )
    names, labels = np.unique(table.labels, return_inverse=True)
    vectors = text.hashed_ngrams(table.contents)
    return dataset.checked(vectors, labels, names.tolist(), path, vectors=True)


def images(path: pathlib.Path) -> Files | None:
    """The image files that a CSV file lists, with their labels; None if it has texts.

    Args:
        path: the file, as `load` takes it.

    Returns:
        The files, in the order of the lines.

    Raises:
        FileNotFoundError: if the file or an image is missing.
        ValueError: if the file is damaged or empty, a column is missing, or a cell is
            empty.
    """
    table = _read(path)
    return _listed(table, path) if table.is_images else None


class _Table(NamedTuple):
    """The two columns that count, and the line of each row."""

    contents: list[str]
    labels: list[str]
    lines: list[int]
    is_images: bool


def _read(path: pathlib.Path) -> _Table:
    header, *rows = _csv.read(path)
    if not rows:
        raise ValueError(f"Expected examples below the header of {path}, got none.")
    texts, images, label = (
        _csv.find_column(header.cells, names) for names in (_TEXT, _IMAGE, _LABEL)
    )
    content = texts if images is None else images
    if content is None or label is None or None not in (texts, images):
        raise ValueError(
            f"Expected a header with text or path, and label or category, in {path}, "
            f"got {header.cells}; rename the columns. Pairs of texts are read by "
            "data.text.read_pairs."
        )
    return _Table(
        _cells(rows, content, path),
        _cells(rows, label, path),
        [row.line for row in rows],
        images is not None,
    )


def _cells(rows: Sequence[_csv.Row], column: int, path: pathlib.Path) -> list[str]:
    """A column without white space around its cells, none of them empty."""
    cells = [row.cells[column].strip() for row in rows]
    if not all(cells):
        line = rows[cells.index("")].line
        raise ValueError(
            f"Expected text in every cell of column {column + 1} of {path}, got an "
            f"empty one in line {line}; fill it or remove the line."
        )
    return cells


def _listed(table: _Table, path: pathlib.Path) -> Files:
    files = [path.parent / name for name in table.contents]
    for line, file in zip(table.lines, files, strict=True):
        if not file.is_file():
            raise FileNotFoundError(
                f"Expected the image of line {line} of {path} in {file}, got no "
                "such file; paths start at the folder of the CSV file."
            )
    return Files(tuple(files), tuple(table.labels))
