"""Short texts: as vectors of counts, and in pairs that mean the same or do not."""

import os
import pathlib
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metricjax import _checks
from metricjax.data import _csv

# Texts that are counted at once: their table of int64 takes 4 MiB at 2048 buckets.
_BLOCK = 256

# Column names of well-known sets of pairs: those of Quora Question Pairs, of GLUE and
# of PAWS, and plain ones.
_FIRST = ("first", "text1", "text_1", "question1", "question_1", "sentence1")
_SECOND = ("second", "text2", "text_2", "question2", "question_2", "sentence2")
_SAME = ("same", "is_duplicate", "duplicate", "label")


class TextPairs(NamedTuple):
    """Pairs of texts.

    Attributes:
        first: a text of each pair.
        second: the other text.
        same: `[pairs]` bool, whether both mean the same.
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    same: NDArray[np.bool_]


def hashed_ngrams(
    texts: Sequence[str], *, buckets: int = 2048, sizes: Sequence[int] = (2, 3, 4)
) -> NDArray[np.uint8]:
    """Count the hashed n-grams of characters in each text.

    A text is lower-cased, runs of white space become one space, and a space is put at
    both ends, so that n-grams know where words begin and end. An n-gram falls into the
    bucket `zlib.crc32(ngram.encode("utf-32-le")) % buckets`, in every run and on every
    machine. Counts stop at 255; a text without a character has none.

    Args:
        texts: the texts.
        buckets: the length of a vector; n-grams that meet in a bucket are added up.
        sizes: the lengths n of the n-grams, in characters.

    Returns:
        `[n, buckets]` uint8.

    Raises:
        ValueError: if a size or the number of buckets is less than one.
        TypeError: if `texts` is a single string.

    Example:
        >>> counts = hashed_ngrams(["Lost card", "lost  CARD", "top up"], buckets=512)
        >>> counts.shape, bool((counts[0] == counts[1]).all()), int(counts[2].sum())
        ((3, 512), True, 18)

    References:
        Huang et al., "Learning deep structured semantic models for web search using
        clickthrough data", CIKM 2013 (letter n-grams). Weinberger et al., "Feature
        hashing for large scale multitask learning", ICML 2009, arXiv:0902.2206.
    """
    if isinstance(texts, str):
        raise TypeError(
            f"Expected `texts` to be a sequence of texts, got one string {texts[:20]!r}"
            "; put it into a list."
        )
    _checks.check_positive_int("buckets", buckets, "give the length of a vector")
    for size in sizes:
        _checks.check_positive_int("sizes", size, "n-grams have a character or more")
    out = np.empty((len(texts), buckets), np.uint8)
    for start in range(0, len(texts), _BLOCK):
        stop = start + _BLOCK
        out[start:stop] = _counted(texts[start:stop], buckets, sizes)
    return out


def read_pairs(
    path: str | os.PathLike[str], *, columns: tuple[str, str, str] | None = None
) -> TextPairs:
    """Read pairs of texts from a CSV file.

    The first line may be a header. The columns of the texts and of 0 or 1 are then
    found by the names of well-known sets, in any case: first, text1, question1 or
    sentence1; second, text2, question2 or sentence2; same, is_duplicate, duplicate or
    label. Without a header they are the last three columns.

    Args:
        path: the CSV file, in UTF-8.
        columns: the names of the three columns in the header, if they are others.

    Returns:
        The pairs, in the order of the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or empty, a column is missing, a text is
            empty, or a cell that should be 0 or 1 is not.

    Example:
        >>> import tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "pairs.csv")
        >>> lines = ["text1,text2,same", '"Hi, you",Hello,1', "Hi,Bye,0"]
        >>> _ = path.write_text(os.linesep.join(lines))
        >>> first, second, same = read_pairs(path)
        >>> first, second, same.tolist()
        (('Hi, you', 'Hi'), ('Hello', 'Bye'), [True, False])
    """
    path = pathlib.Path(path)
    rows = _csv.read(path)
    places, has_header = _places(rows[0].cells, columns, path)
    rows = rows[has_header:]
    if not rows:
        raise ValueError(f"Expected pairs below the header of {path}, got none.")
    parts = [[row.cells[place].strip() for row in rows] for place in places]
    for row, *texts, flag in zip(rows, *parts, strict=True):
        if not all(texts) or flag not in ("0", "1"):
            raise ValueError(
                f"Expected two texts and 0 or 1 in line {row.line} of {path}, got "
                f"{[*texts, flag]}; correct or remove the line."
            )
    first, second, same = parts
    return TextPairs(tuple(first), tuple(second), np.array(same) == "1")


def _places(
    header: list[str], columns: tuple[str, str, str] | None, path: pathlib.Path
) -> tuple[list[int], bool]:
    """The three columns, and whether the first row is a header."""
    wanted = (_FIRST, _SECOND, _SAME)
    if columns is not None:
        wanted = [(name.strip().lower(),) for name in columns]
    found = [_csv.find_column(header, names) for names in wanted]
    places = [place for place in found if place is not None]
    if len(places) == 3:
        return places, True
    if columns is None and len(header) >= 3 and header[-1].strip() in ("0", "1"):
        return [len(header) - 3, len(header) - 2, len(header) - 1], False
    names = columns or (_FIRST[1], _SECOND[1], _SAME[0])
    raise ValueError(
        f"Expected a header with {', '.join(names)} in {path}, or rows that end with "
        f"text, text, 0 or 1, got a first line of {header}; name the columns with "
        "`columns`."
    )


def _counted(
    texts: Sequence[str], buckets: int, sizes: Sequence[int]
) -> NDArray[np.uint8]:
    cleaned = [" ".join(text.lower().split()) for text in texts]
    padded = [f" {text} " if text else "" for text in cleaned]
    codes = np.frombuffer("".join(padded).encode("utf-32-le"), "<u4")
    rows = np.repeat(np.arange(len(texts)), [len(text) for text in padded])
    counts = np.zeros(len(texts) * buckets, np.int64)
    for size in sizes:
        last = len(codes) - size + 1
        if last < 1:
            continue
        # An n-gram that begins in one text and ends in another is none.
        inside = rows[:last] == rows[size - 1 :]
        hashes = _crc32([codes[i : i + last][inside] for i in range(size)])
        cells = rows[:last][inside] * buckets + hashes % buckets
        counts += np.bincount(cells, minlength=len(counts))
    return np.minimum(counts, 255).astype(np.uint8).reshape(len(texts), buckets)


def _crc32(letters: Sequence[NDArray[np.uint32]]) -> NDArray[np.uint32]:
    """`zlib.crc32` of n letters of 4 bytes each, for all n-grams at once."""
    crc = np.full(letters[0].shape, 0xFFFFFFFF, np.uint32)
    for letter in letters:
        for shift in (0, 8, 16, 24):
            byte = (letter >> np.uint32(shift)) & np.uint32(255)
            crc = _CRC_TABLE[(crc & np.uint32(255)) ^ byte] ^ (crc >> np.uint32(8))
    return crc ^ np.uint32(0xFFFFFFFF)


def _crc_table() -> NDArray[np.uint32]:
    """What each byte adds, read off `zlib.crc32` itself.

    For one byte b, crc32 is `~(table[b ^ 255] ^ 0x00FFFFFF)`.
    """
    values = [zlib.crc32(bytes([byte ^ 255])) for byte in range(256)]
    return np.array(values, np.uint32) ^ np.uint32(0xFF000000)


_CRC_TABLE = _crc_table()
