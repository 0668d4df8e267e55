"""Distances inside of a loss, value and gradient: mean of exp(-d) over all pairs."""

import functools

from benchmarks.cases import Call, Case
from benchmarks.inputs import DIM, jax_call, labels, torch_call, unit_vectors


def _row(rows, positive, negative):
    import jax.numpy as jnp

    from metricjax.reductions import Terms

    others = positive | negative
    total = jnp.sum(jnp.where(others, jnp.exp(-rows), 0.0), axis=1)
    count = jnp.sum(others, axis=1, dtype=total.dtype)
    return Terms(total, count, count)


def _jax(batch: int) -> Call:
    from metricjax import distances, reductions, rows

    y = labels(batch)
    return jax_call(
        lambda x: rows.apply(
            _row,
            x,
            y,
            measure=distances.euclidean,
            reduction=reductions.mean,
            symmetric=True,
        ),
        unit_vectors(batch),
    )


def _torch(batch: int) -> Call:
    import torch

    def loss(x):
        d = torch.cdist(x, x)
        e = torch.exp(-d)
        return (e.sum() - e.diagonal().sum()) / (batch * (batch - 1))

    return torch_call(loss, unit_vectors(batch))


def case(batch: int, *, peer: bool = True) -> Case:
    """One size."""
    contestants = {"jax": functools.partial(_jax, batch)}
    if peer:
        contestants["torch"] = functools.partial(_torch, batch)
    # Forwards and backwards; both ends of a pair pull alike, so that one is enough.
    flops = 4 * batch**2 * DIM
    return Case("distances", batch, contestants, quick=batch <= 2048, flops=flops)


CASES = [case(batch) for batch in (256, 2048, 8192)]
