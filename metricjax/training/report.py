"""The results of a run: tables on the terminal, `report.md` and `report.html`."""

import dataclasses
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rich import table as rich_table
from rich.console import Console
from rich.markup import escape

from metricjax.data.inspection import Inspection, described
from metricjax.training._document import (
    Block,
    Heading,
    Paragraph,
    Picture,
    Table,
    plain,
    to_html,
    to_markdown,
)
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
_PARTS = {
    "trained_on": "training",
    "calibrated_on": "calibration",
    "unseen_classes": "test, never seen",
}


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
    joined = plain(" ".join(names))
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
        >>> result = {"unseen_classes": ["9"], "trained_on": ["0"], **values}
        >>> show([result], Console(quiet=True))
    """
    for part, title in _sets(results).items():
        table = _titled(title)
        table.add_column("classes")
        table.add_column("embedding")
        for name in METRICS.values():
            table.add_column(name, justify="right")
        for row in _rows(results, part):
            style = "bold" if row[0] == "mean" else None
            cells = [escape(cell) for cell in row]
            table.add_row(*cells, style=style, end_section=row[1] != "raw pixels")
        console.print(table)
    further = _further(results)
    if further:
        table = rich_table.Table(
            title=_FURTHER, title_justify="left", title_style="bold"
        )
        table.add_column("measured")
        table.add_column(_spread(results), justify="right")
        for row in further:
            table.add_row(*map(escape, row))
        console.print(table)
    console.print(_gain(results))


def _titled(title: str) -> rich_table.Table:
    return rich_table.Table(title=title, title_justify="left", title_style="bold")


def write(
    folder: str | os.PathLike[str],
    recipe: ModuleType,
    settings: Settings,
    results: Sequence[Mapping[str, Any]],
    *,
    inspection: Inspection | None = None,
    summary: str | None = None,
) -> None:
    """Write `report.md`, which links the pictures, and `report.html`, which has them.

    Args:
        folder: the run's folder.
        recipe: the recipe's module.
        settings: its settings.
        results: the content of each split's `result.json`.
        inspection: the report on the image files, if the data are such.
        summary: the encoder as a Markdown table, from `metricjax.encoders.summary`.

    Example:
        >>> import tempfile
        >>> from metricjax.training.recipes import arcface
        >>> scores = {name: 0.5 for name in METRICS}
        >>> values = {part: {"raw": scores, "trained": scores} for part in _SETS}
        >>> results = [
        ...     {"split": 0, "unseen_classes": ["9"], "trained_on": ["0"], **values}
        ... ]
        >>> write(tempfile.mkdtemp(), arcface, arcface.Settings(), results)
    """
    folder = Path(folder)
    name = recipe.__name__.rpartition(".")[2]
    blocks = [
        Heading(f"Recipe {name}", 1),
        Paragraph((recipe.__doc__ or "").partition("\n")[0]),
        Paragraph(_explained(settings, len(results))),
        Paragraph(_gain(results), strong=True),
        *_measurements(results),
        *_thresholds(results),
        Heading("Pictures"),
        *(block for result in results for block in _pictures(folder, result)),
        *_worst(results),
        *_data(inspection, results),
        *_encoder(summary),
        Heading("Settings"),
        Table(
            ("setting", "value"),
            [(key, str(value)) for key, value in dataclasses.asdict(settings).items()],
        ),
    ]
    _put(folder / "report.md", to_markdown(blocks, folder))
    _put(folder / "report.html", to_html(blocks, title=f"Recipe {name}"))


def _put(path: Path, text: str) -> None:
    # Written beside its place and moved there, so that half a report is never read.
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _measurements(results: Sequence[Mapping[str, Any]]) -> list[Block]:
    blocks: list[Block] = []
    head = ("classes", "embedding", *METRICS.values())
    for part, title in _sets(results).items():
        blocks += [
            Heading(title),
            Table(head, _rows(results, part), frozenset(_NUMBERS)),
        ]
    further = _further(results)
    if further:
        blocks += [Heading(_FURTHER), Table(("measured", _spread(results)), further)]
    return blocks


def _thresholds(results: Sequence[Mapping[str, Any]]) -> list[Block]:
    """What the calibration chose, and what it does to the classes of the test."""
    rows = []
    for result in results:
        found = result.get("threshold")
        if not found:
            continue
        chosen, tested = found["calibration"], found["test"]
        for where, rates, far in (
            ("calibration", chosen, chosen["observed_far"]),
            ("test", tested, tested["far"]),
        ):
            low, high = (f"{100 * rate:.2g}" for rate in rates["far_interval"])
            rows.append(
                (
                    f"{result['split']}",
                    f"{chosen['threshold']:.4f}",
                    where,
                    f"{100 * far:.3g} % ({low} to {high} %)",
                    f"{100 * rates['tar']:.3g} %",
                    f"{rates['impostors']:,}",
                )
            )
    if not rows:
        return []
    wanted = results[0]["threshold"]["calibration"]["far"]
    head = ("split", "threshold", "classes", "FAR (95 % interval)", "TAR", "impostors")
    text = (
        "Pairs of images at least as similar as the threshold are taken for the same. "
        f"It was chosen for a false accept rate (FAR) of {100 * wanted:g} % on classes "
        "that were neither trained nor tested on; TAR is the true accept rate, "
        "impostors the number of pairs of two classes."
    )
    return [Heading("Threshold"), Paragraph(text), Table(head, rows)]


def _worst(results: Sequence[Mapping[str, Any]]) -> list[Block]:
    rows = [
        (f"{result['split']}", kind, first, second, f"{similarity:.4f}")
        for result in results
        for key, kind in (("impostors", "two classes"), ("genuine", "one class"))
        for first, second, similarity in result.get("worst", {}).get(key, ())
    ]
    if not rows:
        return []
    text = (
        "The most similar images of two classes, and the least similar of one: the "
        "worst pair of each two classes, and of each class. Look here for wrong labels."
    )
    head = ("split", "pair of", "first", "second", "similarity")
    table = Table(head, rows, frozenset({"similarity"}))
    return [Heading("Worst pairs"), Paragraph(text), table]


def _data(
    inspection: Inspection | None, results: Sequence[Mapping[str, Any]]
) -> list[Block]:
    blocks: list[Block] = [Heading("Data")]
    if inspection is not None:
        blocks += [Table(("of the images", "found"), described(inspection))]
    rows = [
        (f"{result['split']}", part, f"{len(names)}", " ".join(names))
        for result in results
        for key, part in _PARTS.items()
        if (names := result.get(key))
    ]
    return [*blocks, Table(("split", "part", "classes", "names"), rows)]


def _encoder(summary: str | None) -> list[Block]:
    if summary is None:
        return []
    lines = [line.strip("| ").split(" | ") for line in summary.splitlines()]
    head, _, *rows = lines
    return [Heading("Encoder"), Table(head, rows, frozenset({"parameters"}))]


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
        kept = "all"
        if unseen:
            trained = label(result["trained_on"])
            kept = trained if trained.endswith("classes") else f"not {unseen}"
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


def _pictures(folder: Path, result: Mapping[str, Any]) -> list[Block]:
    path = folder / f"split{result['split']}"
    title = f"Split {result['split']}"
    if result["unseen_classes"]:
        title += f", never seen: {label(result['unseen_classes'])}"
    shown = [
        Picture(path / f"{name}.png", caption)
        for name, caption in PICTURES.items()
        if (path / f"{name}.png").exists()
    ]
    return [Heading(title, 3), *shown]
