"""metricjax: metric learning for JAX.

Losses, mining, margins and heads as pure functions that jit, vmap, differentiate and
shard; encoders, training, honest evaluation and galleries composed around them.

    import metricjax as mj

    loss = mj.losses.arcface(embeddings, class_weights, labels)
    loss = mj.losses.triplet_all(embeddings, labels, margin=0.2)

Each public name lives at exactly one path, in one of the modules below; they are
imported when first used, so `import metricjax` loads jax and numpy alone.
"""

import importlib
from importlib.metadata import version as _version
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metricjax import (
        bundle,
        cohorts,
        data,
        distances,
        encoders,
        gallery,
        heads,
        losses,
        margins,
        memory,
        metrics,
        mining,
        numerics,
        pairs,
        plots,
        reductions,
        rows,
        samplers,
        similarities,
        training,
        transforms,
        whitening,
    )

__version__ = _version("metricjax")

__all__ = [
    "bundle",
    "cohorts",
    "data",
    "distances",
    "encoders",
    "gallery",
    "heads",
    "losses",
    "margins",
    "memory",
    "metrics",
    "mining",
    "numerics",
    "pairs",
    "plots",
    "reductions",
    "rows",
    "samplers",
    "similarities",
    "training",
    "transforms",
    "whitening",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
