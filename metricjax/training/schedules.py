"""Rates that differ by layer and change by epoch."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from metricjax.training import _paths

__all__ = ["Layer", "layerwise_sgd"]

Tree = Any  # a nested dict of arrays


class Layer(NamedTuple):
    """Rates of one layer.

    Attributes:
        learning_rate: in the first epoch.
        momentum: at the end of its rise.
        l2: factor of the squared norm of the weights in the loss, biases excepted.
    """

    learning_rate: float
    momentum: float
    l2: float = 0.0


def layerwise_sgd(
    layers: Mapping[str, Layer],
    params: Tree,
    *,
    steps_per_epoch: int,
    rise_epochs: int = 200,
    first_momentum: float = 0.5,
    decay: float = 0.99,
) -> optax.GradientTransformation:
    """Stochastic gradient descent with rates by layer, as Koch's siamese nets have it.

    In epoch `e`, counted from 0, the weights `w` of layer `j` with gradient `g` move by

        step_t = -rate_j * decay^e * (g + 2 * l2_j * w) + momentum_je * step_{t-1}
        momentum_je = first + (momentum_j - first) * min(e / rise_epochs, 1)

    so that the penalty `l2_j * |w|^2` takes part in the momentum, unlike the decoupled
    decay of AdamW; it spares parameters named "bias". Past steps are kept as they were
    made: they do not shrink when the rate does.

    The paper gives the ranges in which each layer's rates were searched (1e-4 to 1e-1,
    0 to 1, and 0 to 0.1), not what was found, nor how long the momentum rises; here it
    is the largest number of epochs that the paper allows.

    Args:
        layers: rates by glob pattern of parameter paths, as in
            `metricjax.training.finetune`; the first that matches a parameter counts.
        params: what is trained, or its shapes.
        steps_per_epoch: training steps in an epoch.
        rise_epochs: epochs until the momentum has risen.
        first_momentum: of all layers, in the first epoch.
        decay: of the learning rate, from one epoch to the next.

    Returns:
        An optax gradient transformation for parameters of this structure.

    Raises:
        ValueError: if a parameter has no rates, a pattern is not the first match of
            any parameter, or a number of steps or epochs is below 1.

    Example:
        >>> params = {"encoder": {"kernel": jnp.ones(1)}, "head": jnp.ones(1)}
        >>> layers = {"encoder/*": Layer(0.1, 0.9, l2=0.5), "head": Layer(0.01, 0.8)}
        >>> optimizer = layerwise_sgd(layers, params, steps_per_epoch=10)
        >>> gradients = jax.tree.map(jnp.ones_like, params)
        >>> updates, _ = optimizer.update(gradients, optimizer.init(params), params)
        >>> [round(float(u[0]), 6) for u in jax.tree.leaves(updates)]
        [-0.2, -0.01]

    References:
        Koch, Zemel and Salakhutdinov, "Siamese Neural Networks for One-shot Image
        Recognition", ICML Deep Learning Workshop 2015, section 3.2. Its update adds
        `2 * lambda_j * |w|`; taken here is the gradient of its loss's
        `lambda_j * |w|^2`.
    """
    for name, value in (
        ("steps_per_epoch", steps_per_epoch),
        ("rise_epochs", rise_epochs),
    ):
        if value < 1:
            raise ValueError(f"Expected `{name}` of at least 1, got {value}.")

    def epoch(count: ArrayLike) -> Array:
        return (jnp.asarray(count) // steps_per_epoch).astype(jnp.float32)

    def rule(layer: Layer) -> optax.GradientTransformation:
        def momentum(count: ArrayLike) -> Array:
            share = jnp.minimum(epoch(count) / rise_epochs, 1.0)
            return first_momentum + (layer.momentum - first_momentum) * share

        return optax.chain(
            optax.add_decayed_weights(2.0 * layer.l2, mask=_penalised),
            optax.scale_by_learning_rate(
                lambda count: layer.learning_rate * decay ** epoch(count)
            ),
            optax.inject_hyperparams(optax.trace)(decay=momentum),
        )

    idle = layers.keys() - set(jax.tree.leaves(_labels(layers, params)))
    if idle:
        raise ValueError(
            "Expected each pattern of `layers` to be the first that matches some "
            f"parameter, got none for {sorted(idle)}; the parameters are: "
            f"{', '.join(_paths.named(params))}."
        )
    # Labelled anew at each call, so that another transformation may leave some out.
    return optax.multi_transform(
        {pattern: rule(layer) for pattern, layer in layers.items()},
        lambda params: _labels(layers, params),
    )


def _penalised(params: Tree) -> Tree:
    def is_weight(path: Any, _: Any) -> bool:
        return _paths.name(path).rpartition("/")[2] != "bias"

    return jax.tree.map_with_path(is_weight, params)


def _labels(layers: Mapping[str, Layer], params: Tree) -> Tree:
    """The pattern whose rates each parameter has."""

    def label(path: Any, _: Any) -> str:
        name = _paths.name(path)
        for pattern in layers:
            if _paths.fits(name, pattern):
                return pattern
        raise ValueError(
            f"Expected rates for every parameter, got none for {name}; give them to "
            "`layers` under a pattern that matches it."
        )

    return jax.tree.map_with_path(label, params)
