"""Makes metricjax/CATALOGUE.md from the code: `python -m tests.catalogue`.

What a function is and where it comes from is read off its docstring, its defaults off
its signature, what it takes and what memory off its row of the conformance table.
"""

import inspect
import pathlib
import re
from collections.abc import Callable, Iterator
from types import ModuleType

from jax.tree_util import Partial

from metricjax import distances, losses, margins, mining, similarities
from tests.conformance import LOSSES
from tests.conformance.row import Row

PATH = pathlib.Path(__file__).parents[1] / "metricjax" / "CATALOGUE.md"

HEAD = """# Catalogue

Made from the code by `python -m tests.catalogue`; do not edit. "pairs": takes labels or
`Pairs` masks, and references (a queue, a gallery). "classes": takes class indices and
class weights or proxies. "aligned": row i of one set belongs to row i of another. Every
loss takes `where`, `weights` and `reduction`. Memory is what value and gradient need
beyond inputs and gradients: a *block* of rows, or more where it says so.
"""


def functions(module: ModuleType) -> Iterator[Callable]:
    """The public functions of a module."""
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isfunction(value):
            yield value


def what(function: Callable) -> str:
    """The first line of the docstring, without its formula."""
    line = (inspect.getdoc(function) or "").splitlines()[0]
    return re.split(r"[,:]? `", line)[0].rstrip(".:,").replace("|", "\\|")


def paper(function: Callable) -> str:
    """The first reference."""
    doc = inspect.getdoc(function) or ""
    if "References:" not in doc:
        return ""
    text = " ".join(doc.split("References:")[1].split())
    first = re.split(r";|(?<=\d)\. |\.$", text)[0]
    return re.sub(r", (eq\.|section|table|algorithm) .*", "", first).replace("|", "\\|")


def defaults(function: Callable) -> str:
    """Hyperparameters with their defaults."""
    shown = []
    for p in inspect.signature(function).parameters.values():
        if p.default is inspect.Parameter.empty or p.default is None:
            continue
        if p.name in {"reduction", "precision"}:
            continue
        name = getattr(p.default, "__name__", None) or repr(p.default)
        shown.append(f"{p.name}={name}")
    return f"`{', '.join(shown)}`" if shown else ""


def rows_of(function: Callable) -> list[Row]:
    """The rows of the conformance table that test a loss."""

    def tested(row: Row) -> str:
        loss = row.loss.func if isinstance(row.loss, Partial) else row.loss
        # By name: a row may wrap a loss to give it its inputs in another form.
        return getattr(loss, "__name__", "")

    return [row for row in LOSSES if tested(row) == function.__name__]


ALIGNED = {"other_embeddings", "positives", "guide_embeddings"}
CLASSES = {"class_weights", "proxies", "centers"}


def takes(function: Callable, row: Row) -> str:
    """What a loss is given, in a word."""
    names = inspect.signature(function).parameters.keys()
    if row.refs:
        return "pairs"
    if names & ALIGNED:
        return "aligned"
    if names & CLASSES:
        return "classes"
    return "labels" if "labels" in names else "no labels"


def table(head: list[str], lines: list[list[str]]) -> str:
    """A Markdown table."""
    body = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in body) + "\n"


def loss_line(function: Callable) -> list[str]:
    """The line of one loss."""
    row = rows_of(function)[0]
    memory = "block" if row.linear_memory else "see its docstring"
    devices = "yes" if row.sharded else "-"
    return [
        f"`{function.__name__}`",
        what(function),
        takes(function, row),
        defaults(function),
        memory,
        devices,
        paper(function),
    ]


def lines(module: ModuleType) -> list[list[str]]:
    """The lines of a module of other functions."""
    return [
        [f"`{f.__name__}`", what(f), defaults(f), paper(f)] for f in functions(module)
    ]


def text() -> str:
    """The whole catalogue."""
    loss_head = ["loss", "what", "takes", "defaults", "memory", "devices", "source"]
    short_head = ["name", "what", "defaults", "source"]
    found = list(functions(losses))
    parts = [
        HEAD,
        f"## {len(found)} losses (`metricjax.losses`)\n",
        table(loss_head, [loss_line(f) for f in found]),
    ]
    for module in (margins, mining, distances, similarities):
        module_lines = lines(module)
        parts.append(f"## {len(module_lines)} of `{module.__name__}`\n")
        parts.append(table(short_head, module_lines))
    return "\n".join(parts)


if __name__ == "__main__":
    PATH.write_text(text())
