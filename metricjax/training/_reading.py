"""A data set of image files: read once, reported, refused if it can teach nothing.

Only what training needs is kept: an identity with a single image is in no pair of one
identity, so that it can neither be learned nor be tested.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from metricjax.data import (
    Dataset,
    csv_files,
    deferred,
    folders,
    image_files,
    pixels,
    relabel,
)
from metricjax.data.inspection import Inspection, described, inspect
from metricjax.training.settings import Settings

# Characters are seldom larger, in pixels a side; larger images are slow to train on.
_CHARACTER = 64
_LARGE = 160


class Reading(NamedTuple):
    """A data set of image files and the report on it.

    Attributes:
        dataset: identities with a single image have label -1.
        inspection: what was found.
    """

    dataset: Dataset
    inspection: Inspection


def read(settings: Settings, *, console: Console | None = None) -> Reading | None:
    """Read the image files that the settings name.

    Args:
        settings: `data`, `stream`, `labels`, `image_size` and `skip_bad` are used.
        console: where the report is shown, before anything is refused.

    Returns:
        The data set and its report; None if the settings name data of another kind.

    Raises:
        ValueError: if a file cannot be used, there is no pair of one identity, or data
            that are not image files are to be streamed.
        OSError: if the folder or file is not found.
        ImportError: if Pillow is missing.
    """
    kind, _, path = settings.data.partition(":")
    files = None
    if path and kind in ("folder", "csv"):
        find = image_files.find_identities if kind == "folder" else csv_files.images
        files = find(Path(path))
    if files is None:
        _check_not_streamed(settings)
        return None
    console = console or Console(quiet=True)
    side = settings.image_size
    with _progress(len(files.paths), console) as advance:
        size = None if side is None else (side, side)
        decoded = pixels.decode(
            files.paths, size=size, stream=settings.stream, advance=advance
        )
    found = inspect(files, decoded)
    show(found, console, title=f"Data set {settings.data}")
    where = _where(decoded)
    if where:
        console.print(where, markup=False, highlight=False, soft_wrap=True)
    for hint in _hints(found, settings):
        console.print(hint, highlight=False, soft_wrap=True)
    dataset = folders.assembled(files, decoded, path, skip_bad=settings.skip_bad)
    if settings.labels:
        dataset = relabel(dataset, settings.labels)
    return Reading(_paired(dataset, path), found)


def show(inspection: Inspection, console: Console, *, title: str) -> None:
    """Print the report on a data set."""
    table = Table(
        title=Text(title),
        title_justify="left",
        title_style="bold",
        show_header=False,
    )
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for what, found in described(inspection):
        table.add_row(what, Text(found))
    console.print(table)
    alone = inspection.alone
    if alone:
        one = len(alone) == 1
        console.print(
            f"{len(alone)} {'identity' if one else 'identities'} with a single image "
            f"{'is' if one else 'are'} left out: one image makes no pair.",
            highlight=False,
            soft_wrap=True,
        )


def _check_not_streamed(settings: Settings) -> None:
    if settings.stream:
        raise ValueError(
            "Expected --stream with --data folder:PATH or a csv:PATH of image files, "
            f"got {settings.data}; leave it out."
        )


def _where(decoded: pixels.Decoded) -> str | None:
    """Where images are that are not in memory."""
    images = decoded.images
    if isinstance(images, np.memmap):
        return (
            f"The images fill {images.nbytes / 2**20:,.0f} MiB and are kept decoded in "
            f"{pixels.cache_folder()}, for this run and the next; what is there may be "
            "deleted. With --stream nothing is kept."
        )
    if isinstance(images, deferred.Rows):
        size = math.prod(images.shape) / 2**20
        return (
            f"The images would fill {size:,.0f} MiB; they are decoded for each batch, "
            "while the one before is trained on."
        )
    return None


def _hints(found: Inspection, settings: Settings) -> list[str]:
    """Settings that hardly fit such images."""
    largest = max((side for size, _ in found.sizes for side in size), default=0)
    colour = found.grey < sum(found.counts)
    hints = []
    if settings.content == "characters" and (colour or largest > _CHARACTER):
        hints.append(
            "These may be photos: --content photos --symmetries 1 changes them as "
            "such. As it is, they are taken for characters, and each turn and mirror "
            "image for a class of its own."
        )
    if settings.image_size is None and largest > _LARGE:
        hints.append(
            f"Images of up to {largest} pixels a side train slowly: --image-size 96 "
            "makes them smaller."
        )
    return hints


def _paired(dataset: Dataset, source: str) -> Dataset:
    counts = np.bincount(dataset.labels, minlength=len(dataset.names))
    if counts.max() < 2:
        raise ValueError(
            f"Expected two images of one identity somewhere in {source}, got a single "
            f"image of each of {len(counts)}: there is no positive pair to learn from. "
            "Put all images of an identity into one sub-folder."
        )
    alone = counts[dataset.labels] < 2
    return dataset._replace(labels=np.where(alone, np.int32(-1), dataset.labels))


@contextmanager
def _progress(total: int, console: Console) -> Iterator[Callable[[int], None]]:
    quiet = not console.is_terminal
    with Progress(console=console, transient=True, disable=quiet) as bar:
        task = bar.add_task("Reading images", total=total)
        yield lambda count: bar.advance(task, count)
