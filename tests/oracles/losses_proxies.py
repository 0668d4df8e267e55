"""Proxy losses as loops in float64, written from the papers."""

import math

from tests.oracles.losses import cosine, logsumexp, mean, squared


def unit(x):
    length = math.sqrt(sum(a * a for a in x))
    return [a / length for a in x]


def _distances(x, proxies, temperature):
    return [squared(unit(x), unit(p)) / temperature for p in proxies]


def proxy_nca(embeddings, proxies, labels, *, temperature=1 / 9):
    """The true proxy is not in the denominator."""
    values = []
    for x, y in zip(embeddings, labels, strict=True):
        d = _distances(x, proxies, temperature)
        others = [-d[z] for z in range(len(proxies)) if z != y]
        values.append(d[y] + logsumexp(others))
    return mean(values)


def proxy_nca_pp(embeddings, proxies, labels, *, temperature=1 / 9):
    """All proxies are in the denominator."""
    values = []
    for x, y in zip(embeddings, labels, strict=True):
        d = _distances(x, proxies, temperature)
        values.append(d[y] + logsumexp([-each for each in d]))
    return mean(values)


def proxy_anchor(embeddings, proxies, labels, *, margin=0.1, scale=32.0):
    near, far = [], []
    for j, p in enumerate(proxies):
        pull, push = [0.0], [0.0]
        for x, y in zip(embeddings, labels, strict=True):
            c = cosine(x, p)
            if y == j:
                pull.append(-scale * (c - margin))
            else:
                push.append(scale * (c + margin))
        if len(pull) > 1:
            near.append(logsumexp(pull))
        far.append(logsumexp(push))
    return mean(near) + mean(far)


def soft_triple(
    embeddings,
    centers,
    labels,
    *,
    margin=0.01,
    scale=20.0,
    temperature=0.1,
    regularization=0.2,
):
    values = []
    for x, y in zip(embeddings, labels, strict=True):
        logits = []
        for j, group in enumerate(centers):
            c = [cosine(x, w) for w in group]
            shares = [math.exp(each / temperature) for each in c]
            relaxed = sum(s * each for s, each in zip(shares, c, strict=True))
            relaxed /= sum(shares)
            logits.append(scale * (relaxed - margin * (j == y)))
        values.append(logsumexp(logits) - logits[y])
    return mean(values) + regularization * sparse_centers(centers)


def sparse_centers(centers):
    total, k = 0.0, len(centers[0])
    if k == 1:
        return 0.0
    for group in centers:
        for s in range(k):
            for t in range(s + 1, k):
                total += math.sqrt(2 - 2 * cosine(group[s], group[t]))
    return total / (len(centers) * k * (k - 1))
