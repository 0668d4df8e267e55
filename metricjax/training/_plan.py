"""What a run is made of, before and after training."""

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np

from metricjax import encoders
from metricjax.data.inspection import Inspection
from metricjax.training.experiment import Experiment
from metricjax.training.settings import Settings
from metricjax.training.splits import Split
from metricjax.training.state import State


class Plan(NamedTuple):
    """A run whose data are read, whose settings are checked, whose folder is open.

    `layout` says where a state is to be, on the devices of a mesh; None for one device.
    """

    recipe: ModuleType
    settings: Settings
    splits: list[Split]
    experiment: Experiment
    folder: Path
    data_dir: str | os.PathLike[str] | None
    inspection: Inspection | None = None
    layout: Any = None


class Trained(NamedTuple):
    """A trained split, for a recipe's own `measure` and `draw`.

    Attributes:
        state: after the last step.
        apply: the encoder.
        embed: embeddings of images, as an array `[n, dim]`.
    """

    state: State
    apply: encoders.Apply
    embed: Callable[[np.ndarray], np.ndarray]


def seed(settings: Settings, index: int) -> int:
    """The seed of the batches of a split."""
    # Splits draw their own batches, and split 0 those of the seed itself.
    return settings.seed + (index << 32)


def key(settings: Settings) -> jax.Array:
    """The random key of a run."""
    # Programs that draw numbers compile 15 times faster with XLA's own generator.
    return jax.random.key(settings.seed, impl="rbg")
