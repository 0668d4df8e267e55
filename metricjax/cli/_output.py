"""What commands print: lines for people, JSON for programs, a bar while they wait."""

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import Progress

Folder = Annotated[Path, tyro.conf.Positional]
BundleFolder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="BUNDLE")]
Json = Annotated[bool, tyro.conf.arg(name="json")]

SHOWN = 5


def printable(text: object) -> str:
    r"""The text on one line, without anything that would steer a terminal.

    Names and paths come from strangers: line ends, escape sequences and bytes that are
    no text are written as `\n`, `\x1b` and so on.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii")
        for c in str(text)
    )


def say(*parts: object) -> None:
    """Print a line on standard output, whatever its encoding."""
    _print(" ".join(printable(part) for part in parts), sys.stdout)


def note(text: object) -> None:
    """Print a line on standard error."""
    _print(f"metricjax: {printable(text)}", sys.stderr)


def print_json(value: Mapping[str, Any]) -> None:
    """Print an object as one line of JSON, in ASCII; NaN and infinity become null."""
    print(json.dumps(_finite(value), allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value


def _print(line: str, stream: Any) -> None:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding), file=stream)


def notes(problems: Sequence[str]) -> None:
    """Print the first few problems, and how many more there are."""
    for problem in problems[:SHOWN]:
        note(problem)
    if len(problems) > SHOWN:
        note(f"... and {len(problems) - SHOWN} more.")


def check_all_good(problems: Sequence[str], *, skip_bad: bool) -> None:
    """Raise unless every file can be used, or the user has said to go on without.

    Raises:
        ValueError: with the first problem; the others are counted.
    """
    if not problems:
        return
    if skip_bad:
        notes(problems)
        return
    notes(problems[1:])
    others = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
    raise ValueError(
        f"{problems[0]}{others} Nothing was changed; mend this or pass --skip-bad."
    )


@contextlib.contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, if that is a terminal; gives what advances it."""
    console = Console(stderr=True)
    with Progress(
        console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)


def percent(share: float) -> str:
    """A share as a percentage with three digits that count."""
    return f"{100 * share:.3g} %"
