"""Miners as loops over one row: distances `d`, columns of positives and of negatives.

Pair miners give (kept positives, kept negatives) as sets, triplet miners a list of
(positive, negative). Columns come in ascending order, so that the first of equal ones
is that of the lowest index.
"""

import math


def nearest(d, columns):
    return min(columns, key=lambda j: d[j])


def farthest(d, columns):
    return max(columns, key=lambda j: d[j])


# --- pairs ----------------------------------------------------------------------------


def multi_similarity(d, positives, negatives, *, epsilon=0.1):
    if not positives or not negatives:
        return set(), set()
    near = min(d[n] for n in negatives)
    far = max(d[p] for p in positives)
    return (
        {p for p in positives if d[p] > near - epsilon},
        {n for n in negatives if d[n] < far + epsilon},
    )


def pair_margin(d, positives, negatives, *, positive_margin=0.2, negative_margin=0.8):
    return (
        {p for p in positives if d[p] > positive_margin},
        {n for n in negatives if d[n] < negative_margin},
    )


def hardest(d, positives, negatives, *, k_positives=1, k_negatives=1):
    far = sorted(positives, key=lambda j: (-d[j], j))
    near = sorted(negatives, key=lambda j: (d[j], j))
    return set(far[:k_positives]), set(near[:k_negatives])


def easy_positive(d, positives, negatives):
    return {nearest(d, positives)} if positives else set(), set(negatives)


def hard_aware(d, positives, negatives, *, share=0.5):
    return hardest(
        d,
        positives,
        negatives,
        k_positives=math.ceil(share * len(positives)),
        k_negatives=math.ceil(share * len(negatives)),
    )


# --- triplets -------------------------------------------------------------------------


def hard(d, positives, negatives):
    if not positives or not negatives:
        return []
    return [(farthest(d, positives), nearest(d, negatives))]


def easy(d, positives, negatives):
    if not positives or not negatives:
        return []
    return [(nearest(d, positives), farthest(d, negatives))]


def semihard(d, positives, negatives, *, fallback=False):
    chosen = []
    for p in positives:
        farther = [n for n in negatives if d[n] > d[p]]
        if farther:
            chosen.append((p, nearest(d, farther)))
        elif fallback and negatives:
            chosen.append((p, farthest(d, negatives)))
    return chosen


def every(d, positives, negatives):
    return [(p, n) for p in positives for n in negatives]


def band(d, positives, negatives, *, inside):
    return [(p, n) for p, n in every(d, positives, negatives) if inside(d[p], d[n])]


def angular(anchor, candidates, positives, negatives, *, angle):
    chosen = []
    for p, n in every(None, positives, negatives):
        center = [(a + b) / 2 for a, b in zip(anchor, candidates[p], strict=True)]
        across = math.dist(anchor, candidates[p])
        reach = math.dist(candidates[n], center)
        if math.atan2(across, 2 * reach) > angle:
            chosen.append((p, n))
    return chosen


def distance_weights(d, negatives, *, dim, lower_cutoff=0.5, upper_cutoff=1.4):
    """Chance of each negative to be drawn."""
    weights = {}
    for n in negatives:
        if d[n] < upper_cutoff:
            r = max(d[n], lower_cutoff)
            density = r ** (dim - 2) * (1 - r * r / 4) ** ((dim - 3) / 2)
            weights[n] = 1 / density
    total = sum(weights.values())
    return {n: weight / total for n, weight in weights.items()}
