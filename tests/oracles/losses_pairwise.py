"""Pair losses as loops in float64, written from the papers."""

import math

import numpy as np

from tests.oracles.losses import (
    cosine,
    euclidean,
    hinge,
    logsumexp,
    mean,
    negatives,
    positives,
    squared,
)


def snr(x, y):
    return np.var(np.asarray(x) - np.asarray(y)) / np.var(x)


def pair_values(embeddings, labels, value):
    """`value(x_a, x_j)` of all positive and of all negative pairs."""
    near, far = [], []
    for a in range(len(labels)):
        near += [value(embeddings[a], embeddings[p]) for p in positives(labels, a)]
        far += [value(embeddings[a], embeddings[n]) for n in negatives(labels, a)]
    return near, far


def snr_contrastive(embeddings, labels, *, positive_margin=0.0, margin=1.0):
    near, far = pair_values(embeddings, labels, snr)
    return mean([hinge(d - positive_margin) for d in near]) + mean(
        [hinge(margin - d) for d in far]
    )


def threshold_consistent_margin(
    embeddings, labels, *, margins=(0.9, 0.5), weights=(1, 1)
):
    near, far = pair_values(embeddings, labels, cosine)
    parts = ([margins[0] - s for s in near], [s - margins[1] for s in far])
    return sum(
        weight * mean([v for v in part if v > 0])
        for weight, part in zip(weights, parts, strict=True)
    )


def intra_pair_variance(embeddings, labels, *, slacks=(0.01, 0.01)):
    near, far = pair_values(embeddings, labels, cosine)
    low, high = (1 - slacks[0]) * mean(near), (1 + slacks[1]) * mean(far)
    return mean([hinge(low - s) ** 2 for s in near]) + mean(
        [hinge(s - high) ** 2 for s in far]
    )


def anchors(embeddings, labels, value):
    """Of each anchor with both: values of its positives, and of its negatives."""
    for a in range(len(labels)):
        near = [value(embeddings[a], embeddings[p]) for p in positives(labels, a)]
        far = [value(embeddings[a], embeddings[n]) for n in negatives(labels, a)]
        if near and far:
            yield a, near, far


def multi_similarity(
    embeddings,
    labels,
    *,
    positive_scale=2.0,
    negative_scale=50.0,
    base=0.5,
    epsilon: float | None = 0.1,
):
    values = []
    for _, near, far in anchors(embeddings, labels, cosine):
        if epsilon is not None:
            near, far = (
                [s for s in near if s < max(far) + epsilon],
                [s for s in far if s > min(near) - epsilon],
            )
        pull = logsumexp([0.0] + [-positive_scale * (s - base) for s in near])
        push = logsumexp([0.0] + [negative_scale * (s - base) for s in far])
        values.append(pull / positive_scale + push / negative_scale)
    return mean(values)


def circle(embeddings, labels, *, margin=0.4, scale=80.0, constants=None):
    """`constants` are the embeddings from which the weights are made."""
    values = []
    constants = embeddings if constants is None else constants
    weights = {a: rest for a, *rest in anchors(constants, labels, cosine)}
    for a, near, far in anchors(embeddings, labels, cosine):
        push = [
            scale * hinge(c + margin) * (s - margin)
            for s, c in zip(far, weights[a][1], strict=True)
        ]
        pull = [
            -scale * hinge(1 + margin - c) * (s - 1 + margin)
            for s, c in zip(near, weights[a][0], strict=True)
        ]
        values.append(float(np.logaddexp(0.0, logsumexp(push) + logsumexp(pull))))
    return mean(values)


def nca(embeddings, labels, *, scale=1.0, expected=False, distance=squared):
    values = []
    for a in range(len(labels)):
        near, others = positives(labels, a), [j for j in range(len(labels)) if j != a]
        if near:
            logits = {
                j: -scale * distance(embeddings[a], embeddings[j]) for j in others
            }
            log_p = logsumexp([logits[p] for p in near]) - logsumexp(
                list(logits.values())
            )
            values.append(1 - math.exp(log_p) if expected else -log_p)
    return mean(values)


def ranked_list(
    embeddings,
    labels,
    *,
    margin=0.4,
    boundary=1.2,
    temperatures=(0.0, 10.0),
    balance=0.5,
    constants=None,
):
    """`constants` are the embeddings from which the weights are made."""

    def distance(x, y):
        return euclidean(x / np.linalg.norm(x), y / np.linalg.norm(y))

    def part(excesses, fixed, temperature):
        chosen = [(e, c) for e, c in zip(excesses, fixed, strict=True) if e > 0]
        weights = [math.exp(temperature * c) for _, c in chosen]
        cost = sum(w * e for w, (e, _) in zip(weights, chosen, strict=True))
        return cost / sum(weights) if chosen else 0.0

    values = []
    constants = embeddings if constants is None else constants
    fixed = {a: rest for a, *rest in anchors(constants, labels, distance)}
    for a, near, far in anchors(embeddings, labels, distance):
        inner, outer = ([d - boundary + margin for d in x] for x in (near, fixed[a][0]))
        pull = part(inner, outer, temperatures[0])
        inner, outer = ([boundary - d for d in x] for x in (far, fixed[a][1]))
        push = part(inner, outer, temperatures[1])
        values.append((1 - balance) * pull + balance * push)
    return mean(values)


def frozen(oracle):
    """For `Row.frozen`: the oracle whose weights are made from the first inputs."""

    def at(embeddings, **_):
        def fixed(**inputs):
            return oracle(**inputs, constants=embeddings)

        return fixed

    return at
