"""Margin softmax."""

import math
from functools import partial

from jax.tree_util import Partial

from metricjax import losses, margins
from tests.conformance.row import CLASS_WEIGHTS, CLASSES, DIM, EMBEDDINGS, Row
from tests.oracles import losses as oracles
from tests.oracles import losses_classes as classes

SUBCENTERS = EMBEDDINGS | {"class_weights": (CLASSES, 2, DIM)}


def softmax_row(name, loss, target, scale, label_smoothing=0.0) -> Row:
    """A row whose oracle differs from the plain softmax in its target alone."""
    oracle = partial(
        oracles.margin_softmax,
        target=target,
        scale=scale,
        label_smoothing=label_smoothing,
    )
    return Row(name, loss, oracle, CLASS_WEIGHTS, refs=False)


def adjusted_row(name, loss, adjust, scale, detached=False, inputs=CLASS_WEIGHTS):
    """A row whose oracle changes any of the cosines; see `classes.softmax`."""

    def frozen(**arguments):
        return partial(
            classes.softmax,
            adjust=classes.detached(**arguments, adjust=adjust),
            scale=scale,
        )

    oracle = partial(classes.softmax, adjust=adjust, scale=scale)
    row = Row(name, loss, oracle, inputs, refs=False)
    return row._replace(frozen=frozen) if detached else row


LINEAR = classes.margin(
    lambda c, x: 1 - 2 * (classes.angle(c) + 0.45) / math.pi,
    lambda c, t: 1 - 2 * classes.angle(c) / math.pi,
)
STOPPED = classes.margin(lambda c, x: math.cos(min(1.5 * classes.angle(c), math.pi)))
DIVIDED = classes.margin(lambda c, x: c, lambda c, t: math.cos(classes.angle(c) / 1.5))
A_SOFTMAX = classes.margin(
    lambda c, x: (5.0 * c + oracles.psi(4.0 * classes.angle(c))) / 6.0
)

ROWS = [
    softmax_row("arcface", losses.arcface, oracles.arcface_target, 64.0),
    softmax_row(
        "arcface_easy",
        Partial(losses.arcface, fallback=margins.easy, scale=16.0),
        partial(oracles.arcface_target, fallback="easy"),
        16.0,
    ),
    softmax_row(
        "arcface_continuous",
        Partial(losses.arcface, fallback=margins.continuous, margin=1.0, scale=8.0),
        partial(oracles.arcface_target, fallback="continuous", margin=1.0),
        8.0,
    ),
    softmax_row("cosface", losses.cosface, lambda c: c - 0.35, 64.0),
    softmax_row(
        "cosface_smoothed",
        Partial(losses.cosface, label_smoothing=0.1, scale=16.0),
        lambda c: c - 0.35,
        16.0,
        0.1,
    ),
    softmax_row(
        "sphereface",
        losses.sphereface,
        lambda c: oracles.psi(1.35 * math.acos(c)),
        30.0,
    ),
    softmax_row(
        "sphereface_plain",
        Partial(losses.sphereface, monotone=False),
        lambda c: math.cos(1.35 * math.acos(c)),
        30.0,
    ),
    softmax_row("normface", losses.normface, lambda c: c, 20.0),
    softmax_row(
        "combined",
        losses.combined,
        lambda c: oracles.psi(math.acos(c) + 0.3) - 0.2,
        64.0,
    ),
    softmax_row(
        "margin_softmax",
        Partial(losses.margin_softmax, margin=margins.cosface, scale=10.0),
        lambda c: c - 0.35,
        10.0,
    ),
    Row(
        "normface_learned_scale",
        losses.normface,
        lambda scale, **arguments: classes.softmax(
            **arguments, adjust=classes.margin(lambda c, x: c), scale=scale
        ),
        CLASS_WEIGHTS | {"scale": ()},
        refs=False,
    ),
    adjusted_row(
        "arcface_subcenters",
        Partial(losses.arcface, scale=16.0),
        classes.margin(lambda c, x: classes.arcface(c)),
        16.0,
        inputs=SUBCENTERS,
    ),
    adjusted_row("li_arcface", losses.li_arcface, LINEAR, 64.0),
    adjusted_row(
        "sphereface_r_v1", losses.sphereface_r_v1, STOPPED, 30.0, detached=True
    ),
    adjusted_row(
        "sphereface_r_v2", losses.sphereface_r_v2, DIVIDED, 30.0, detached=True
    ),
    adjusted_row("a_softmax", losses.a_softmax, A_SOFTMAX, classes.norm),
    Row("l_softmax", losses.l_softmax, classes.l_softmax, CLASS_WEIGHTS, refs=False),
]
