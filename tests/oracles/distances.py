"""Distances of two vectors as loops in float64, written from their definitions."""

import math

import numpy as np


def matrix(between, x, y):
    """`between` of every row of `x` and every row of `y`."""
    return np.array([[between(a, b) for b in y] for a in x], np.float64)


def squared_euclidean(x, y):
    return sum((a - b) ** 2 for a, b in zip(x, y, strict=True))


def euclidean(x, y):
    return math.sqrt(squared_euclidean(x, y))


def lp(x, y, *, p):
    return sum(abs(a - b) ** p for a, b in zip(x, y, strict=True)) ** (1 / p)


def manhattan(x, y):
    return sum(abs(a - b) for a, b in zip(x, y, strict=True))


def chebyshev(x, y):
    return max(abs(a - b) for a, b in zip(x, y, strict=True))


def dot(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True))


def length(x):
    return math.sqrt(dot(x, x))


def cosine_similarity(x, y):
    product = length(x) * length(y)
    return dot(x, y) / product if product else 0.0


def cosine(x, y):
    return 1 - cosine_similarity(x, y)


def variance(x):
    mean = sum(x) / len(x)
    return sum((a - mean) ** 2 for a in x) / len(x)


def snr(x, y):
    noise = [a - b for a, b in zip(x, y, strict=True)]
    return variance(noise) / variance(x) if variance(x) else 0.0


def hyperbolic(x, y, *, curvature):
    c = curvature
    room = (1 - c * dot(x, x)) * (1 - c * dot(y, y))
    return math.acosh(1 + 2 * c * squared_euclidean(x, y) / room) / math.sqrt(c)


def mahalanobis(x, y, *, factor):
    gap = [a - b for a, b in zip(x, y, strict=True)]
    return length([dot(row, gap) for row in factor])


def hamming(x, y):
    return sum(a != b for a, b in zip(x, y, strict=True))


def relaxed_hamming(x, y):
    return sum(a * (1 - b) + b * (1 - a) for a, b in zip(x, y, strict=True))
