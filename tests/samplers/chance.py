"""Whether counts are those of chance."""

import numpy as np

# A chi-squared statistic above its mean by this many standard deviations has a
# probability below 1e-6, and the seeds are fixed.
SIGMAS = 6.0


def is_plausible(counts):
    """Whether cells of equal probability may have these counts."""
    counts = np.asarray(counts, np.float64)
    expected = counts.mean()
    statistic = np.sum((counts - expected) ** 2 / expected)
    freedom = counts.size - 1
    return abs(statistic - freedom) < SIGMAS * np.sqrt(2 * freedom)
