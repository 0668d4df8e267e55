"""Pair losses."""

from functools import partial

from jax.tree_util import Partial

from metricjax import losses, reductions
from tests.conformance.row import Row
from tests.oracles import losses as oracles

ROWS = [
    Row(
        "contrastive",
        Partial(losses.contrastive, margin=2.0),
        partial(oracles.contrastive, margin=2.0),
    ),
    Row(
        "contrastive_linear",
        Partial(
            losses.contrastive,
            squared=False,
            positive_margin=0.1,
            margin=2.0,
            reduction=reductions.mean_active,
        ),
        partial(oracles.contrastive_linear, margin=2.0),
    ),
]
