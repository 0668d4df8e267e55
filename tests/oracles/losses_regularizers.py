"""Regularisers as loops in float64."""

from tests.oracles.losses import cosine, dot, mean


def lp_norm(embeddings, *, order=2.0, power=1.0):
    norms = [sum(abs(a) ** order for a in x) ** (1 / order) for x in embeddings]
    return mean([norm**power for norm in norms])


def zero_mean(embeddings):
    return mean([abs(sum(x)) for x in embeddings])


def regularface(class_weights):
    values = []
    for i, w in enumerate(class_weights):
        others = [cosine(w, v) for j, v in enumerate(class_weights) if j != i]
        values.append(max(others))
    return mean(values)


def center_invariant(class_weights):
    squares = [dot(w, w) for w in class_weights]
    return mean([(s - mean(squares)) ** 2 / 4 for s in squares])
