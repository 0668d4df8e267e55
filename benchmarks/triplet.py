"""Triplet losses with their mining, value and gradient."""

import functools

from benchmarks.cases import Call, Case
from benchmarks.inputs import (
    DIM,
    jax_call,
    jax_on_units,
    labels,
    torch_call,
    unit_vectors,
)

MARGIN = 0.2


def _jax(name: str, batch: int, **settings) -> Call:
    from metricjax import losses

    loss, y = getattr(losses, name), labels(batch)
    call = jax_call if name == "triplet_semihard" else jax_on_units
    return call(lambda x: loss(x, y, margin=MARGIN, **settings), unit_vectors(batch))


def _pml_all(batch: int) -> Call:
    import torch
    from pytorch_metric_learning.losses import TripletMarginLoss

    loss, y = TripletMarginLoss(margin=MARGIN), torch.tensor(labels(batch))
    return torch_call(lambda x: loss(x, y), unit_vectors(batch))


def _pml_hard(batch: int) -> Call:
    import torch
    from pytorch_metric_learning.losses import TripletMarginLoss
    from pytorch_metric_learning.miners import BatchHardMiner
    from pytorch_metric_learning.reducers import MeanReducer

    loss = TripletMarginLoss(margin=MARGIN, reducer=MeanReducer())
    miner, y = BatchHardMiner(), torch.tensor(labels(batch))
    return torch_call(lambda x: loss(x, y, miner(x, y)), unit_vectors(batch))


def _torch_semihard(batch: int) -> Call:
    """TensorFlow's dense formulation, in torch: a [batch^2, batch] comparison."""
    import torch

    y = torch.tensor(labels(batch))
    same = y[:, None] == y[None, :]
    other = (~same).float()
    positive = (same & ~torch.eye(batch, dtype=torch.bool)).float()

    def loss(x):
        d = (x[:, None] - x[None]).square().sum(-1)
        tiled, mask = d.repeat(batch, 1), other.repeat(batch, 1)
        beyond = mask * (tiled > d.T.reshape(-1, 1)).float()
        some = (beyond.sum(1) > 0).reshape(batch, batch).T
        far = tiled.max(1, keepdim=True).values
        outside = ((tiled - far) * beyond).min(1, keepdim=True).values + far
        outside = outside.reshape(batch, batch).T
        least = d.min(1, keepdim=True).values
        inside = ((d - least) * other).max(1, keepdim=True).values + least
        gap = MARGIN + d - torch.where(some, outside, inside.expand(-1, batch))
        return (gap * positive).clamp(min=0).sum() / positive.sum()

    return torch_call(loss, unit_vectors(batch))


def _case(name: str, batch: int, peers: dict, quick: bool, **settings) -> Case:
    ours = functools.partial(_jax, name, batch, **settings)
    # Mining measures all pairs, and the gradient is then of a few of them.
    flops = (6 if name == "triplet_all" else 2) * batch**2 * DIM
    return Case(name, batch, {"jax": ours, **peers}, quick, flops=flops)


def batch_all(batch: int, *, peer: bool = True) -> Case:
    """All triplets, at one size."""
    peers = {"pml": functools.partial(_pml_all, batch)} if peer else {}
    return _case("triplet_all", batch, peers, quick=batch <= 512)


def batch_hard(batch: int, *, peer: bool = True) -> Case:
    """The hardest triplet of each anchor, at one size."""
    peers = {"pml": functools.partial(_pml_hard, batch)} if peer else {}
    return _case("triplet_hard", batch, peers, quick=batch <= 2048)


def semihard(batch: int, *, peer: bool = True) -> Case:
    """Semi-hard triplets as in TensorFlow, at one size."""
    peers = {"torch-dense": functools.partial(_torch_semihard, batch)} if peer else {}
    return _case("triplet_semihard", batch, peers, batch <= 256, fallback=True)


CASES = [
    *(batch_all(batch) for batch in (32, 512, 1024)),
    batch_all(8192, peer=False),
    *(batch_hard(batch) for batch in (256, 2048, 8192)),
    batch_hard(32768, peer=False),
    semihard(256),
    semihard(8192, peer=False),
]
