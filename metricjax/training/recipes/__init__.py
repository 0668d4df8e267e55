"""Recipes: one module each; `train.py` finds it by its name.

A recipe has

- a docstring: its first line says what it is; a paragraph that begins with "Measured"
  gives the result and the time, and "References:" the source, which `about` finds;
- `Settings`, a frozen dataclass that extends `metricjax.training.settings.Settings`;
  its fields are the flags of `train.py`;
- `build(settings, image_shape, classes) -> Experiment`: the training problem for images
  `(height, width, channels)` and a number of training classes, before symmetries
  multiply them;
- if it divides its data in its own way, `divide(settings, data_dir=...) -> [Split]`, as
  `metricjax.training.splits.divide`;
- if it measures more than all recipes do, `measure(settings, split, trained,
  data_dir=...) -> {what: value}`, where `trained` is a
  `metricjax.training.run.Trained`;
- if what it compares are not pairs of the same and of different classes, `EXAMPLES`:
  "triplets", or "views" of one image, of which the report then shows a sheet.
"""

import importlib
import inspect
import pkgutil
import re
from types import ModuleType
from typing import NamedTuple

__all__ = ["About", "about", "load", "names"]


class About(NamedTuple):
    """What a recipe says of itself, each in one line.

    Attributes:
        summary: what it is.
        data: the data set that it trains on by default.
        measured: its result and time, or "".
        source: the first of its references, or "".
    """

    summary: str
    data: str
    measured: str
    source: str


def about(name: str) -> About:
    """What a recipe's docstring says.

    Args:
        name: one of `names()`.

    Returns:
        The summary, the data, the measured result and the source.

    Raises:
        ValueError: if there is no such recipe.

    Example:
        >>> about("arcface").data, about("arcface").source.partition(",")[0]
        ('digits', 'Deng et al.')
    """
    recipe = load(name)
    doc = inspect.getdoc(recipe) or ""
    references = doc.partition("References:\n")[2]
    return About(
        summary=doc.partition("\n")[0],
        data=recipe.Settings().data,
        measured=_paragraph(doc, "Measured"),
        source=_first_sentence(" ".join(references.split())),
    )


def _paragraph(doc: str, start: str) -> str:
    found = (part for part in doc.split("\n\n") if part.startswith(start))
    return " ".join(next(found, "").split())


def _first_sentence(references: str) -> str:
    """Up to the first full stop that ends a reference: after a number or a year."""
    return re.split(r"(?<=\d)\. |(?<=\w\w\w)\. (?=[A-Z][a-z]+ et al)", references)[0]


def names() -> list[str]:
    """The recipes there are.

    Returns:
        Their names, in alphabetical order.

    Example:
        >>> "arcface" in names()
        True
    """
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> ModuleType:
    """A recipe's module.

    Args:
        name: one of `names()`; dashes stand for underscores.

    Returns:
        The module; it has `Settings` and `build`.

    Raises:
        ValueError: if there is no such recipe.

    Example:
        >>> load("arcface").Settings().data
        'digits'
    """
    name = name.replace("-", "_")
    if name not in names():
        raise ValueError(
            f"Expected a recipe of {', '.join(names())}, got {name!r}; "
            "python train.py --list shows what each does."
        )
    return importlib.import_module(f"{__name__}.{name}")
