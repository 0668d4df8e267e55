"""Pair and contrastive losses, value and gradient."""

import functools

from benchmarks.cases import Call, Case
from benchmarks.inputs import DIM, jax_call, labels, torch_call, unit_vectors


def _jax(name: str, batch: int, **settings) -> Call:
    from metricjax import losses, reductions

    if settings.pop("mean_active", False):
        settings["reduction"] = reductions.mean_active
    loss, y = getattr(losses, name), labels(batch)
    return jax_call(lambda x: loss(x, y, **settings), unit_vectors(batch))


def _pml(name: str, batch: int, **settings) -> Call:
    import torch
    from pytorch_metric_learning import losses

    loss, y = getattr(losses, name)(**settings), torch.tensor(labels(batch))
    return torch_call(lambda x: loss(x, y), unit_vectors(batch))


def _case(ours: str, theirs: str | None, batch: int, settings: dict, same: dict):
    contestants = {"jax": functools.partial(_jax, ours, batch, **settings)}
    if theirs:
        contestants["pml"] = functools.partial(_pml, theirs, batch, **same)
    quick = batch <= 2048
    return Case(ours, batch, contestants, quick, flops=6 * batch**2 * DIM)


CASES = [
    *(
        _case("supcon", "SupConLoss", batch, {"temperature": 0.1}, {"temperature": 0.1})
        for batch in (256, 2048, 8192)
    ),
    *(
        _case(
            "contrastive",
            "ContrastiveLoss",
            batch,
            {"squared": False, "mean_active": True},
            {"pos_margin": 0.0, "neg_margin": 1.0},
        )
        for batch in (256, 2048)
    ),
]
