"""The results of a run as a table on the terminal and as `report.md`."""

import dataclasses
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.table import Table

from metricjax.training.evaluate import METRICS
from metricjax.training.pictures import PICTURES
from metricjax.training.settings import Settings

__all__ = ["label", "means", "show", "write"]

_SETS = {
    "unseen": "Classes never seen in training",
    "seen": "Held-out images of the training classes",
}
_EMBEDDINGS = {"raw": "raw pixels", "trained": "trained"}
_LONGEST = 20


def label(names: Sequence[str]) -> str:
    """Classes in few characters: their names, or how many there are.

    Args:
        names: of the classes.

    Returns:
        At most about 20 characters.

    Example:
        >>> label(["7", "8", "9"]), label(["sneaker", "ankle boot", "bag"])
        ('7 8 9', '3 classes')
    """
    joined = " ".join(names)
    return joined if len(joined) <= _LONGEST else f"{len(names)} classes"


def means(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Every measured value, averaged over the splits.

    Args:
        results: the content of each split's `result.json`.

    Returns:
        `{"unseen" | "seen": {"raw" | "trained": {metric: mean}}}`.

    Example:
        >>> scores = {name: 0.5 for name in METRICS}
        >>> result = {part: {"raw": scores, "trained": scores} for part in _SETS}
        >>> means([result, result])["unseen"]["raw"]["map_at_r"]
        0.5
    """
    return {
        part: {
            kind: {
                name: statistics.fmean(result[part][kind][name] for result in results)
                for name in METRICS
            }
            for kind in _EMBEDDINGS
        }
        for part in _SETS
    }


def show(results: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print one table for unseen classes and one for seen ones.

    Args:
        results: the content of each split's `result.json`.
        console: where to.

    Example:
        >>> scores = {name: 0.5 for name in METRICS}
        >>> values = {part: {"raw": scores, "trained": scores} for part in _SETS}
        >>> show([{"unseen_classes": ["9"], **values}], Console(quiet=True))
    """
    for part, title in _SETS.items():
        table = Table(title=title, title_justify="left", title_style="bold")
        table.add_column("classes")
        table.add_column("embedding")
        for name in METRICS.values():
            table.add_column(name, justify="right")
        for row in _rows(results, part):
            style = "bold" if row[0] == "mean" else None
            table.add_row(*row, style=style, end_section=row[1] != "raw pixels")
        console.print(table)
    console.print(_gain(results))


def write(
    folder: str | os.PathLike[str],
    recipe: ModuleType,
    settings: Settings,
    results: Sequence[Mapping[str, Any]],
) -> None:
    """Write `report.md` with the tables, the settings and the pictures.

    Args:
        folder: the run's folder.
        recipe: the recipe's module.
        settings: its settings.
        results: the content of each split's `result.json`.

    Example:
        >>> import tempfile
        >>> from metricjax.training.recipes import arcface
        >>> scores = {name: 0.5 for name in METRICS}
        >>> values = {part: {"raw": scores, "trained": scores} for part in _SETS}
        >>> results = [{"split": 0, "unseen_classes": ["9"], **values}]
        >>> write(tempfile.mkdtemp(), arcface, arcface.Settings(), results)
    """
    folder = Path(folder)
    name = recipe.__name__.rpartition(".")[2]
    summary = (recipe.__doc__ or "").partition("\n")[0]
    lines = [f"# Recipe {name}", "", summary, ""]
    lines += [_explained(settings, len(results)), "", f"**{_gain(results)}**", ""]
    for part, title in _SETS.items():
        lines += [f"## {title}", "", *_markdown(_rows(results, part)), ""]
    lines += ["## Pictures", ""]
    for result in results:
        lines += _pictures(folder, result)
    lines += ["## Settings", "", "| setting | value |", "|---|---|"]
    values = dataclasses.asdict(settings).items()
    lines += [f"| {name} | {value} |" for name, value in values]
    (folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _explained(settings: Settings, splits: int) -> str:
    kind = "validation" if settings.validation_classes else "test"
    return (
        f"{splits} split{'s' if splits > 1 else ''} of data set `{settings.data}`. "
        f"The encoder never saw the {kind} classes of its split. Every image of a set "
        "is compared with every other by cosine similarity. Larger is better, except "
        "for the equal error rate (EER). Measured with the parameters of the last step."
    )


def _gain(results: Sequence[Mapping[str, Any]]) -> str:
    mean = means(results)["unseen"]
    changes = ", ".join(
        f"{title} {mean['trained'][name] - mean['raw'][name]:+.3f}"
        for name, title in METRICS.items()
    )
    return f"Trained against raw pixels on classes never seen: {changes}"


def _rows(results: Sequence[Mapping[str, Any]], part: str) -> list[list[str]]:
    groups = []
    for result in results:
        unseen = label(result["unseen_classes"])
        groups.append((unseen if part == "unseen" else f"not {unseen}", result[part]))
    if len(results) > 1:
        groups.append(("mean", means(results)[part]))
    return [
        [label, title, *_numbers(values[kind])]
        for label, values in groups
        for kind, title in _EMBEDDINGS.items()
    ]


def _numbers(values: Mapping[str, float]) -> list[str]:
    return [f"{values[name]:.3f}" for name in METRICS]


def _markdown(rows: list[list[str]]) -> list[str]:
    head = ["classes", "embedding", *METRICS.values()]
    return [
        "| " + " | ".join(row) + " |"
        for row in (head, ["---"] * 2 + ["---:"] * len(METRICS), *rows)
    ]


def _pictures(folder: Path, result: Mapping[str, Any]) -> list[str]:
    path = folder / f"split{result['split']}"
    title = f"Split {result['split']}, never seen: {label(result['unseen_classes'])}"
    links = [
        f"![{caption}]({path.name}/{name}.png)"
        for name, caption in PICTURES.items()
        if (path / f"{name}.png").exists()
    ]
    return [f"### {title}", "", *links, ""]
