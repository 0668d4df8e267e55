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
_FURTHER = "Further measurements"
_NUMBERS = tuple(METRICS.values())
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
        `{"unseen" | "seen": {"raw" | "trained": {metric: mean}}}`, of what was
        measured.

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
        for part in _sets(results)
    }


def _sets(results: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {part: title for part, title in _SETS.items() if part in results[0]}


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
    for part, title in _sets(results).items():
        table = Table(title=title, title_justify="left", title_style="bold")
        table.add_column("classes")
        table.add_column("embedding")
        for name in METRICS.values():
            table.add_column(name, justify="right")
        for row in _rows(results, part):
            style = "bold" if row[0] == "mean" else None
            table.add_row(*row, style=style, end_section=row[1] != "raw pixels")
        console.print(table)
    further = _further(results)
    if further:
        table = Table(title=_FURTHER, title_justify="left", title_style="bold")
        table.add_column("measured")
        table.add_column(_spread(results), justify="right")
        for row in further:
            table.add_row(*row)
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
    head = ["classes", "embedding", *METRICS.values()]
    for part, title in _sets(results).items():
        lines += [f"## {title}", "", *_markdown(head, _rows(results, part)), ""]
    if _further(results):
        head = ["measured", _spread(results)]
        lines += [f"## {_FURTHER}", "", *_markdown(head, _further(results)), ""]
    lines += ["## Pictures", ""]
    for result in results:
        lines += _pictures(folder, result)
    lines += ["## Settings", "", "| setting | value |", "|---|---|"]
    values = dataclasses.asdict(settings).items()
    lines += [f"| {name} | {value} |" for name, value in values]
    (folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _explained(settings: Settings, splits: int) -> str:
    tuning = settings.validation_classes or settings.validation_groups
    kind = "validation" if tuning else "test"
    tested = (
        f"The encoder never saw the {kind} classes of its split."
        if settings.test_classes
        else "The encoder never saw the images that it is tested on."
    )
    return (
        f"{splits} split{'s' if splits > 1 else ''} of data set `{settings.data}`. "
        f"{tested} Every image of a set is compared with every other. Larger is "
        "better, except for the equal error rate (EER). Measured with the parameters "
        "of the last step."
    )


def _gain(results: Sequence[Mapping[str, Any]]) -> str:
    part, title = next(iter(_sets(results).items()))
    mean = means(results)[part]
    changes = ", ".join(
        f"{name} {mean['trained'][key] - mean['raw'][key]:+.3f}"
        for key, name in METRICS.items()
    )
    return f"Trained against raw pixels, {title[0].lower()}{title[1:]}: {changes}"


def _rows(results: Sequence[Mapping[str, Any]], part: str) -> list[list[str]]:
    groups = []
    for result in results:
        unseen = label(result["unseen_classes"])
        kept = f"not {unseen}" if unseen else "all"
        groups.append((unseen if part == "unseen" else kept, result[part]))
    if len(results) > 1:
        groups.append(("mean", means(results)[part]))
    return [
        [label, title, *_numbers(values[kind])]
        for label, values in groups
        for kind, title in _EMBEDDINGS.items()
    ]


def _further(results: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """What else was measured, with its mean and its spread over the splits."""
    rows = []
    for name in results[0].get("further", {}):
        values = [result["further"][name] for result in results]
        text = f"{statistics.fmean(values):.4f}"
        if len(values) > 1:
            text += f" ± {statistics.stdev(values):.4f}"
        rows.append([name, text])
    return rows


def _spread(results: Sequence[Mapping[str, Any]]) -> str:
    if len(results) == 1:
        return "value"
    return f"mean ± standard deviation of {len(results)} splits"


def _numbers(values: Mapping[str, float]) -> list[str]:
    return [f"{values[name]:.3f}" for name in METRICS]


def _markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    rules = ["---:" if name in _NUMBERS else "---" for name in head]
    return ["| " + " | ".join(row) + " |" for row in (head, rules, *rows)]


def _pictures(folder: Path, result: Mapping[str, Any]) -> list[str]:
    path = folder / f"split{result['split']}"
    title = f"Split {result['split']}"
    if result["unseen_classes"]:
        title += f", never seen: {label(result['unseen_classes'])}"
    links = [
        f"![{caption}]({path.name}/{name}.png)"
        for name, caption in PICTURES.items()
        if (path / f"{name}.png").exists()
    ]
    return [f"### {title}", "", *links, ""]
