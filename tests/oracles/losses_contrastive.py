"""Contrastive losses as loops in float64, written from the papers."""

import math

from tests.oracles.losses import (
    cosine,
    hinge,
    logsumexp,
    mean,
    negatives,
    positives,
    softplus,
)


def pairwise_logits(embeddings, i, temperature):
    return [cosine(embeddings[i], x) / temperature for x in embeddings]


def ntxent(embeddings, labels, *, temperature=0.1, other_positives=True):
    values = []
    for i in range(len(labels)):
        s = pairwise_logits(embeddings, i, temperature)
        for p in positives(labels, i):
            below = [s[p], *(s[n] for n in negatives(labels, i))]
            if other_positives:
                below = [s[a] for a in range(len(labels)) if a != i]
            values.append(logsumexp(below) - s[p])
    return mean(values)


def dcl(embeddings, labels, *, temperature=0.1):
    values = []
    for i in range(len(labels)):
        s = pairwise_logits(embeddings, i, temperature)
        below = [s[n] for n in negatives(labels, i)]
        for p in positives(labels, i):
            if below:
                values.append(logsumexp(below) - s[p])
    return mean(values)


def info_nce(
    embeddings, other_embeddings, labels, *, temperature=0.07, negative_embeddings=()
):
    values = []
    for i, x in enumerate(embeddings):
        target = cosine(x, other_embeddings[i]) / temperature
        others = [other_embeddings[j] for j in negatives(labels, i)]
        others += list(negative_embeddings)
        below = [target, *(cosine(x, y) / temperature for y in others)]
        values.append(logsumexp(below) - target)
    return mean(values)


def multiple_negatives(embeddings, other_embeddings, labels, negative_embeddings=()):
    return info_nce(
        embeddings,
        other_embeddings,
        labels,
        temperature=1 / 20,
        negative_embeddings=negative_embeddings,
    )


def clip(embeddings, other_embeddings, labels, *, temperature=0.07):
    there = info_nce(embeddings, other_embeddings, labels, temperature=temperature)
    back = info_nce(other_embeddings, embeddings, labels, temperature=temperature)
    return (there + back) / 2


def siglip(embeddings, other_embeddings, labels, scale=10.0, bias=-10.0):
    total = 0.0
    for i, x in enumerate(embeddings):
        total += softplus(-scale * cosine(x, other_embeddings[i]) - bias)
        for j in negatives(labels, i):
            total += softplus(scale * cosine(x, other_embeddings[j]) + bias)
    return total / len(embeddings)


def gist(
    embeddings,
    other_embeddings,
    guide_embeddings,
    other_guide_embeddings,
    labels,
    *,
    margin=0.0,
    temperature=0.01,
    within=True,
):
    x, y, gx, gy = (
        embeddings,
        other_embeddings,
        guide_embeddings,
        other_guide_embeddings,
    )
    values = []
    for i in range(len(labels)):
        target = cosine(x[i], y[i]) / temperature
        limit = cosine(gx[i], gy[i]) - margin
        below = [target]
        for j in negatives(labels, i):
            looks = [(x[i], y[j], gx[i], gy[j])]
            if within:
                looks += [(x[i], x[j], gx[i], gx[j]), (y[i], y[j], gy[i], gy[j])]
            for a, b, ga, gb in looks:
                if cosine(ga, gb) <= limit:
                    below.append(cosine(a, b) / temperature)
        values.append(logsumexp(below) - target)
    return mean(values)


def vicreg(
    embeddings, other_embeddings, labels=None, *, invariance=25.0, variance=25.0
):
    x, y = embeddings, other_embeddings
    rows, dim = len(x), len(x[0])

    def moment(z, j, k):
        mean_j = mean([row[j] for row in z])
        mean_k = mean([row[k] for row in z])
        return sum((row[j] - mean_j) * (row[k] - mean_k) for row in z) / (rows - 1)

    def short(z):
        return mean([hinge(1 - math.sqrt(moment(z, j, j) + 1e-4)) for j in range(dim)])

    def together(z):
        pairs = [(j, k) for j in range(dim) for k in range(dim) if j != k]
        return sum(moment(z, j, k) ** 2 for j, k in pairs) / dim

    apart = mean([(x[i][j] - y[i][j]) ** 2 for i in range(rows) for j in range(dim)])
    return (
        invariance * apart
        + variance * (short(x) + short(y))
        + together(x)
        + together(y)
    )
