"""Pair and contrastive losses, value and gradient."""

import functools
from collections.abc import Callable

from benchmarks.cases import Call, Case
from benchmarks.inputs import (
    DIM,
    PER_CLASS,
    jax_call,
    jax_on_units,
    labels,
    torch_call,
    torch_device,
    unit_vectors,
)

TEMPERATURE = 0.1
# Of the margin-based loss: the boundary and the margin around it.
BOUNDARY, MARGIN = 1.2, 0.2


def _jax(name: str, batch: int, **settings) -> Call:
    from metricjax import losses

    loss, y = getattr(losses, name), labels(batch)
    call = jax_on_units if name == "contrastive" else jax_call
    return call(lambda x: loss(x, y, **settings), unit_vectors(batch))


def _contrastive(batch: int) -> Call:
    from metricjax import reductions

    settings = {"squared": False, "reduction": reductions.mean_active}
    return _jax("contrastive", batch, **settings)


def _margin(batch: int) -> Call:
    """Over all triplets, as the peer: each pair counts once for each of them."""
    import jax.numpy as jnp

    from metricjax import reductions

    others = jnp.array([batch - PER_CLASS, PER_CLASS - 1.0])

    @reductions.reads_sums
    def over_triplets(terms):
        total, active = jnp.sum(terms.total, axis=0), jnp.sum(terms.active, axis=0)
        return jnp.sum(others * total) / jnp.sum(others * active)

    return _jax(
        "contrastive",
        batch,
        squared=False,
        positive_margin=BOUNDARY - MARGIN,
        margin=BOUNDARY + MARGIN,
        reduction=over_triplets,
    )


def pml(name: str, batch: int, **settings) -> Call:
    import torch
    from pytorch_metric_learning import losses

    y = torch.tensor(labels(batch), device=torch_device())
    loss = getattr(losses, name)(**settings).to(torch_device())
    return torch_call(lambda x: loss(x, y), unit_vectors(batch))


def _optax(batch: int) -> Call:
    import optax

    y = labels(batch)
    return jax_call(
        lambda x: optax.losses.ntxent(x, y, TEMPERATURE), unit_vectors(batch)
    )


def _case(name: str, batch: int, **contestants: Callable[[], Call]) -> Case:
    quick = batch <= 2048
    # Where both ends of a pair pull alike the gradient of one of them is enough.
    products = 4 if name in {"contrastive", "margin"} else 6
    return Case(name, batch, contestants, quick, flops=products * batch**2 * DIM)


def supcon(batch: int, *, peer: bool = True) -> Case:
    """SupCon at one size."""
    ours = functools.partial(_jax, "supcon", batch, temperature=TEMPERATURE)
    peer_call = functools.partial(pml, "SupConLoss", batch, temperature=TEMPERATURE)
    return _case("supcon", batch, jax=ours, **({"pml": peer_call} if peer else {}))


def contrastive(batch: int) -> Case:
    """The contrastive loss, linear, over active pairs."""
    peer_call = functools.partial(
        pml, "ContrastiveLoss", batch, pos_margin=0.0, neg_margin=1.0
    )
    ours = functools.partial(_contrastive, batch)
    return _case("contrastive", batch, jax=ours, pml=peer_call)


def ntxent(batch: int, *, peers: tuple[str, ...] = ("pml", "optax")) -> Case:
    """NT-Xent with negatives alone below the line, as both peers have it."""
    every = {
        "jax": functools.partial(
            _jax, "ntxent", batch, temperature=TEMPERATURE, other_positives=False
        ),
        # An array of pairs by negatives, of [batch, batch, dim] in optax.
        "pml": functools.partial(pml, "NTXentLoss", batch, temperature=TEMPERATURE),
        "optax": functools.partial(_optax, batch),
    }
    chosen = {name: every[name] for name in ("jax", *peers)}
    # Minutes of the peers' time, and gigabytes.
    return _case("ntxent", batch, **chosen)._replace(quick=batch <= 256)


def multi_similarity(batch: int) -> Case:
    """Multi-similarity without its miner."""
    ours = functools.partial(_jax, "multi_similarity", batch, epsilon=None)
    peer_call = functools.partial(pml, "MultiSimilarityLoss", batch, alpha=2, beta=50)
    return _case("multi_similarity", batch, jax=ours, pml=peer_call)


def circle(batch: int) -> Case:
    """Circle loss."""
    ours = functools.partial(_jax, "circle", batch, margin=0.4, scale=80.0)
    peer_call = functools.partial(pml, "CircleLoss", batch, m=0.4, gamma=80)
    return _case("circle", batch, jax=ours, pml=peer_call)


def margin(batch: int) -> Case:
    """Margin-based loss, of a fixed boundary, over all triplets."""
    peer_call = functools.partial(
        pml, "MarginLoss", batch, margin=MARGIN, beta=BOUNDARY
    )
    ours = functools.partial(_margin, batch)
    case = _case("margin", batch, jax=ours, pml=peer_call)
    # Of millions of pairs some lie on the hinge, active for one of the two by rounding.
    return case._replace(quick=batch <= 512, gradient_tolerance=1e-3)


CASES = [
    *(supcon(batch) for batch in (256, 2048, 8192)),
    ntxent(256),
    ntxent(2048, peers=("optax",)),
    *(contrastive(batch) for batch in (256, 2048)),
    multi_similarity(2048),
    circle(2048),
    *(margin(batch) for batch in (512, 2048)),
]
