"""How far a false accept rate may be off, when pairs share identities."""

import numpy as np
from scipy import special


def needed_pairs(far: float, confidence: float) -> int:
    """Impostor pairs without which a rate cannot be shown, even if none is accepted.

    With n independent pairs and no error, rates up to `1 - (1 - confidence)^(1/n)` are
    possible: about `3 / n` at 95 %, the rule of three.
    """
    return int(np.ceil(np.log(1 - confidence) / np.log1p(-far) * (1 - 1e-12)))


def lowest_far(pairs: int, confidence: float) -> float:
    """The lowest rate that so many impostor pairs can show."""
    return float(-np.expm1(np.log(1 - confidence) / pairs))


def interval(
    accepted: np.ndarray, pairs: np.ndarray, confidence: float
) -> tuple[float, float]:
    """Confidence interval of a rate of pairs, from what each identity contributes.

    `accepted[i]` of the `pairs[i]` impostor pairs that identity i takes part in were
    accepted; each pair is in two identities. The jackknife over identities gives the
    variance, that the number of independent pairs which would vary as much, and an
    exact binomial interval of that size the ends.
    """
    total, wrong = pairs.sum() / 2, accepted.sum() / 2
    rate, identities = wrong / total, len(pairs)
    effective = total
    if 0 < wrong < total and identities > 2:
        without = (wrong - accepted) / (total - pairs)
        variance = (identities - 1) * np.var(without)
        if variance > 0:
            effective = min(total, rate * (1 - rate) / variance)
    tail = (1 - confidence) / 2
    if identities > 2:
        # Student's t: the variance itself is known from few identities only.
        effective *= (special.ndtri(tail) / special.stdtrit(identities - 1, tail)) ** 2
    x = rate * effective
    low = 0.0 if wrong == 0 else special.betaincinv(x, effective - x + 1, tail)
    high = 1.0 if wrong == total else special.betaincinv(x + 1, effective - x, 1 - tail)
    return float(min(low, rate)), float(max(high, rate))
