"""Scalars by step, as lines of JSON and as TensorBoard events."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

__all__ = ["open_log", "read"]

Write = Callable[[str, int, Mapping[str, float]], None]

_FILE = "metrics.jsonl"
_EVENTS = "tensorboard"


@contextlib.contextmanager
def open_log(folder: str | os.PathLike[str], *, step: int = 0) -> Iterator[Write]:
    """Open the log of a run that continues after `step`.

    What an earlier process logged beyond that step is removed, and so is a last line
    cut short, so that a resumed run's log reads like that of an uninterrupted one.

    Args:
        folder: the run's folder; gets `metrics.jsonl` and `tensorboard/`.
        step: the last step whose lines are kept.

    Yields:
        `write(group, step, values)`, for instance `write("train", 10, {"loss": 0.5})`.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> with open_log(folder) as write:
        ...     write("train", 1, {"loss": 0.5})
        >>> read(folder)
        [{'group': 'train', 'step': 1, 'loss': 0.5}]
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kept = _truncate(folder, step)
    # The writer's thread may lose its last events to a kill: all are written anew.
    shutil.rmtree(folder / _EVENTS, ignore_errors=True)
    with (
        (folder / _FILE).open("a", encoding="utf-8") as lines,
        SummaryWriter(str(folder / _EVENTS), flush_secs=10) as board,
    ):

        def show(group: str, step: int, values: Mapping[str, float]) -> None:
            for name, value in values.items():
                board.add_scalar(f"{group}/{name}", value, step)

        def write(group: str, step: int, values: Mapping[str, float]) -> None:
            lines.write(json.dumps({"group": group, "step": step, **values}) + "\n")
            lines.flush()
            show(group, step, values)

        for record in kept:
            values = dict(record)
            show(values.pop("group"), values.pop("step"), values)
        yield write


def read(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`; a last line cut short is left out.

    Args:
        folder: the run's folder.

    Returns:
        One dict a line with "group", "step" and the logged values; empty if there is
        no log.

    Example:
        >>> read("no/such/folder")
        []
    """
    path = Path(folder) / _FILE
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _truncate(folder: Path, step: int) -> list[dict[str, Any]]:
    kept = [record for record in read(folder) if record["step"] <= step]
    part = folder / f"{_FILE}.part"
    part.write_text("".join(json.dumps(record) + "\n" for record in kept))
    part.replace(folder / _FILE)
    return kept
