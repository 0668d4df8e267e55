"""Rank losses and histograms."""

import math
from functools import partial

from jax.tree_util import Partial

from metricjax import losses
from tests.conformance.row import EMBEDDINGS, Row
from tests.oracles import losses_ranking as oracles


def pnp_row(name, loss, penalty) -> Row:
    """With a temperature that central differences of the oracle can follow."""
    return Row(
        name,
        Partial(loss, temperature=0.1),
        partial(oracles.pnp, penalty=penalty, temperature=0.1),
    )


def pnp_dq(embeddings, labels, alpha):
    return oracles.pnp(
        embeddings, labels, penalty=lambda r: 1 - (1 + r) ** -alpha, temperature=0.1
    )


def pnp_ib(embeddings, labels, b):
    def penalty(r):
        return (b * r - math.log(1 + b * r)) / b**2

    return oracles.pnp(embeddings, labels, penalty=penalty, temperature=0.1)


ROWS = [
    Row(
        "smooth_ap",
        losses.smooth_ap,
        oracles.smooth_ap,
        EMBEDDINGS | {"temperature": ()},
    ),
    Row(
        "recall_surrogate",
        Partial(losses.recall_surrogate, ks=(1, 3)),
        partial(oracles.recall_surrogate, ks=(1, 3)),
        EMBEDDINGS | {"temperature": (), "rank_temperature": ()},
    ),
    pnp_row("pnp", losses.pnp, lambda r: r),
    pnp_row("pnp_iu", losses.pnp_iu, lambda r: (1 + r) * math.log(1 + r)),
    pnp_row("pnp_ds", losses.pnp_ds, math.log1p),
    Row(
        "pnp_ib",
        Partial(losses.pnp_ib, temperature=0.1),
        pnp_ib,
        EMBEDDINGS | {"b": ()},
    ),
    Row(
        "pnp_dq",
        Partial(losses.pnp_dq, temperature=0.1),
        pnp_dq,
        EMBEDDINGS | {"alpha": ()},
    ),
    Row("fastap", losses.fastap, oracles.fastap, ring=True),
    Row("histogram", losses.histogram, oracles.histogram, ring=True),
]
