"""Margin softmax."""

import math
from functools import partial

from jax.tree_util import Partial

from metricjax import losses, margins
from tests.conformance.row import CLASS_WEIGHTS, Row
from tests.oracles import losses as oracles


def softmax_row(name, loss, target, scale, label_smoothing=0.0) -> Row:
    """A row whose oracle differs from the plain softmax in its target alone."""
    oracle = partial(
        oracles.margin_softmax,
        target=target,
        scale=scale,
        label_smoothing=label_smoothing,
    )
    return Row(name, loss, oracle, CLASS_WEIGHTS, refs=False)


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
]
