"""Inputs that every library gets alike, and how each is called with its gradient."""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cases import Call

DIM, PER_CLASS = 128, 4


def unit_vectors(rows: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    """Random unit vectors, float32."""
    x = np.random.default_rng(seed).normal(size=(rows, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def labels(rows: int, per_class: int = PER_CLASS) -> np.ndarray:
    """Labels of batches with so many examples per class."""
    return (np.arange(rows) // per_class).astype(np.int32)


def jax_call(loss: Callable[..., Any], *arrays: np.ndarray) -> Call:
    """Value and gradient with respect to all arrays, compiled, under JAX."""
    import jax

    step = jax.jit(jax.value_and_grad(loss, argnums=tuple(range(len(arrays)))))
    inputs = [jax.device_put(x) for x in arrays]

    def call() -> float:
        value, gradients = step(*inputs)
        jax.block_until_ready(gradients)
        return float(value)

    return call


def torch_call(loss: Callable[..., Any], *arrays: np.ndarray) -> Call:
    """Value and gradient with respect to all arrays, under torch."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    inputs = [torch.tensor(x, device=device, requires_grad=True) for x in arrays]

    def call() -> float:
        for x in inputs:
            x.grad = None
        value = loss(*inputs)
        value.backward()
        return float(value.detach().cpu())

    return call
