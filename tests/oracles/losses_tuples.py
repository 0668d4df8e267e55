"""Tuple losses as loops in float64, written from the papers."""

import math

import numpy as np

from tests.oracles.losses import (
    cosine,
    dot,
    euclidean,
    hinge,
    logsumexp,
    mean,
    negatives,
    positives,
)


def unit(x):
    length = math.sqrt(dot(x, x))
    return np.asarray(x) / length if length else np.asarray(x)


def triplets(labels):
    for a in range(len(labels)):
        for p in positives(labels, a):
            for n in negatives(labels, a):
                yield a, p, n


def tuples(labels):
    """Anchor, positive, and all negatives, where there is one."""
    for a in range(len(labels)):
        for p in positives(labels, a):
            if negatives(labels, a):
                yield a, p, negatives(labels, a)


# --- swap -----------------------------------------------------------------------------


def triplet_all_swap(embeddings, labels, *, margin=0.2, penalty=hinge):
    x, values, active = embeddings, [], 0
    for a, p, n in triplets(labels):
        d_an = min(euclidean(x[a], x[n]), euclidean(x[p], x[n]))
        gap = euclidean(x[a], x[p]) - d_an + margin
        values.append(penalty(gap))
        active += gap > 0
    return sum(values) / active if active else 0.0


def triplet_hard_swap(embeddings, labels, *, margin=0.2):
    x, values = embeddings, []
    for a in range(len(labels)):
        near, far = positives(labels, a), negatives(labels, a)
        if near and far:
            p = max(near, key=lambda j: euclidean(x[a], x[j]))
            n = min(far, key=lambda j: euclidean(x[a], x[j]))
            d_an = min(euclidean(x[a], x[n]), euclidean(x[p], x[n]))
            values.append(hinge(euclidean(x[a], x[p]) - d_an + margin))
    return mean(values)


# --- one positive against all negatives -----------------------------------------------


def n_pair(embeddings, labels, *, regularization=0.005):
    x, values = embeddings, []
    for a, p, far in tuples(labels):
        logits = [dot(x[a], x[n]) - dot(x[a], x[p]) for n in far]
        squares = dot(x[a], x[a]) + dot(x[p], x[p])
        values.append(logsumexp([0.0, *logits]) + regularization * squares)
    return mean(values)


def tuplet_margin(embeddings, labels, *, margin=0.1, scale=64.0):
    x, values = embeddings, []
    for a, p, far in tuples(labels):
        target = math.cos(math.acos(cosine(x[a], x[p])) - margin)
        logits = [scale * (cosine(x[a], x[n]) - target) for n in far]
        values.append(logsumexp([0.0, *logits]))
    return mean(values)


def angular(embeddings, labels, *, angle=math.pi / 4, n_pair_weight=0.0):
    x, values = [unit(v) for v in embeddings], []
    t = math.tan(angle) ** 2
    for a, p, far in tuples(labels):
        f = [
            4 * t * dot(x[a] + x[p], x[n]) - 2 * (1 + t) * dot(x[a], x[p]) for n in far
        ]
        simple = [dot(x[a], x[n]) - dot(x[a], x[p]) for n in far]
        joint = n_pair_weight * logsumexp([0.0, *simple])
        values.append(logsumexp([0.0, *f]) + joint)
    return mean(values)


# --- lifted structure -----------------------------------------------------------------


def lifted_structure(embeddings, labels, *, margin=1.0):
    x, values = embeddings, []
    for i in range(len(labels)):
        for j in positives(labels, i):
            logits = [margin - euclidean(x[i], x[k]) for k in negatives(labels, i)]
            logits += [margin - euclidean(x[j], x[k]) for k in negatives(labels, j)]
            if logits:
                gap = logsumexp(logits) + euclidean(x[i], x[j])
                values.append(hinge(gap) ** 2 / 2)
    return mean(values)


def generalized_lifted_structure(embeddings, labels, *, margin=1.0, penalty=hinge):
    x, values = embeddings, []
    for a in range(len(labels)):
        near, far = positives(labels, a), negatives(labels, a)
        if near and far:
            pull = logsumexp([euclidean(x[a], x[p]) for p in near])
            push = logsumexp([margin - euclidean(x[a], x[n]) for n in far])
            values.append(penalty(pull + push))
    return mean(values)


# --- margin based ---------------------------------------------------------------------


def log_density(d, dim):
    """Logarithm of the density of distances between random unit vectors."""
    return (dim - 2) * math.log(d) + (dim - 3) / 2 * math.log(1 - d * d / 4)


def draw_probabilities(embeddings, labels, *, nearest=0.5, farthest=1.4):
    """`[a][n]`: the probability with which `n` is drawn as the negative of `a`."""
    x = [unit(v) for v in embeddings]
    out = np.zeros((len(labels), len(labels)))
    for a in range(len(labels)):
        for n in negatives(labels, a):
            d = euclidean(x[a], x[n])
            if d < farthest:
                out[a, n] = math.exp(-log_density(max(d, nearest), len(x[a])))
        if out[a].sum():
            out[a] /= out[a].sum()
    return out


def margin_based(embeddings, labels, *, boundary=1.2, margin=0.2, probabilities=None):
    """The expectation over the negative that is drawn for each positive pair."""
    x = [unit(v) for v in embeddings]
    if probabilities is None:
        probabilities = draw_probabilities(embeddings, labels)
    total = active = 0.0
    for a in range(len(labels)):
        for p in positives(labels, a):
            cost = euclidean(x[a], x[p]) - boundary + margin
            total += hinge(cost)
            active += cost > 0
            for n in negatives(labels, a):
                cost = boundary - euclidean(x[a], x[n]) + margin
                total += probabilities[a, n] * hinge(cost)
                active += probabilities[a, n] * (cost > 0)
    return total / active if active else 0.0


def margin_based_triplets(embeddings, labels, *, boundary, margin=0.2):
    """Over all triplets, with a boundary for each class; a row without is in none."""
    x, costs = [unit(v) for v in embeddings], []
    for a, p, n in triplets(labels):
        if max(labels[a], labels[n]) < len(boundary):
            b = boundary[labels[a]]
            costs.append(euclidean(x[a], x[p]) - b + margin)
            costs.append(b - euclidean(x[a], x[n]) + margin)
    costs = [cost for cost in costs if cost > 0]
    return mean(costs)


def margin_based_frozen(embeddings, labels, **inputs):
    """The loss with the probabilities of these embeddings, whatever it is given."""
    probabilities = draw_probabilities(embeddings, labels)
    del inputs

    def oracle(**given):
        return margin_based(**given, probabilities=probabilities)

    return oracle


# --- aligned pairs --------------------------------------------------------------------


def aligned_parts(similarity, labels, *, margin=0.25, semi_hard=True):
    """The mean-negative and the closest-negative loss of each anchor."""
    parts = []
    for i, row in enumerate(similarity):
        far = [row[j] for j in range(len(row)) if labels[j] != labels[i]]
        if not far:
            continue
        first = hinge(mean(far) - row[i] + margin)
        close = [s for s in far if s <= row[i]] if semi_hard else far
        second = hinge(max(close) - row[i] + margin) if close else 0.0
        parts.append((first, second))
    return parts


def hard_negatives(
    embeddings, positives, labels, *, reduce=sum, take=(0, 1), **options
):
    similarity = [[cosine(a, p) for p in positives] for a in embeddings]
    parts = aligned_parts(similarity, labels, **options)
    return sum(reduce([part[k] for part in parts]) for k in take)


# --- centroids ------------------------------------------------------------------------


def centroid_triplet(embeddings, labels, *, margin=0.5, hard=True, penalty=hinge):
    values = []
    for a, y in enumerate(labels):
        near = positives(labels, a)
        others = sorted({z for z in labels.tolist() if z not in (y, -1)})
        if not near or not others:
            continue
        own = np.mean([embeddings[p] for p in near], axis=0)
        far = [
            euclidean(embeddings[a], np.mean(embeddings[labels == z], axis=0))
            for z in others
        ]
        d_ap = euclidean(embeddings[a], own)
        for d_an in [min(far)] if hard else far:
            values.append(penalty(d_ap - d_an + margin))
    return mean(values)
