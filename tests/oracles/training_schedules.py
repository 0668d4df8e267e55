"""Koch's gradient descent, one weight at a time."""

import numpy as np


def layerwise_sgd(
    weights, gradients, layer, *, per_epoch, rise, first, decay, is_bias=False
):
    """The weights after each of the given gradients."""
    weights, path = np.array(weights, np.float64), []
    moved = np.zeros_like(weights)
    for t, gradient in enumerate(np.asarray(gradients, np.float64)):
        epoch = t // per_epoch
        rate = layer.learning_rate * decay**epoch
        momentum = first + (layer.momentum - first) * min(epoch / rise, 1.0)
        for i in range(len(weights)):
            penalty = 0.0 if is_bias else 2.0 * layer.l2 * weights[i]
            moved[i] = -rate * (gradient[i] + penalty) + momentum * moved[i]
            weights[i] += moved[i]
        path.append(weights.copy())
    return np.array(path)
