"""Sigmoids and regression over classes."""

from jax.tree_util import Partial

from metricjax import losses, margins
from tests.conformance.classification import SUBCENTERS
from tests.conformance.row import CLASS_WEIGHTS, Row
from tests.oracles import losses_classes as oracles


def margin_sigmoid(**arguments):
    return oracles.binary(
        **arguments,
        adjust=oracles.margin(lambda c, x: oracles.arcface(c)),
        scale=64.0,
        positive_weight=0.7,
        negative_weight=0.2,
    )


ROWS = [
    Row(
        "margin_sigmoid",
        Partial(
            losses.margin_sigmoid,
            margin=margins.arcface,
            positive_weight=0.7,
            negative_weight=0.2,
        ),
        margin_sigmoid,
        SUBCENTERS | {"bias": ()},
        refs=False,
    ),
    Row(
        "uniface",
        losses.uniface,
        oracles.uniface,
        CLASS_WEIGHTS | {"threshold": ()},
        refs=False,
    ),
    Row(
        "sphereface2",
        losses.sphereface2,
        oracles.sphereface2,
        CLASS_WEIGHTS | {"bias": ()},
        refs=False,
    ),
    Row("p2sgrad", losses.p2sgrad, oracles.p2sgrad, CLASS_WEIGHTS, refs=False),
]
