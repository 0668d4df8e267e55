"""Where images and labels come from, and how they are divided and changed.

`load` gives every data set in one form, a `Dataset`; `split_by_class` and `hold_out`
divide it by index arrays. All this runs on the host, in NumPy. `augment` changes images
at random, on the device; it is imported when first used.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from metricjax.data import audio, text
from metricjax.data.columns import relabel
from metricjax.data.dataset import Dataset
from metricjax.data.loading import load
from metricjax.data.splits import ClassSplit, HoldOut, hold_out, split_by_class

if TYPE_CHECKING:
    from metricjax.data import augment

__all__ = [
    "ClassSplit",
    "Dataset",
    "HoldOut",
    "audio",
    "augment",
    "hold_out",
    "load",
    "relabel",
    "split_by_class",
    "text",
]

_LAZY = ("augment",)


def __getattr__(name: str) -> ModuleType:
    if name in _LAZY:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
