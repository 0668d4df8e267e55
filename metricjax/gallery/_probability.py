"""From a similarity to the probability that two items are the same."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class LogOdds(NamedTuple):
    """Log odds of "same" by similarity, linear between points and flat beyond them.

    At even prior odds, so that they are log likelihood ratios too.

    Attributes:
        similarities: rising.
        values: the natural logarithm of p / (1 - p) at each; never falling.
    """

    similarities: tuple[float, ...]
    values: tuple[float, ...]


Fit = Callable[[np.ndarray, np.ndarray, np.ndarray], LogOdds]
"""`(similarities, genuine, impostors) -> LogOdds`; see `platt`."""


def log_odds(curve: LogOdds, similarities: ArrayLike) -> np.ndarray:
    """Log odds of "same" at even prior odds, the log likelihood ratio.

    Args:
        curve: from `platt` or `isotonic`; `Calibration.log_odds`.
        similarities: of any shape.

    Returns:
        Of the same shape, float64.

    Example:
        >>> log_odds(LogOdds((0.0, 1.0), (-4.0, 4.0)), [0.5, 0.75, 3.0]).tolist()
        [0.0, 2.0, 4.0]
    """
    return np.interp(np.asarray(similarities, np.float64), *curve)


def probability(
    curve: LogOdds, similarities: ArrayLike, *, prior: float = 0.5
) -> np.ndarray:
    """The probability that two items of this similarity are the same.

    `sigmoid(log_odds(similarity) + log(prior / (1 - prior)))`.

    Args:
        curve: from `platt` or `isotonic`; `Calibration.log_odds`.
        similarities: of any shape.
        prior: how often a compared pair is of one identity, in (0, 1). Calibration
            pairs do not tell, since how many of each there are is an accident.

    Returns:
        Of the same shape, float64 in (0, 1).

    Raises:
        ValueError: if the prior is not between 0 and 1.

    Example:
        >>> curve = LogOdds((0.0, 1.0), (-4.0, 4.0))
        >>> probability(curve, 0.5).item(), probability(curve, 0.5, prior=0.01).item()
        (0.5, 0.01)
    """
    if not 0.0 < prior < 1.0:
        raise ValueError(
            f"Expected `prior` between 0 and 1, got {prior}; 0.5 if as many pairs are "
            "of one identity as of two."
        )
    odds = np.exp(log_odds(curve, similarities)) * (prior / (1 - prior))
    return odds / (1 + odds)


def platt(similarities: ArrayLike, genuine: ArrayLike, impostors: ArrayLike) -> LogOdds:
    """Platt's sigmoid: log odds linear in the similarity, by maximum likelihood.

    Genuine and impostor pairs weigh the same in sum (even prior odds). Targets are
    Platt's, `(n + 1) / (n + 2)` and `1 / (n + 2)` instead of 1 and 0, so that the slope
    is finite where one similarity separates all pairs.

    Args:
        similarities: `[m]` in [-1, 1].
        genuine: `[m]`, the number of genuine pairs of each similarity.
        impostors: `[m]`, the number of impostor pairs.

    Returns:
        The straight line, over [-1, 1].

    Raises:
        ValueError: if genuine pairs are not the more similar ones.

    Example:
        >>> curve = platt([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0], [0, 0, 1, 1])
        >>> probability(curve, 0.5).round(4).item()
        0.5

    References:
        Platt, "Probabilistic Outputs for Support Vector Machines", Advances in Large
        Margin Classifiers, 1999. Lin, Lin & Weng, "A Note on Platt's Probabilistic
        Outputs for Support Vector Machines", Machine Learning 2007 (Newton's method).
    """
    scores, weights, targets = _balanced(similarities, genuine, impostors)
    centre = np.average(scores, weights=weights)
    spread = np.sqrt(np.average(np.square(scores - centre), weights=weights))
    if spread == 0:
        raise ValueError(_COLLAPSED)
    z = (scores - centre) / spread
    slope, offset = _newton(z, weights, targets)
    if slope <= 0:
        raise ValueError(_COLLAPSED)
    ends = (-1.0, 1.0)
    values = [float(slope * (end - centre) / spread + offset) for end in ends]
    return LogOdds(ends, (values[0], values[1]))


_COLLAPSED = (
    "Expected genuine pairs more similar than impostor pairs, got the opposite or no "
    "difference; the encoder has collapsed or the labels are wrong."
)


def _balanced(
    similarities: ArrayLike, genuine: ArrayLike, impostors: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, weights and Platt's targets; each kind of pair has half of the weight."""
    scores = np.asarray(similarities, np.float64)
    same, other = np.asarray(genuine, np.float64), np.asarray(impostors, np.float64)
    high, low = (same.sum() + 1) / (same.sum() + 2), 1 / (other.sum() + 2)
    same, other = same / (2 * same.sum()), other / (2 * other.sum())
    weights = same + other
    kept = weights > 0
    targets = (same * high + other * low)[kept] / weights[kept]
    return scores[kept], weights[kept], targets


def _newton(
    z: np.ndarray, weights: np.ndarray, targets: np.ndarray
) -> tuple[float, float]:
    """Slope and offset of a logistic regression, by Newton's method with halving."""
    columns = np.stack([z, np.ones_like(z)])
    beta = np.zeros(2)

    def loss(beta: np.ndarray) -> float:
        line = beta @ columns
        return float(weights @ (np.logaddexp(0, line) - targets * line))

    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(beta @ columns, -500, 500)))
        gradient = columns @ (weights * (p - targets))
        if np.abs(gradient).max() < 1e-12:
            break
        hessian = (columns * (weights * p * (1 - p))) @ columns.T
        step = np.linalg.solve(hessian + 1e-14 * np.eye(2), gradient)
        # The loss is convex: a step that overshoots is halved until it goes down.
        before = loss(beta)
        while loss(beta - step) > before and np.abs(step).max() > 1e-12:
            step = step / 2
        beta = beta - step
    return float(beta[0]), float(beta[1])


def isotonic(
    similarities: ArrayLike, genuine: ArrayLike, impostors: ArrayLike
) -> LogOdds:
    """Any rising function of the similarity, by isotonic regression.

    Follows the data where a sigmoid does not fit, but needs many more pairs. Pairs and
    targets weigh as in `platt`; between the points log odds are linear.

    Args:
        similarities: `[m]` in [-1, 1].
        genuine: `[m]`, the number of genuine pairs of each similarity.
        impostors: `[m]`, the number of impostor pairs.

    Returns:
        The points of the function.

    Raises:
        ImportError: if scikit-learn is missing.

    Example:
        >>> curve = isotonic([0.9, 0.6, 0.5, 0.1], [1, 0, 1, 0], [0, 1, 0, 1])
        >>> probability(curve, [0.1, 0.55, 0.9]).round(4).tolist()
        [0.25, 0.5, 0.75]

    References:
        Zadrozny & Elkan, "Transforming Classifier Scores into Accurate Multiclass
        Probability Estimates", KDD 2002.
    """
    try:
        from sklearn.isotonic import IsotonicRegression
    except ImportError as error:
        raise ImportError(
            "Expected the package scikit-learn for isotonic regression; install it "
            'with: pip install "metricjax[train]", or use `platt`.'
        ) from error
    scores, weights, targets = _balanced(similarities, genuine, impostors)
    fit = IsotonicRegression().fit(scores, targets, sample_weight=weights)
    p = np.asarray(fit.y_thresholds_, np.float64)
    values = np.log(p) - np.log1p(-p)
    return LogOdds(
        tuple(map(float, fit.X_thresholds_)), tuple(map(float, values.tolist()))
    )
