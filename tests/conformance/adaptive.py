"""Margin softmax with a state, with chance, or with the length of the embedding."""

import math
from functools import partial

import jax
from jax.tree_util import Partial

from metricjax import losses, memory
from tests.conformance.classification import adjusted_row
from tests.conformance.row import CLASS_WEIGHTS, Row
from tests.oracles import losses_classes as oracles

MEAN, STD = 2.0, 0.75
ARCFACE = oracles.margin(lambda c, x: oracles.arcface(c))


def curricularface(*, curriculum, **arguments):
    other = partial(oracles.curricularface_other, curriculum=curriculum)
    adjust = oracles.margin(lambda c, x: oracles.arcface(c), other)
    return oracles.softmax(**arguments, adjust=adjust)


def magface(low_norm, high_norm, **arguments):
    norms = {"low_norm": low_norm, "high_norm": high_norm}
    return oracles.softmax(
        **arguments,
        adjust=oracles.margin(
            lambda c, x: oracles.arcface_easy(c, oracles.magface_margin(x, **norms))
        ),
        penalty=partial(oracles.magface_penalty, **norms),
    )


def adaface(qualities=None, **arguments):
    """With the qualities of these inputs, or with given ones."""
    if qualities is None:
        qualities = [
            oracles.adaface_quality(x, MEAN, STD) for x in arguments["embeddings"]
        ]

    def adjust(cosines, y, x, i):
        target = oracles.adaface(cosines[y], qualities[i])
        return [target if j == y else c for j, c in enumerate(cosines)]

    return oracles.softmax(**arguments, adjust=adjust)


def frozen_adaface(embeddings, **_):
    qualities = [oracles.adaface_quality(x, MEAN, STD) for x in embeddings]
    return partial(adaface, qualities)


ROWS = [
    Row(
        "curricularface",
        losses.curricularface,
        curricularface,
        CLASS_WEIGHTS | {"curriculum": ()},
        refs=False,
    ),
    adjusted_row(
        "mv_softmax",
        losses.mv_softmax,
        oracles.margin(lambda c, x: c - 0.35, oracles.mv_softmax_other),
        32.0,
    ),
    Row(
        "magface",
        Partial(losses.magface, low_norm=0.5, high_norm=3.0),
        partial(magface, 0.5, 3.0),
        CLASS_WEIGHTS,
        refs=False,
    ),
    Row(
        "adaface",
        Partial(
            losses.adaface,
            statistics=memory.init_norm_statistics(mean=MEAN, std=STD),
        ),
        adaface,
        CLASS_WEIGHTS,
        refs=False,
        frozen=frozen_adaface,
    ),
    adjusted_row(
        "adacos",
        losses.adacos,
        oracles.margin(lambda c, x: c),
        math.sqrt(2.0) * math.log(3),
    ),
    # With a deviation the value depends on the order; see tests/losses/test_elastic.py.
    adjusted_row(
        "elastic_arcface",
        Partial(losses.elastic_arcface, key=jax.random.key(0), std=0.0),
        ARCFACE,
        64.0,
    ),
    adjusted_row(
        "elastic_cosface",
        Partial(losses.elastic_cosface, key=jax.random.key(0), std=0.0, plus=True),
        oracles.additive(0.35),
        64.0,
    ),
]
