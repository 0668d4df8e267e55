"""The rows of a CSV file, with the line of each for messages."""

import csv
import pathlib
from collections.abc import Sequence
from typing import NamedTuple


class Row(NamedTuple):
    """One row: the cells, and the number of the line on which it ends."""

    cells: list[str]
    line: int


def read(path: pathlib.Path) -> list[Row]:
    """The rows of a UTF-8 file, all of one length; blank lines are passed over.

    Args:
        path: the file; cells are parted by commas and may stand in double quotes.

    Returns:
        At least one row; a byte order mark is dropped.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is empty, not UTF-8, not CSV, or a row has more or
            fewer cells than the first.
    """
    if not path.is_file():
        raise FileNotFoundError(f"Expected a CSV file in {path}, got no such file.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            rows = [Row(cells, reader.line_num) for cells in reader if cells]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(
            f"Expected a whole CSV file in UTF-8 in {path}, got: {error}; save it anew."
        ) from error
    if not rows:
        raise ValueError(f"Expected rows in {path}, got an empty file.")
    width = len(rows[0].cells)
    for row in rows:
        if len(row.cells) != width:
            raise ValueError(
                f"Expected {width} cells in line {row.line} of {path}, as in its first "
                f"line, got {len(row.cells)}; put a cell that holds a comma in double "
                "quotes."
            )
    return rows


def find_column(header: Sequence[str], names: Sequence[str]) -> int | None:
    """The first column with one of these names, in any case; None if there is none."""
    cleaned = [cell.strip().lower() for cell in header]
    return next((i for i, cell in enumerate(cleaned) if cell in names), None)
