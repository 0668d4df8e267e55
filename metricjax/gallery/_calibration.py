"""The threshold at a wanted false accept rate, and what is known about that rate."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from metricjax import _checks
from metricjax.gallery import _intervals
from metricjax.gallery._probability import Fit, LogOdds, platt
from metricjax.gallery._templates import unit_rows
from metricjax.metrics import verification

BLOCK = 1024
# Points of the stored curve; between two of them the stricter threshold is taken.
POINTS = 400


class Calibration(NamedTuple):
    """What a set of identities says about an encoder's similarities; plain numbers.

    Attributes:
        threshold: pairs at least so similar are accepted.
        far: the false accept rate that was asked for.
        observed_far: the share of impostor pairs at least as similar as the threshold.
        far_interval: confidence interval of the false accept rate at the threshold.
        confidence: its level.
        tar: the share of genuine pairs at least as similar as the threshold.
        genuine: number of genuine pairs.
        impostors: number of impostor pairs.
        identities: number of identities.
        log_odds: from similarity to log odds of "same"; see `probability`.
        fars: rising rates for which thresholds are stored; see `threshold_at`.
        thresholds: the threshold of each, falling.
    """

    threshold: float
    far: float
    observed_far: float
    far_interval: tuple[float, float]
    confidence: float
    tar: float
    genuine: int
    impostors: int
    identities: int
    log_odds: LogOdds
    fars: tuple[float, ...]
    thresholds: tuple[float, ...]


class Rates(NamedTuple):
    """Error rates at a threshold.

    Attributes:
        far: the share of impostor pairs at least so similar.
        far_interval: confidence interval of the false accept rate.
        tar: the share of genuine pairs at least so similar.
        genuine: number of genuine pairs.
        impostors: number of impostor pairs.
    """

    far: float
    far_interval: tuple[float, float]
    tar: float
    genuine: int
    impostors: int


def calibrate(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    far: float,
    confidence: float = 0.95,
    fit: Fit = platt,
) -> Calibration:
    """Choose the threshold at a false accept rate, from all pairs of some identities.

    They must be identities that neither trained the encoder nor will test it: an
    encoder tells the ones that it was trained on apart too well.

    The threshold is the lowest that accepts at most a share `far` of the impostor
    pairs, half way to the next pair below. Two pairs with an identity in common are
    not independent. So the interval counts as many pairs as would vary as much if they
    were: the variance is the jackknife's over identities, the ends are those of the
    exact binomial interval of that size, with Student's t for few identities. In a
    simulation with 5 to 100 identities, of intervals meant to cover the true rate in
    95 % of the cases, these did in 95.5 to 100 %, those of Wilson, which take pairs as
    independent, in 34 to 88 %, and percentiles of a bootstrap over identities in 76 to
    100 %, fewest where hardly a pair is accepted.

    Args:
        embeddings: `[rows, dim]`, single images, finite and not zero.
        labels: `[rows]` int; a negative label is in no pair.
        far: the false accept rate wanted, in (0, 1).
        confidence: level of the interval, in (0, 1).
        fit: how probabilities are fitted: `platt` or `isotonic`.

    Returns:
        The calibration.

    Raises:
        ValueError: if there are too few impostor pairs to show such a rate, and how
            many are needed; if genuine pairs are missing or not the more similar ones.
        TypeError: if a dtype is wrong.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> labels = np.repeat(np.arange(20), 5)
        >>> x = rng.normal(size=(20, 8))[labels] + 0.3 * rng.normal(size=(100, 8))
        >>> found = calibrate(x, labels, far=0.01)
        >>> found.impostors, found.observed_far <= 0.01 <= found.far_interval[1]
        (4750, True)

    References:
        Korn & Graubard, "Confidence Intervals for Proportions with Small Expected
        Number of Positive Counts Estimated from Survey Data", Survey Methodology 1998
        (the interval). Hanley & Lippman-Hand, "If Nothing Goes Wrong, Is Everything
        All Right?", JAMA 1983 (the rule of three).
    """
    _check_share("far", far)
    _check_share("confidence", confidence)
    rows, labels = _labelled(embeddings, labels)
    sizes = np.bincount(labels)
    impostors = (len(labels) ** 2 - int(np.square(sizes).sum())) // 2
    _check_supported(far, impostors, len(sizes), confidence)
    curve = verification.roc_of_embeddings(rows, labels)
    threshold = _threshold(curve, far)
    rates = rates_at(rows, labels, threshold, confidence=confidence)
    fars, thresholds = _points(curve)
    return Calibration(
        threshold=threshold,
        far=float(far),
        observed_far=rates.far,
        far_interval=rates.far_interval,
        confidence=float(confidence),
        tar=rates.tar,
        genuine=curve.genuine,
        impostors=curve.impostors,
        identities=len(sizes),
        log_odds=fit(*_pairs_by_score(curve)),
        fars=fars,
        thresholds=thresholds,
    )


def threshold_at(calibration: Calibration, far: float) -> float:
    """The threshold at another false accept rate than the calibrated one.

    Args:
        calibration: from `calibrate`.
        far: the rate wanted, in (0, 1). For a search among n templates that lets a
            stranger through in at most a share f of the cases, ask for `f / n`.

    Returns:
        A threshold that accepted at most this share of the calibration's impostors.

    Raises:
        ValueError: if the calibration had too few impostor pairs to show such a rate,
            and how many are needed.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> labels = np.repeat(np.arange(20), 5)
        >>> x = rng.normal(size=(20, 8))[labels] + 0.3 * rng.normal(size=(100, 8))
        >>> found = calibrate(x, labels, far=0.01)
        >>> threshold_at(found, 0.1) < found.threshold < threshold_at(found, 0.001)
        True
    """
    _check_share("far", far)
    if far == calibration.far:
        return calibration.threshold
    _check_supported(
        far, calibration.impostors, calibration.identities, calibration.confidence
    )
    place = np.searchsorted(calibration.fars, far * (1 + 1e-12), side="right") - 1
    if place < 0:
        raise ValueError(_TIED)
    return calibration.thresholds[place]


def rates_at(
    embeddings: ArrayLike,
    labels: ArrayLike,
    threshold: float,
    *,
    confidence: float = 0.95,
) -> Rates:
    """What a threshold does to all pairs of other identities.

    Args:
        embeddings: `[rows, dim]`, single images, finite and not zero.
        labels: `[rows]` int; a negative label is in no pair.
        threshold: of the similarity; `Calibration.threshold`.
        confidence: level of the interval, in (0, 1).

    Returns:
        The rates; NaN where there is no such pair. The interval is that of
        `calibrate`.

    Raises:
        ValueError: if shapes disagree, or a row is zero or not finite.
        TypeError: if a dtype is wrong.

    Example:
        >>> x = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]])
        >>> rates = rates_at(x, [0, 0, 1, 1], 0.7)
        >>> rates.tar, rates.far
        (1.0, 0.25)
    """
    _check_share("confidence", confidence)
    rows, labels = _labelled(embeddings, labels)
    sizes = np.bincount(labels)
    same, other = np.zeros(len(sizes)), np.zeros(len(sizes))
    for start in range(0, len(rows), BLOCK):
        passed = rows[start : start + BLOCK] @ rows.T >= threshold
        own = labels[start : start + BLOCK]
        # A row with itself is no pair, whatever rounding makes of its similarity.
        passed[np.arange(len(own)), start + np.arange(len(own))] = False
        genuine = own[:, None] == labels
        np.add.at(same, own, np.count_nonzero(passed & genuine, axis=1))
        np.add.at(other, own, np.count_nonzero(passed & ~genuine, axis=1))
    genuine_pairs, impostor_pairs = sizes * (sizes - 1), sizes * (len(rows) - sizes)
    nothing = (float("nan"), float("nan"))
    has_impostors = impostor_pairs.sum() > 0
    return Rates(
        far=_share(other, impostor_pairs),
        far_interval=_intervals.interval(other, impostor_pairs, confidence)
        if has_impostors
        else nothing,
        tar=_share(same, genuine_pairs),
        genuine=int(genuine_pairs.sum()) // 2,
        impostors=int(impostor_pairs.sum()) // 2,
    )


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.sum() / whole.sum()) if whole.sum() else float("nan")


def _labelled(
    embeddings: ArrayLike, labels: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Rows with a label, and these counted from 0."""
    rows, labels = unit_rows("embeddings", embeddings), np.asarray(labels)
    _checks.check_labels("labels", labels, len(rows))
    kept = labels >= 0
    return rows[kept], np.unique(labels[kept], return_inverse=True)[1]


def _check_share(name: str, value: float) -> None:
    if not 0.0 < value < 1.0:
        raise ValueError(
            f"Expected `{name}` between 0 and 1, got {value}; 0.01 is one in a hundred."
        )


_TIED = (
    "Expected a similarity that few impostor pairs reach, got the highest of all "
    "shared by too many; the encoder has collapsed, or images are enrolled twice."
)


def _check_supported(
    far: float, impostors: int, identities: int, confidence: float
) -> None:
    needed = _intervals.needed_pairs(far, confidence)
    if impostors >= needed:
        return
    got = f"got {impostors} of {identities} identities"
    if impostors:
        lowest = _intervals.lowest_far(impostors, confidence)
        got += f", which can show {lowest:.2g} at best"
    raise ValueError(
        f"Expected at least {needed} impostor pairs for a false accept rate of "
        f"{far:g}, {got}; use images of more identities or ask for a higher rate."
    )


def _threshold(curve: verification.Roc, far: float) -> float:
    """The lowest threshold at which the curve is not above `far`."""
    last = _last(curve, np.array([far * curve.impostors]))[0]
    if last == 0:
        raise ValueError(_TIED)
    return float(_between(curve, last))


def _last(curve: verification.Roc, counts: np.ndarray) -> np.ndarray:
    """The last point of the curve that accepts at most so many impostors."""
    wrong = np.rint(curve.far * curve.impostors)
    return np.searchsorted(wrong, np.floor(counts * (1 + 1e-12)), side="right") - 1


def _between(curve: verification.Roc, last: np.ndarray) -> np.ndarray:
    """Thresholds half way down to the next similarity, safe from rounding.

    In a binned curve similarities fill their bin, so that its edge is the threshold.
    """
    if curve.resolution:
        return curve.thresholds[last]
    after = np.minimum(last + 1, len(curve.thresholds) - 1)
    return (curve.thresholds[last] + curve.thresholds[after]) / 2


def _points(curve: verification.Roc) -> tuple[tuple[float, ...], tuple[float, ...]]:
    counts = np.geomspace(1, curve.impostors, POINTS)
    last = np.unique(_last(curve, np.concatenate([[0.0], counts])))
    last = last[last > 0]
    # Of points of equal rate the lowest threshold, which accepts most genuine pairs.
    fars = tuple(curve.far[last].tolist())
    return fars, tuple(_between(curve, last).tolist())


def _pairs_by_score(
    curve: verification.Roc,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Similarities, and the genuine and impostor pairs that have each of them."""
    genuine = np.rint(np.diff(curve.tar) * curve.genuine)
    impostors = np.rint(np.diff(curve.far) * curve.impostors)
    return curve.thresholds[1:] + curve.resolution / 2, genuine, impostors
