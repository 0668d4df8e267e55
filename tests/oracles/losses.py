"""Losses as loops in float64, written from the papers; nothing here is fast."""

import math

import numpy as np


def euclidean(x, y):
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(x, y, strict=True)))


def squared(x, y):
    return sum((a - b) ** 2 for a, b in zip(x, y, strict=True))


def dot(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True))


def cosine(x, y):
    return dot(x, y) / math.sqrt(dot(x, x) * dot(y, y))


def positives(labels, i):
    return [j for j in range(len(labels)) if j != i and labels[j] == labels[i]]


def negatives(labels, i):
    return [j for j in range(len(labels)) if labels[j] != labels[i]]


def mean(values):
    return sum(values) / len(values) if len(values) else 0.0


def hinge(value):
    return max(value, 0.0)


def softplus(value):
    return float(np.logaddexp(0.0, value))


def logsumexp(values):
    return float(np.logaddexp.reduce(np.asarray(values, np.float64)))


# --- triplets -------------------------------------------------------------------------


def triplet_all(embeddings, labels, *, margin=0.2, penalty=hinge, distance=euclidean):
    values, active = [], 0
    for a in range(len(labels)):
        for p in positives(labels, a):
            for n in negatives(labels, a):
                gap = distance(embeddings[a], embeddings[p])
                gap += margin - distance(embeddings[a], embeddings[n])
                values.append(penalty(gap))
                active += gap > 0
    return sum(values) / active if active else 0.0


def triplet_hard(embeddings, labels, *, margin=0.2, penalty=hinge, distance=euclidean):
    values = []
    for a in range(len(labels)):
        d = [distance(embeddings[a], x) for x in embeddings]
        near, far = positives(labels, a), negatives(labels, a)
        if near and far:
            gap = max(d[p] for p in near) - min(d[n] for n in far) + margin
            values.append(penalty(gap))
    return mean(values)


def triplet_semihard(embeddings, labels, *, margin=0.2, fallback=False):
    values = []
    for a in range(len(labels)):
        d = [squared(embeddings[a], x) for x in embeddings]
        far = [d[n] for n in negatives(labels, a)]
        for p in positives(labels, a):
            beyond = [value for value in far if value > d[p]]
            if beyond:
                values.append(hinge(d[p] - min(beyond) + margin))
            elif fallback and far:
                values.append(hinge(d[p] - max(far) + margin))
    return mean(values)


# --- pairs ----------------------------------------------------------------------------


def contrastive(embeddings, labels, *, margin=1.0):
    near, far = [], []
    for a in range(len(labels)):
        for p in positives(labels, a):
            near.append(squared(embeddings[a], embeddings[p]) / 2)
        for n in negatives(labels, a):
            far.append(hinge(margin - euclidean(embeddings[a], embeddings[n])) ** 2 / 2)
    return mean(near) + mean(far)


def contrastive_linear(embeddings, labels, *, positive_margin=0.1, margin=1.0):
    near, far = [], []
    for a in range(len(labels)):
        d = [euclidean(embeddings[a], x) for x in embeddings]
        near += [hinge(d[p] - positive_margin) for p in positives(labels, a)]
        far += [hinge(margin - d[n]) for n in negatives(labels, a)]
    return mean([v for v in near if v > 0]) + mean([v for v in far if v > 0])


def supcon(embeddings, labels, *, temperature=0.1):
    values = []
    for i in range(len(labels)):
        s = [cosine(embeddings[i], x) / temperature for x in embeddings]
        normaliser = logsumexp([s[a] for a in range(len(labels)) if a != i])
        logs = [s[p] - normaliser for p in positives(labels, i)]
        if logs:
            values.append(-mean(logs))
    return mean(values)


# --- classes --------------------------------------------------------------------------


def margin_softmax(
    embeddings, class_weights, labels, *, target, scale, label_smoothing=0.0
):
    values = []
    for x, y in zip(embeddings, labels, strict=True):
        if not 0 <= y < len(class_weights):
            continue
        logits = [scale * cosine(x, w) for w in class_weights]
        logits[y] = scale * target(cosine(x, class_weights[y]))
        logs = [logit - logsumexp(logits) for logit in logits]
        values.append(-(1 - label_smoothing) * logs[y] - label_smoothing * mean(logs))
    return mean(values)


def arcface_target(c, *, margin=0.5, fallback="safe"):
    theta = math.acos(c)
    if fallback == "easy":
        return math.cos(theta + margin) if c > 0 else c
    if theta + margin < math.pi:
        return math.cos(theta + margin)
    drop = margin * math.sin(margin) if fallback == "safe" else 1 - math.cos(margin)
    return c - drop


def psi(angle):
    """`cos`, continued downwards beyond pi."""
    k = math.floor(angle / math.pi)
    return (-1) ** k * math.cos(angle) - 2 * k
