"""Cross-entropy of pair heads, with fixed parameters of the head."""

from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from metricjax import heads, losses
from tests.conformance.row import BATCH, DIM, EMBEDDINGS, Row
from tests.oracles import losses_siamese as oracles


def values(*shape: int, seed: int) -> Array:
    """Values that every floating dtype has, in one that gives way to the others."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.bfloat16)


L1 = heads.WeightedL1(values(5, seed=1), values(seed=2))
NETWORK = heads.PairNetwork(
    values(11, 6, seed=3), values(6, seed=4), values(6, seed=5), values(seed=6)
)


def row(name, loss, oracle, inputs, options, logits, of_pair, params) -> Row:
    """A row of a loss, with one of the heads and its oracle."""

    exact = [np.asarray(x, np.float64) for x in params]

    def head(x, y):
        return of_pair(x, y, *exact)

    bound = Partial(logits, params=params)
    return Row(
        name, Partial(loss, head=bound), partial(oracle, head=head), inputs, **options
    )


ROWS = [
    row(
        "siamese",
        losses.siamese,
        oracles.siamese,
        EMBEDDINGS,
        {"ring": True},
        heads.weighted_l1_logits,
        oracles.weighted_l1,
        L1,
    ),
    row(
        "siamese_pairs",
        losses.siamese_pairs,
        oracles.siamese_pairs,
        EMBEDDINGS | {"other_embeddings": (BATCH, DIM)},
        {"refs": False, "blocks": False},
        heads.pair_network_logits,
        oracles.pair_network,
        NETWORK,
    ),
]
