"""Rank losses as loops in float64, written from the papers."""

import math

from tests.oracles.losses import cosine, mean, negatives, positives


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def smooth_ap(embeddings, labels, *, temperature=0.01):
    values = []
    for i in range(len(labels)):
        s = [cosine(embeddings[i], x) for x in embeddings]
        near, far = positives(labels, i), negatives(labels, i)
        precisions = []
        for p in near:
            rank = 1 + sum(sigmoid((s[q] - s[p]) / temperature) for q in near if q != p)
            before = sum(sigmoid((s[n] - s[p]) / temperature) for n in far)
            precisions.append(rank / (rank + before))
        if near:
            values.append(1 - mean(precisions))
    return mean(values)


def average_precision(scores, relevant):
    """The true one, by sorting."""
    order = sorted(range(len(scores)), key=lambda j: -scores[j])
    hits, precisions = 0, []
    for rank, j in enumerate(order, start=1):
        if relevant[j]:
            hits += 1
            precisions.append(hits / rank)
    return mean(precisions)


def recall_surrogate(
    embeddings,
    labels,
    *,
    ks=(1, 2, 4, 8, 16),
    temperature=1.0,
    rank_temperature=0.01,
):
    values = []
    for i in range(len(labels)):
        s = [cosine(embeddings[i], x) for x in embeddings]
        near = positives(labels, i)
        others = near + negatives(labels, i)
        recalls = []
        for k in ks:
            found = 0.0
            for p in near:
                rank = 1 + sum(
                    sigmoid((s[j] - s[p]) / rank_temperature) for j in others if j != p
                )
                found += sigmoid((k - rank) / temperature)
            recalls.append(found / min(k, len(near)) if near else 0.0)
        if near:
            values.append(1 - mean(recalls))
    return mean(values)


def pnp(embeddings, labels, *, penalty, temperature=0.01):
    values = []
    for i in range(len(labels)):
        s = [cosine(embeddings[i], x) for x in embeddings]
        far = negatives(labels, i)
        costs = []
        for p in positives(labels, i):
            costs.append(
                penalty(sum(sigmoid((s[n] - s[p]) / temperature) for n in far))
            )
        if costs:
            values.append(mean(costs))
    return mean(values)


def pulse(x, node, width):
    """A triangle of height one around a node."""
    return max(0.0, 1 - abs(x - node) / width)


def fastap(embeddings, labels, *, bins=10):
    width = 4 / bins
    nodes = [4 * j / bins for j in range(bins + 1)]
    values = []
    for i in range(len(labels)):
        d = [2 - 2 * cosine(embeddings[i], x) for x in embeddings]
        near, far = positives(labels, i), negatives(labels, i)
        running_near = running_all = precision = 0.0
        for node in nodes:
            here = sum(pulse(d[p], node, width) for p in near)
            running_near += here
            running_all += here + sum(pulse(d[n], node, width) for n in far)
            if running_all:
                precision += running_near * here / running_all
        if near:
            values.append(1 - precision / len(near))
    return mean(values)


def histogram(embeddings, labels, *, bins=151):
    width = 2 / (bins - 1)
    nodes = [-1 + width * r for r in range(bins)]
    near, far = [], []
    for i in range(len(labels)):
        near += [cosine(embeddings[i], embeddings[p]) for p in positives(labels, i)]
        far += [cosine(embeddings[i], embeddings[n]) for n in negatives(labels, i)]
    value = below = 0.0
    for node in nodes:
        below += mean([pulse(s, node, width) for s in near])
        value += mean([pulse(s, node, width) for s in far]) * below
    return value
