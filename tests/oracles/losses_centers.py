"""Center loss and the movement of the centers, as loops in float64."""

import numpy as np

from tests.oracles.losses import dot, logsumexp, mean, squared


def center(embeddings, centers, labels):
    pairs = zip(embeddings, labels, strict=True)
    return mean([squared(x, centers[y]) / 2 for x, y in pairs])


def center_softmax(embeddings, class_weights, centers, labels, *, center_weight=0.003):
    values = []
    for x, y in zip(embeddings, labels, strict=True):
        logits = [dot(x, w) for w in class_weights]
        values.append(logsumexp(logits) - logits[y])
    return mean(values) + center_weight * center(embeddings, centers, labels)


def update_centers(centers, embeddings, labels, *, rate=0.5):
    moved = []
    for j, c in enumerate(np.asarray(centers, np.float64)):
        members = [x for x, y in zip(embeddings, labels, strict=True) if y == j]
        delta = sum((c - x for x in members), start=np.zeros_like(c))
        moved.append(c - rate * delta / (1 + len(members)))
    return np.stack(moved)
