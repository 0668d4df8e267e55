"""Inputs that every library gets alike, and how each is called with its gradient."""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cases import Call

DIM, PER_CLASS = 128, 4


def unit_vectors(rows: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    """Random unit vectors, float32."""
    x = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def clustered(labels: np.ndarray, spread: float, dim: int = DIM) -> np.ndarray:
    """Unit vectors around a center for each class, float32."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(int(labels.max()) + 1, dim)).astype(np.float32)
    noise = rng.normal(size=(len(labels), dim)).astype(np.float32)
    x = centers[labels] + spread * noise
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def labels(rows: int, per_class: int = PER_CLASS) -> np.ndarray:
    """Labels of batches with so many examples per class."""
    return (np.arange(rows) // per_class).astype(np.int32)


def jax_call(loss: Callable[..., Any], *arrays: np.ndarray) -> Call:
    """Value and gradient with respect to all arrays, compiled, under JAX."""
    import jax

    step = jax.jit(jax.value_and_grad(loss, argnums=tuple(range(len(arrays)))))
    inputs = [jax.device_put(x) for x in arrays]

    def call() -> tuple[Any, ...]:
        value, gradients = jax.block_until_ready(step(*inputs))
        return value, *gradients

    return call


def jax_on_units(loss: Callable[..., Any], embeddings: np.ndarray) -> Call:
    """The same of a loss that does not normalise, where the peer's does."""
    from metricjax.numerics import l2_normalize

    return jax_call(lambda x: loss(l2_normalize(x)), embeddings)


def torch_device() -> str:
    """The accelerator of torch if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def torch_call(
    loss: Callable[..., Any],
    *arrays: np.ndarray,
    parameters: tuple[Any, ...] = (),
    rate: float | None = None,
) -> Call:
    """Value and gradient with respect to all arrays and parameters, under torch.

    Args:
        loss: of tensors made of the arrays.
        *arrays: the inputs.
        parameters: tensors that the loss holds itself, one column for each class.
        rate: of a step of SGD on all but the first array, which are then results in
            place of their gradients.
    """
    import torch

    device = torch_device()
    inputs = [torch.tensor(x, device=device, requires_grad=True) for x in arrays]
    moved = [*inputs[1:], *parameters]

    def call() -> tuple[Any, ...]:
        for x in (*inputs, *parameters):
            x.grad = None
        value = loss(*inputs)
        value.backward()
        if rate is not None:
            with torch.no_grad():
                for x in moved:
                    x.sub_(x.grad, alpha=rate)
        if device == "cuda":
            torch.cuda.synchronize()
        results = [*inputs, *(x.T for x in parameters)]
        slopes = [*(x.grad for x in inputs), *(x.grad.T for x in parameters)]
        return value, slopes[0], *(slopes if rate is None else results)[1:]

    return call
