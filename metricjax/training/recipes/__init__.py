"""Recipes: one module each; `train.py` finds it by its name.

A recipe has

- a docstring: its first line says what it is, then the command, the measured result and
  the source;
- `Settings`, a frozen dataclass that extends `metricjax.training.settings.Settings`;
  its fields are the flags of `train.py`;
- `build(settings, image_shape, classes) -> Experiment`: the training problem for images
  `(height, width, channels)` and a number of training classes, before symmetries
  multiply them;
- if it divides its data in its own way, `divide(settings, data_dir=...) -> [Split]`, as
  `metricjax.training.splits.divide`;
- if it measures more than all recipes do, `measure(settings, split, trained,
  data_dir=...) -> {what: value}`, where `trained` is a
  `metricjax.training.run.Trained`.
"""

import importlib
import pkgutil
from types import ModuleType

__all__ = ["load", "names"]


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
