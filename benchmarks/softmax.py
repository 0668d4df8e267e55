"""Margin softmax over many classes, with the gradient of embeddings and class weights.

A step, besides, updates the class weights by SGD; ours, `heads.fused_update`, does so
without storing their gradient. It results in the loss, the gradient of the embeddings,
and the new class weights.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cases import Call, Case
from benchmarks.inputs import DIM, jax_call, torch_call, torch_device, unit_vectors

BATCH, SCALE, RATE = 256, 64.0, 0.1
MARGINS = {"arcface": 0.5, "cosface": 0.35}
MILLION = 1_000_000


def _inputs(classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    y = np.random.default_rng(1).integers(classes, size=BATCH).astype(np.int32)
    return unit_vectors(BATCH), unit_vectors(classes, seed=2), y


def _jax(name: str, classes: int) -> Call:
    from metricjax import losses

    x, w, y = _inputs(classes)
    loss = getattr(losses, name)
    return jax_call(lambda x, w: loss(x, w, y, margin=MARGINS[name], scale=SCALE), x, w)


def _jax_step(name: str, classes: int) -> Call:
    import jax
    import optax
    from jax.tree_util import Partial

    from metricjax import heads, margins

    x, w, y = _inputs(classes)
    margin = Partial(getattr(margins, name), margin=MARGINS[name])
    tx = optax.sgd(RATE)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(w, state):
        return heads.fused_update(tx, x, w, state, y, margin=margin, scale=SCALE)

    held = [jax.device_put(w), tx.init(w)]

    def call() -> tuple[Any, ...]:
        found = jax.block_until_ready(step(*held))
        held[:] = found.class_weights, found.state
        return found.loss, found.gradient, found.class_weights

    return call


def _pml(name: str, classes: int, rate: float | None = None) -> Call:
    import torch
    from pytorch_metric_learning import losses

    x, w, y = _inputs(classes)
    kind = {"arcface": losses.ArcFaceLoss, "cosface": losses.CosFaceLoss}[name]
    # pytorch-metric-learning takes the angular margin in degrees.
    margin = math.degrees(MARGINS[name]) if name == "arcface" else MARGINS[name]
    loss = kind(num_classes=classes, embedding_size=DIM, margin=margin, scale=SCALE)
    loss.W.data = torch.tensor(w.T.copy())
    loss = loss.to(torch_device())
    target = torch.tensor(y, dtype=torch.int64, device=torch_device())
    return torch_call(lambda x: loss(x, target), x, parameters=(loss.W,), rate=rate)


def _torch(name: str, classes: int, rate: float | None = None) -> Call:
    """The best we could write: the margin on the gathered target alone."""
    import torch
    from torch.nn import functional

    x, w, y = _inputs(classes)
    target = torch.tensor(y, dtype=torch.int64, device=torch_device())
    margin = MARGINS[name]

    def run(x, w):
        cosine = functional.normalize(x) @ functional.normalize(w).T
        c = cosine.gather(1, target[:, None])
        if name == "arcface":
            sine = ((1 - c) * (1 + c)).clamp(min=1e-12).sqrt()
            moved = c * math.cos(margin) - sine * math.sin(margin)
            moved = torch.where(
                c > -math.cos(margin), moved, c - margin * math.sin(margin)
            )
        else:
            moved = c - margin
        logits = cosine.scatter(1, target[:, None], moved)
        return functional.cross_entropy(SCALE * logits, target)

    return torch_call(run, x, w, rate=rate)


def _case(name: str, classes: int, contestants: dict[str, Callable[[], Call]]) -> Case:
    return Case(
        name,
        classes,
        contestants,
        quick=classes <= 16384,
        gradient_tolerance=1e-3,
        flops=6 * BATCH * classes * DIM,
        # The weights are read, and their gradient (or their new values) written.
        bytes=2 * 4 * classes * DIM,
        unit="classes",
        may_fail=frozenset({"pml", "torch"} if classes >= MILLION else ()),
    )


def loss(name: str, classes: int) -> Case:
    """Value and gradient, at one number of classes."""
    calls = {"jax": _jax, "pml": _pml, "torch": _torch}
    contestants = {
        library: functools.partial(call, name, classes)
        for library, call in calls.items()
    }
    return _case(name, classes, contestants)


def step(name: str, classes: int) -> Case:
    """A step of SGD on the class weights, at one number of classes."""
    contestants = {
        "jax": functools.partial(_jax_step, name, classes),
        "pml": functools.partial(_pml, name, classes, RATE),
        "torch": functools.partial(_torch, name, classes, RATE),
    }
    return _case(f"{name}_step", classes, contestants)


CASES = [
    *(loss("arcface", classes) for classes in (1024, 16384, 131072, MILLION)),
    *(loss("cosface", classes) for classes in (1024, 16384, 131072)),
    *(step("arcface", classes) for classes in (16384, 131072, MILLION)),
]
