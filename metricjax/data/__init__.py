"""Where images and labels come from, and how they are divided.

`load` gives every data set in one form, a `Dataset`; `split_by_class` and `hold_out`
divide it by index arrays. Everything here runs on the host, in NumPy.
"""

from metricjax.data.dataset import Dataset
from metricjax.data.loading import load
from metricjax.data.splits import ClassSplit, HoldOut, hold_out, split_by_class

__all__ = ["ClassSplit", "Dataset", "HoldOut", "hold_out", "load", "split_by_class"]
