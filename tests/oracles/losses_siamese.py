"""Pair heads and their cross-entropy, as loops in float64."""

import math

import numpy as np

from tests.oracles.losses import cosine, mean, negatives, positives, softplus


def weighted_l1(x, y, weights, bias):
    return sum(a * abs(p - q) for a, p, q in zip(weights, x, y, strict=True)) + bias


def one_order(x, y, kernel, hidden_bias, output, bias):
    """The head as published: its features in this order, one hidden layer."""
    features = [(p - q) ** 2 for p, q in zip(x, y, strict=True)]
    features += [p * p - q * q for p, q in zip(x, y, strict=True)]
    features.append(cosine(x, y))
    hidden = np.maximum(np.asarray(features) @ kernel + hidden_bias, 0.0)
    return float(hidden @ output + bias)


def pair_network(x, y, *params):
    return (one_order(x, y, *params) + one_order(y, x, *params)) / 2


def siamese(embeddings, labels, *, head):
    near, far = [], []
    for a in range(len(labels)):
        for p in positives(labels, a):
            near.append(softplus(-head(embeddings[a], embeddings[p])))
        for n in negatives(labels, a):
            far.append(softplus(head(embeddings[a], embeddings[n])))
    return mean(near) + mean(far)


def siamese_pairs(embeddings, other_embeddings, labels, *, head):
    values = []
    for x, y, same in zip(embeddings, other_embeddings, labels, strict=True):
        chance = 1 / (1 + math.exp(-head(x, y)))
        if same in (0, 1):
            values.append(-math.log(chance if same else 1 - chance))
    return mean(values)
