"""Center loss. Its centers are state: they are given, and get no gradient."""

from functools import partial

from jax.tree_util import Partial

from metricjax import losses
from tests.conformance.row import CLASS_WEIGHTS, CLASSES, DIM, EMBEDDINGS, Row
from tests.oracles import losses_centers as oracles

CENTERS = {"centers": (CLASSES, DIM)}


def row(name, loss, oracle, inputs, **options) -> Row:
    """A row whose oracle has constant centers where its slope is taken."""

    def frozen(*, centers, **others):
        del others

        def constant(**inputs):
            return oracle(**inputs | {"centers": centers})

        return constant

    return Row(name, loss, oracle, inputs, refs=False, frozen=frozen, **options)


ROWS = [
    row("center", losses.center, oracles.center, EMBEDDINGS | CENTERS, blocks=False),
    row(
        "center_softmax",
        Partial(losses.center_softmax, center_weight=0.07),
        partial(oracles.center_softmax, center_weight=0.07),
        CLASS_WEIGHTS | CENTERS,
    ),
]
