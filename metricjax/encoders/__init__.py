"""Encoders that turn images into embeddings, and the bridge from any Flax model.

    apply, params, state = encoders.functional(encoders.ResNet(rngs=nnx.Rngs(0)))
    embeddings, state = apply(params, state, images, train=True)

`MLP`, `ConvNet`, `ResNet` and `Koch` are Flax NNX modules; `functional` and
`from_linen` make the pure function that training and evaluation use from these or from
your own. `summary` shows layers, shapes and parameter counts.
"""

from metricjax.encoders._bridge import (
    Apply,
    Deferred,
    Functional,
    as_float,
    deferred,
    from_linen,
    functional,
)
from metricjax.encoders._convnet import ConvNet
from metricjax.encoders._koch import Koch
from metricjax.encoders._mlp import MLP
from metricjax.encoders._resnet import ResNet
from metricjax.encoders._summary import summary

__all__ = [
    "MLP",
    "Apply",
    "ConvNet",
    "Deferred",
    "Functional",
    "Koch",
    "ResNet",
    "as_float",
    "deferred",
    "from_linen",
    "functional",
    "summary",
]
