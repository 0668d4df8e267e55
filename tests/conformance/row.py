"""What a row of the conformance table says about a loss."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

BATCH, DIM, CLASSES = "batch", "dim", 4

EMBEDDINGS = {"embeddings": (BATCH, DIM)}
CLASS_WEIGHTS = EMBEDDINGS | {"class_weights": (CLASSES, DIM)}


class Row(NamedTuple):
    """A loss under test.

    Attributes:
        name: of the row; that of the loss, with a suffix for a variant.
        loss: `(**inputs, labels, **options) -> scalar`.
        oracle: `(**inputs, labels) -> float`, on float64 arrays.
        inputs: name -> shape of each float argument, `BATCH` and `DIM` standing for the
            batch and the size of an embedding.
        labels: whether it takes labels; a regulariser takes none.
        refs: whether it takes `ref_embeddings` and `Pairs`: a pair loss.
        blocks: whether it takes `block_size`.
        sharded: whether it takes `axis_name`.
        ring: whether it can pass candidates round a ring of devices.
        linear_memory: whether it needs no `[batch, batch]` array.
        frozen: `(**inputs, labels) -> oracle`, an oracle in which what the loss takes
            no gradient through (detached weights) is that of these inputs.
    """

    name: str
    loss: Callable[..., Any]
    oracle: Callable[..., float]
    inputs: dict[str, tuple[Any, ...]] = EMBEDDINGS
    labels: bool = True
    refs: bool = True
    blocks: bool = True
    sharded: bool = True
    ring: bool = False
    linear_memory: bool = True
    frozen: Callable[..., Callable[..., float]] | None = None


def per_example(row: Row) -> list[str]:
    """The inputs that have a row for each example."""
    return [name for name, shape in row.inputs.items() if shape[:1] == (BATCH,)]


def make_inputs(row: Row, batch: int, dim: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random float64 inputs of a row; scalars are positive, around one."""
    rng = np.random.default_rng(seed)
    sizes: dict[Any, Any] = {BATCH: batch, DIM: dim}

    def make(shape: tuple[Any, ...]) -> np.ndarray:
        if not shape:
            return np.asarray(rng.uniform(0.8, 1.2))
        return rng.normal(size=tuple(sizes.get(n, n) for n in shape))

    return {name: make(shape) for name, shape in row.inputs.items()}
