"""Margin softmax over many classes; gradient of embeddings and class weights."""

import functools
import math

import numpy as np

from benchmarks.cases import Call, Case
from benchmarks.inputs import DIM, jax_call, torch_call, unit_vectors

BATCH, SCALE = 256, 64.0
MARGINS = {"arcface": 0.5, "cosface": 0.35}


def _inputs(classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    y = np.random.default_rng(1).integers(classes, size=BATCH).astype(np.int32)
    return unit_vectors(BATCH), unit_vectors(classes, seed=2), y


def _jax(name: str, classes: int) -> Call:
    from metricjax import losses

    x, w, y = _inputs(classes)
    loss = getattr(losses, name)
    return jax_call(lambda x, w: loss(x, w, y, margin=MARGINS[name], scale=SCALE), x, w)


def _pml(name: str, classes: int) -> Call:
    import torch
    from pytorch_metric_learning import losses

    x, w, y = _inputs(classes)
    kind = {"arcface": losses.ArcFaceLoss, "cosface": losses.CosFaceLoss}[name]
    # pytorch-metric-learning takes the angular margin in degrees.
    margin = math.degrees(MARGINS[name]) if name == "arcface" else MARGINS[name]
    loss = kind(num_classes=classes, embedding_size=DIM, margin=margin, scale=SCALE)
    loss.W.data = torch.tensor(w.T.copy())
    target = torch.tensor(y, dtype=torch.int64)

    def run(x):
        loss.W.grad = None
        return loss(x, target)

    return torch_call(run, x)


def _torch(name: str, classes: int) -> Call:
    """The best we could write: the margin on the gathered target alone."""
    import torch
    from torch.nn import functional

    x, w, y = _inputs(classes)
    target, margin = torch.tensor(y, dtype=torch.int64), MARGINS[name]

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

    return torch_call(run, x, w)


def _case(name: str, classes: int, peers: bool = True) -> Case:
    contestants = {"jax": functools.partial(_jax, name, classes)}
    if peers:
        contestants["pml"] = functools.partial(_pml, name, classes)
        contestants["torch"] = functools.partial(_torch, name, classes)
    return Case(
        name,
        classes,
        contestants,
        quick=classes <= 16384,
        flops=6 * BATCH * classes * DIM,
    )


CASES = [
    *(_case("arcface", classes) for classes in (1024, 16384, 131072)),
    *(_case("cosface", classes) for classes in (1024, 16384, 131072)),
]
