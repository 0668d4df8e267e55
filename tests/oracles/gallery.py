"""Galleries and calibration as loops from their definitions, in float64."""

import itertools
import math

import numpy as np


def cosines(x, y):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return np.array(
        [[a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for b in y] for a in x]
    )


def pairs(x, labels):
    """Similarities of genuine and of impostor pairs."""
    scores = cosines(x, x)
    genuine, impostors = [], []
    for i, j in itertools.combinations(range(len(labels)), 2):
        (genuine if labels[i] == labels[j] else impostors).append(scores[i, j])
    return np.array(genuine), np.array(impostors)


def error_rates(x, labels, threshold):
    genuine, impostors = pairs(x, labels)
    return np.mean(impostors >= threshold), np.mean(genuine >= threshold)


def jackknife_variance(x, labels, threshold):
    """Of the false accept rate, leaving out one identity at a time."""
    x, labels = np.asarray(x), np.asarray(labels)
    rates = [
        error_rates(x[labels != left], labels[labels != left], threshold)[0]
        for left in np.unique(labels)
    ]
    n = len(rates)
    return (n - 1) / n * sum((rate - np.mean(rates)) ** 2 for rate in rates)


def binomial_upper(wrong, pairs, tail):
    """The rate at which `wrong` or fewer of `pairs` are seen with chance `tail`."""
    low, high = 0.0, 1.0
    for _ in range(200):
        rate = (low + high) / 2
        chance = sum(
            math.comb(pairs, k) * rate**k * (1 - rate) ** (pairs - k)
            for k in range(wrong + 1)
        )
        low, high = (rate, high) if chance > tail else (low, rate)
    return low


def nearest_identities(query, embeddings, labels, k):
    """Labels and similarities of the identities whose nearest template is nearest."""
    scores = cosines([query], embeddings)[0]
    best = {}
    for label, score in zip(labels, scores, strict=True):
        best[label] = max(best.get(label, -np.inf), score)
    ranked = sorted(best, key=lambda label: -best[label])[:k]
    return ranked, [best[label] for label in ranked]


def posterior(log_ratios, names, prior_unknown):
    """Chances of each identity by Bayes' rule, and of none."""
    shares = [math.exp(r) * (1 - prior_unknown) / names for r in log_ratios]
    total = prior_unknown + sum(shares)
    return [share / total for share in shares], prior_unknown / total
