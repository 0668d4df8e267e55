"""Regularisers, which take no labels."""

from functools import partial

from jax.tree_util import Partial

from metricjax import losses
from tests.conformance.row import BATCH, DIM, EMBEDDINGS, Row
from tests.oracles import losses_proxies
from tests.oracles import losses_regularizers as oracles

CLASS_ROWS = {"class_weights": (BATCH, DIM)}


def row(name, loss, oracle, inputs, *, blocks=False) -> Row:
    """A row whose oracle is not given the labels."""

    def unlabelled(labels, **inputs):
        del labels
        return oracle(**inputs)

    return Row(name, loss, unlabelled, inputs, labels=False, refs=False, blocks=blocks)


ROWS = [
    row("lp_norm", losses.lp_norm, oracles.lp_norm, EMBEDDINGS),
    row(
        "lp_norm_cubic",
        Partial(losses.lp_norm, order=3.0, power=2.0),
        partial(oracles.lp_norm, order=3.0, power=2.0),
        EMBEDDINGS,
    ),
    row("zero_mean", losses.zero_mean, oracles.zero_mean, EMBEDDINGS),
    row(
        "regularface", losses.regularface, oracles.regularface, CLASS_ROWS, blocks=True
    ),
    row(
        "center_invariant",
        losses.center_invariant,
        oracles.center_invariant,
        CLASS_ROWS,
    ),
    row(
        "sparse_centers",
        losses.sparse_centers,
        losses_proxies.sparse_centers,
        {"centers": (BATCH, 3, DIM)},
        blocks=True,
    ),
]
