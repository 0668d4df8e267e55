"""All triplets with the anchor and the positive swapped where that is harder."""

import jax
import jax.numpy as jnp
from jax import Array

from metricjax import distances as _distances
from metricjax.losses._positives import sum_over_positives
from metricjax.reductions import Terms


def swapped_row(
    distances: Array,
    positive: Array,
    negative: Array,
    margin: Array,
    others: Array,
    *,
    distance: _distances.Distance,
    soft: bool,
) -> Terms:
    """`[d_ap - min(d_an, d_pn) + m]_+` over all triplets of a block of anchors.

    The positive is one of the candidates, so its row is made of those, not of anchors.
    """

    def step(column: Array, some: Array) -> Terms:
        d_ap = jnp.take_along_axis(distances, column[:, None], axis=1)
        d_pn = distance(others[column], others)
        gap = d_ap + margin[:, None] - jnp.minimum(distances, d_pn)
        penalty = jax.nn.softplus(gap) if soft else jnp.maximum(gap, 0.0)
        chosen = negative & some[:, None]
        return Terms(
            jnp.sum(jnp.where(chosen, penalty, 0.0), axis=1),
            jnp.sum(chosen, axis=1, dtype=gap.dtype),
            jnp.sum(chosen & (gap > 0), axis=1, dtype=gap.dtype),
        )

    zero = jnp.zeros_like(distances[:, 0])
    return sum_over_positives(step, positive, Terms(zero, zero, zero))
