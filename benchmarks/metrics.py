"""Evaluation: all retrieval metrics, and exact nearest neighbours."""

import functools
from typing import Any

import numpy as np

from benchmarks.cases import Call, Case
from benchmarks.inputs import DIM, clustered, labels

NEIGHBORS = 10
# Metrics of the peer, in the order in which they are compared. It computes others too,
# which it cuts off after as many neighbours as are relevant.
METRICS = ("precision_at_1", "r_precision", "mean_average_precision_at_r")


def _gallery(items: int, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """A gallery where about half of what is found first is right."""
    y = labels(items, per_class)
    return clustered(y, spread=2.0 if per_class < 100 else 6.0), y


def _jax_metrics(items: int, per_class: int) -> Call:
    import jax

    from metricjax.metrics import retrieval

    x, y = _gallery(items, per_class)
    x = jax.device_put(x)

    def call() -> tuple[Any, ...]:
        found = jax.block_until_ready(retrieval.evaluate(x, y, ks=(1,)))
        return found.recall_at_k[0], found.r_precision, found.map_at_r

    return call


def _pml_metrics(items: int, per_class: int) -> Call:
    import torch
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    calculator = AccuracyCalculator(exclude=("NMI", "AMI"), k="max_bin_count")
    x, y = map(torch.tensor, _gallery(items, per_class))

    def call() -> tuple[Any, ...]:
        found = calculator.get_accuracy(x, y)
        return tuple(np.array(found[name]) for name in METRICS)

    return call


def _jax_neighbors(items: int) -> Call:
    import jax
    from jax.tree_util import Partial

    from metricjax import similarities
    from metricjax.metrics import retrieval

    x = jax.device_put(_gallery(items, 5)[0])
    dot = Partial(similarities.dot)

    def call() -> tuple[Any, ...]:
        found = retrieval.nearest(x, x, k=NEIGHBORS, similarity=dot)
        return (jax.block_until_ready(found).similarities,)

    return call


def _faiss_neighbors(items: int) -> Call:
    import faiss

    x = _gallery(items, 5)[0]
    index = faiss.IndexFlatIP(DIM)
    index.add(x)  # pyright: ignore[reportCallIssue]

    def call() -> tuple[Any, ...]:
        return (index.search(x, NEIGHBORS)[0],)  # pyright: ignore[reportCallIssue]

    return call


def retrieval_metrics(
    items: int, per_class: int, *, quick: bool = False, peer: bool = True
) -> Case:
    """All retrieval metrics of a gallery against itself."""
    few = per_class < 100
    ours = functools.partial(_jax_metrics, items, per_class)
    peer_call = functools.partial(_pml_metrics, items, per_class)
    return Case(
        "retrieval_metrics" if few else "retrieval_metrics_10_classes",
        items,
        {"jax": ours, **({"pml": peer_call} if peer else {})},
        quick,
        # A few of so many neighbours are nearly as far, and change places.
        tolerance=1e-3,
        gradient_tolerance=1e-3,
        flops=2 * items**2 * DIM,
        unit="gallery",
        may_fail=frozenset({"pml"}),
    )


def neighbors(items: int, *, quick: bool = False) -> Case:
    """The ten nearest rows of each row, exactly."""
    return Case(
        "nearest_neighbors",
        items,
        {
            "jax": functools.partial(_jax_neighbors, items),
            "faiss": functools.partial(_faiss_neighbors, items),
        },
        quick,
        flops=2 * items**2 * DIM,
        unit="gallery",
    )


CASES = [
    retrieval_metrics(5_000, 5, quick=True),
    retrieval_metrics(20_000, 5),
    retrieval_metrics(5_000, 500, quick=True),
    retrieval_metrics(20_000, 2_000),
    # The peer makes lists of 6,000 neighbours of each: it did not end in a minute.
    retrieval_metrics(60_000, 6_000, peer=False),
    neighbors(10_000, quick=True),
    neighbors(60_000),
]
