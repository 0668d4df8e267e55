"""Losses of ranked lists and of structures, value and gradient."""

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
from benchmarks.pairs import pml

TEMPERATURE = 0.01


def _jax(name: str, batch: int, **settings) -> Call:
    from metricjax import losses

    loss, y = getattr(losses, name), labels(batch)
    call = jax_on_units if name == "lifted_structure" else jax_call
    return call(lambda x: loss(x, y, **settings), unit_vectors(batch))


def _jax_with_self(side: int) -> Call:
    from metricjax import losses

    y = labels(side**2, side)

    def loss(x):
        return losses.smooth_ap(
            x, y, temperature=TEMPERATURE, ref_embeddings=x, ref_labels=y
        )

    return jax_call(loss, unit_vectors(side**2))


def _pml_smooth_ap(side: int) -> Call:
    import torch
    from pytorch_metric_learning import losses

    loss = losses.SmoothAPLoss(temperature=TEMPERATURE)
    y = torch.tensor(labels(side**2, side))
    return torch_call(lambda x: loss(x, y), unit_vectors(side**2))


def _torch_smooth_ap(batch: int, per_class: int = 4) -> Call:
    """The best we could write: positives alone against all, not all against all."""
    import torch

    classes = torch.arange(batch) // per_class
    row = torch.arange(batch)[:, None]
    places = classes[:, None] * per_class + torch.arange(per_class)[None]
    places = places[places != row].reshape(batch, per_class - 1)
    same = classes[:, None] == classes[None]
    self_pair = torch.eye(batch, dtype=torch.bool)

    def loss(x):
        unit = torch.nn.functional.normalize(x)
        cosine = unit @ unit.T
        value = cosine.gather(1, places)
        ahead = torch.sigmoid((cosine[:, None] - value[:, :, None]) / TEMPERATURE)
        ahead = ahead.masked_fill(self_pair[:, None], 0.0)
        # A positive is level with itself: one half too many.
        rank = (ahead * same[:, None]).sum(2) + 0.5
        every = ahead.sum(2) + 0.5
        return 1.0 - (rank / every).mean()

    return torch_call(loss, unit_vectors(batch))


def _case(name: str, batch: int, **contestants) -> Case:
    flops = 6 * batch**2 * DIM
    return Case(name, batch, contestants, quick=True, flops=flops)


def fastap(batch: int) -> Case:
    """FastAP with ten bins."""
    ours = functools.partial(_jax, "fastap", batch, bins=10)
    peer = functools.partial(pml, "FastAPLoss", batch, num_bins=10)
    return _case("fastap", batch, jax=ours, pml=peer)


def smooth_ap(batch: int) -> Case:
    """Smooth-AP, four examples to a class."""
    ours = functools.partial(_jax, "smooth_ap", batch, temperature=TEMPERATURE)
    peer = functools.partial(_torch_smooth_ap, batch)
    return _case("smooth_ap", batch, jax=ours, torch=peer)


def smooth_ap_with_self(side: int) -> Case:
    """Smooth-AP as the peer has it, right for as many examples to a class as classes.

    The anchor is one of its own positives: a reference like all others.
    """
    ours = functools.partial(_jax_with_self, side)
    peer = functools.partial(_pml_smooth_ap, side)
    return _case("smooth_ap_with_self", side**2, jax=ours, pml=peer)


def lifted(batch: int) -> Case:
    """Lifted structure."""
    ours = functools.partial(_jax, "lifted_structure", batch)
    peer = functools.partial(pml, "LiftedStructureLoss", batch, neg_margin=1)
    made = _case("lifted_structure", batch, jax=ours, pml=peer)
    # A minute of the peer's time at 512.
    return made._replace(quick=batch <= 256)


CASES = [fastap(512), smooth_ap(512), smooth_ap_with_self(22), lifted(256), lifted(512)]
