"""Recipes: one module each, with its `Settings`, its `build` and a measured result.

A new recipe is a new file here; `train.py` finds it by its name.
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
        name: one of `names()`.

    Returns:
        The module; it has `Settings` and `build`.

    Raises:
        ValueError: if there is no such recipe.

    Example:
        >>> load("arcface").Settings().data
        'digits'
    """
    if name not in names():
        raise ValueError(
            f"Expected a recipe of {', '.join(names())}, got {name!r}; "
            "python train.py --list shows what each does."
        )
    return importlib.import_module(f"{__name__}.{name}")
