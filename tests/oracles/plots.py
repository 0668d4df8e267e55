"""The numbers in the titles of the pictures, by their definitions."""

import math


def separation(positive, negative):
    """d': the distance of the means in units of the mean standard deviation."""

    def mean(values):
        return sum(values) / len(values)

    def variance(values):
        return sum((v - mean(values)) ** 2 for v in values) / len(values)

    spread = math.sqrt((variance(positive) + variance(negative)) / 2)
    return abs(mean(positive) - mean(negative)) / spread


def equal_error_rate(positive, negative):
    """Walk the corners of the ROC until false accepts exceed misses, then cross."""
    last = (0.0, 1.0)
    for threshold in sorted({*positive, *negative}):
        accepted = sum(d <= threshold for d in negative) / len(negative)
        missed = sum(d > threshold for d in positive) / len(positive)
        if accepted >= missed:
            before, after = last[0] - last[1], accepted - missed
            share = -before / (after - before)
            return last[0] + share * (accepted - last[0])
        last = (accepted, missed)
    raise AssertionError("the last threshold accepts everything")
