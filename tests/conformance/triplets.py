"""Triplet losses."""

from functools import partial

from jax.tree_util import Partial

from metricjax import losses, mining
from tests.conformance.row import Row
from tests.oracles import losses as oracles

ROWS = [
    Row("triplet_all", losses.triplet_all, oracles.triplet_all),
    Row(
        "triplet_all_soft",
        Partial(losses.triplet_all, soft=True, margin=0.1),
        partial(oracles.triplet_all, penalty=oracles.softplus, margin=0.1),
    ),
    Row("triplet_hard", losses.triplet_hard, oracles.triplet_hard, ring=True),
    Row(
        "triplet_hard_soft",
        Partial(losses.triplet_hard, soft=True, margin=0.0),
        partial(oracles.triplet_hard, penalty=oracles.softplus, margin=0.0),
        ring=True,
    ),
    Row(
        "triplet",
        Partial(losses.triplet, miner=mining.hard, margin=0.3),
        partial(oracles.triplet_hard, margin=0.3),
        ring=True,
    ),
    Row(
        "triplet_semihard",
        Partial(losses.triplet_semihard, margin=1.0),
        partial(oracles.triplet_semihard, margin=1.0),
    ),
    Row(
        "triplet_semihard_fallback",
        Partial(losses.triplet_semihard, margin=1.0, fallback=True),
        partial(oracles.triplet_semihard, margin=1.0, fallback=True),
    ),
]
