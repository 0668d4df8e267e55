"""Training: state, step, loop, checkpoints, evaluation, recipes and reports.

For a loop of your own, `step.make_step` and `state.init` are all that is needed;
`loop.fit` adds progress, logs, checkpoints and exact resume, `parallel` many devices,
`processes` many machines; `run` does what `train.py` does. The modules are imported
when first used.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metricjax.training import (
        checkpoints,
        contrast,
        evaluate,
        experiment,
        finetune,
        folder,
        inputs,
        logs,
        loop,
        measures,
        official_runs,
        optimizers,
        parallel,
        pictures,
        processes,
        recipes,
        report,
        run,
        schedules,
        settings,
        splits,
        state,
        step,
        views,
    )

__all__ = [
    "checkpoints",
    "contrast",
    "evaluate",
    "experiment",
    "finetune",
    "folder",
    "inputs",
    "logs",
    "loop",
    "measures",
    "official_runs",
    "optimizers",
    "parallel",
    "pictures",
    "processes",
    "recipes",
    "report",
    "run",
    "schedules",
    "settings",
    "splits",
    "state",
    "step",
    "views",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
