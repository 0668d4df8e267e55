"""Evaluation of embeddings: exact, blocked, with ties that never flatter.

Each metric lives in the module of its question and nowhere else:

- `retrieval`: is the nearest item of the same class? Recall@k, MAP@R, ...
- `verification`: are two items the same? ROC, EER, TAR@FAR, ...
- `identification`: who is this, or is it unknown? CMC, TPIR@FPIR, OSCR, ...
- `fewshot`: N-way K-shot episodes and the official Omniglot runs.
- `clustering`: k-means, NMI, AMI, ARI.
- `health`: alignment, uniformity, effective rank, collapse.

    from metricjax.metrics import retrieval

    retrieval.evaluate(embeddings, labels).map_at_r
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metricjax.metrics import (
        clustering,
        fewshot,
        health,
        identification,
        retrieval,
        verification,
    )

__all__ = [
    "clustering",
    "fewshot",
    "health",
    "identification",
    "retrieval",
    "verification",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
