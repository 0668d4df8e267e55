"""What a list of image files is good for: a report before training."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metricjax.data.image_files import Files
from metricjax.data.pixels import Decoded

_BATCH = 128
_LARGEST_K = 5


class Inspection(NamedTuple):
    """Facts about a data set of image files.

    Attributes:
        names: of the identities, in their order.
        counts: images of each that can be read.
        problems: one sentence for each thing that cannot be used.
        ignored: files that are no images by their suffix.
        sizes: how many images there are of each (height, width), most frequent first.
        grey: images that are grey.
        repeated: groups of files of one identity with the same pixels.
        shared: groups of files with the same pixels, of two identities or more.
        batch: suggested classes and examples of a batch, P and K; None if there is no
            pair of one identity.
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]
    problems: tuple[str, ...]
    ignored: tuple[Path, ...]
    sizes: tuple[tuple[tuple[int, int], int], ...]
    grey: int
    repeated: tuple[tuple[Path, ...], ...]
    shared: tuple[tuple[Path, ...], ...]
    batch: tuple[int, int] | None

    @property
    def alone(self) -> tuple[str, ...]:
        """Identities without two images, which are in no pair of one identity."""
        pairs = zip(self.names, self.counts, strict=True)
        return tuple(name for name, count in pairs if count < 2)


def inspect(files: Files, decoded: Decoded) -> Inspection:
    """Look at the files of a data set, once decoded; a pure function.

    Args:
        files: from `image_files.find_identities`, or any list of named images.
        decoded: from `pixels.decode(files.paths)`.

    Returns:
        What was found.

    Example:
        >>> import tempfile
        >>> from metricjax.data import image_files, pixels
        >>> root = Path(tempfile.mkdtemp())
        >>> for place in ("ann/1.pgm", "ann/2.pgm", "bob/1.pgm"):
        ...     (root / place).parent.mkdir(exist_ok=True)
        ...     _ = (root / place).write_bytes(b"P5 2 1 255 " + bytes([10, 20]))
        >>> files = image_files.find_identities(root)
        >>> found = inspect(files, pixels.decode(files.paths))
        >>> found.names, found.counts, found.alone
        (('ann', 'bob'), (2, 1), ('bob',))
        >>> [[path.name for path in group] for group in found.shared]
        [['1.pgm', '2.pgm', '1.pgm']]
    """
    names = sorted(set(files.names))
    counts = Counter(files.names[row] for row in decoded.rows)
    found = tuple(counts[name] for name in names)
    repeated, shared = _duplicates(files, decoded)
    sizes = Counter((int(height), int(width)) for height, width in decoded.sizes)
    return Inspection(
        names=tuple(names),
        counts=found,
        problems=(*files.problems, *decoded.problems),
        ignored=files.ignored,
        sizes=tuple(sizes.most_common()),
        grey=int(decoded.grey.sum()),
        repeated=repeated,
        shared=shared,
        batch=_suggested([count for count in found if count > 1]),
    )


def _duplicates(
    files: Files, decoded: Decoded
) -> tuple[tuple[tuple[Path, ...], ...], tuple[tuple[Path, ...], ...]]:
    """Groups of files with equal pixels: of one identity, and of several."""
    order = np.argsort(decoded.digests, kind="stable")
    ends = np.flatnonzero(decoded.digests[order][1:] != decoded.digests[order][:-1])
    groups = [g for g in np.split(decoded.rows[order], ends + 1) if len(g) > 1]
    repeated, shared = [], []
    for group in sorted(groups, key=lambda group: group[0]):
        paths = tuple(files.paths[row] for row in group)
        several = len({files.names[row] for row in group}) > 1
        (shared if several else repeated).append(paths)
    return tuple(repeated), tuple(shared)


def _suggested(counts: Sequence[int]) -> tuple[int, int] | None:
    """P and K of batches of at most 128 images, for half of the identities or fewer."""
    if not counts:
        return None
    examples = min(_LARGEST_K, max(2, int(np.median(counts))))
    return max(2, min(_BATCH // examples, len(counts) // 2)), examples


def described(inspection: Inspection) -> list[tuple[str, str]]:
    """The report as rows: what, and what was found.

    Args:
        inspection: from `inspect`.

    Returns:
        The rows, in printable characters.

    Example:
        >>> sizes = (((112, 92), 9),)
        >>> found = Inspection(
        ...     ("a", "b"), (8, 1), (), (), sizes, 9, (), (), _suggested([8])
        ... )
        >>> for row in described(found):
        ...     print(": ".join(row))
        identities: 2
        images: 9, of an identity 1 to 8, median 4.5
        too few images: 1 identity has a single image: b
        cannot be used: nothing
        duplicates: none
        height x width: 112 x 92
        colour: 9 grey, 0 in colour
        suggested batch: P x K = 2 x 5
    """
    counts = np.array(inspection.counts or (0,))
    images, alone = int(counts.sum()), inspection.alone
    rows = [("identities", f"{len(inspection.names):,}")]
    rows += [
        (
            "images",
            f"{images:,}, of an identity {counts.min()} to {counts.max()}, "
            f"median {np.median(counts):g}",
        )
    ]
    if alone:
        have = "identity has" if len(alone) == 1 else "identities have"
        few = f"{len(alone)} {have} a single image: {_few(alone)}"
        rows += [("too few images", few)]
    rows += [("cannot be used", _counted(inspection.problems))]
    if inspection.ignored:
        others = [str(path) for path in inspection.ignored]
        rows += [("no images by suffix", f"{len(others)}: {_few(others)}")]
    rows += [("duplicates", _groups(inspection.repeated) or "none")]
    if inspection.shared:
        rows += [("same picture of two identities", _groups(inspection.shared))]
    rows += [("height x width", _sizes(inspection.sizes))]
    rows += [
        ("colour", f"{inspection.grey:,} grey, {images - inspection.grey:,} in colour")
    ]
    if inspection.batch:
        rows += [("suggested batch", "P x K = {} x {}".format(*inspection.batch))]
    return [(what, _printable(found)) for what, found in rows]


def _printable(text: str) -> str:
    # Names come from strangers: nothing in them may steer a terminal, and bytes that
    # are no text could not be written to a report.
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _few(words: Sequence[str], *, shown: int = 5) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(words) - shown} more" if len(words) > shown else ""
    return ", ".join(words[:shown]) + more


def _counted(problems: Sequence[str]) -> str:
    return f"{len(problems)}: {_few(problems)}" if problems else "nothing"


def _groups(groups: Sequence[Sequence[Path]]) -> str:
    if not groups:
        return ""
    shown = [" = ".join(map(str, group)) for group in groups]
    return f"{len(groups)}: {_few(shown, shown=3)}"


def _sizes(sizes: Sequence[tuple[tuple[int, int], int]]) -> str:
    if len(sizes) == 1:
        return "{} x {}".format(*sizes[0][0])
    shown = [f"{height} x {width} ({count})" for (height, width), count in sizes]
    return f"{len(sizes)} sizes: {_few(shown)}"
