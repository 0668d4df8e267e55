"""The curve of accepted pairs and what is read from it; public in `verification`."""

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from metricjax import _checks


class Roc(NamedTuple):
    """Accept rates at every threshold where they change, from strict to lax.

    `far[i]` and `tar[i]` are the shares of impostor and genuine pairs whose similarity
    is at least `thresholds[i]`. The first threshold is infinite and accepts nothing,
    the last accepts all.
    """

    thresholds: np.ndarray  # [points] float64, falling
    far: np.ndarray  # [points] float64, from 0 to 1
    tar: np.ndarray  # [points] float64, from 0 to 1
    genuine: int  # number of genuine pairs
    impostors: int  # number of impostor pairs
    resolution: float  # width of the bins of the thresholds; 0 if they are exact


class Eer(NamedTuple):
    """The equal error rate and the threshold there."""

    rate: float
    threshold: float


class Det(NamedTuple):
    """Detection error trade-off: both error rates, and both as normal deviates."""

    thresholds: np.ndarray
    far: np.ndarray
    frr: np.ndarray
    far_deviate: np.ndarray
    frr_deviate: np.ndarray


class TarAtFar(NamedTuple):
    """True accept rates at given false accept rates; each `[fars]`."""

    fars: np.ndarray  # as asked
    tar: np.ndarray  # NaN where not supported
    thresholds: np.ndarray  # NaN where not supported
    observed_far: np.ndarray  # at that threshold, at most as asked
    supported: np.ndarray  # bool: there are as many impostors as needed
    needed: np.ndarray  # impostor pairs needed, 1 / FAR


class Histogram(NamedTuple):
    """Numbers of pairs by similarity."""

    edges: np.ndarray  # [bins + 1]
    genuine: np.ndarray  # [bins]
    impostors: np.ndarray  # [bins]


def accepted(
    similarities: ArrayLike, is_same: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds, falling from infinity, and how many of each kind are accepted."""
    scores, same = np.asarray(similarities), np.asarray(is_same)
    _checks.check_shape("similarities", scores, (scores.size,), "one value for a pair")
    _checks.check_mask("is_same", same, scores.shape)
    unusable = int(np.count_nonzero(~np.isfinite(scores)))
    if unusable:
        raise ValueError(
            f"Expected finite similarities, got {unusable} NaN or infinite of "
            f"{scores.size}; check the embeddings for NaN."
        )
    values = np.unique(scores)
    counts = []
    for kind in (np.sort(scores[same]), np.sort(scores[~same])):
        below = np.searchsorted(kind, values, side="left")
        counts.append(np.concatenate([[0], (len(kind) - below)[::-1]]))
    thresholds = np.concatenate([[np.inf], values[::-1].astype(np.float64)])
    return thresholds, counts[0], counts[1]


def make_roc(
    thresholds: np.ndarray, genuine: np.ndarray, impostors: np.ndarray, width: float
) -> Roc:
    """The curve from the numbers of pairs accepted at falling thresholds."""
    if not (genuine[-1] and impostors[-1]):
        raise ValueError(
            f"Expected genuine and impostor pairs, got {genuine[-1]} and "
            f"{impostors[-1]}; a class with two items and a second class are needed."
        )
    return Roc(
        thresholds=thresholds,
        far=impostors / impostors[-1],
        tar=genuine / genuine[-1],
        genuine=int(genuine[-1]),
        impostors=int(impostors[-1]),
        resolution=float(width),
    )


def roc(similarities: ArrayLike, is_same: ArrayLike) -> Roc:
    """The exact curve of given pairs, by sorting; on the host.

    Args:
        similarities: `[pairs]`, larger is closer.
        is_same: bool `[pairs]`, True for genuine pairs.

    Returns:
        A `Roc` with one point for each distinct similarity, and one at infinity.

    Raises:
        ValueError: if shapes disagree, a similarity is not finite, or genuine or
            impostor pairs are missing.

    Example:
        >>> curve = roc([0.9, 0.4, 0.6, 0.4], [True, True, False, False])
        >>> curve.far.tolist(), curve.tar.tolist()
        ([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0])

    References:
        Fawcett, Pattern Recognition Letters 2006, algorithm 1.
    """
    return make_roc(*accepted(similarities, is_same), width=0.0)


def auc(curve: Roc) -> float:
    """Area under the curve: the chance that a genuine pair beats an impostor pair.

    `P(s_genuine > s_impostor) + P(s_genuine = s_impostor) / 2`, by the trapezoid rule,
    exact for an exact curve.

    Args:
        curve: from `roc` or `roc_of_embeddings`.

    Returns:
        The area, in [0, 1]; 0.5 is chance.

    Example:
        >>> auc(roc([0.9, 0.4, 0.6, 0.4], [True, True, False, False]))
        0.625
    """
    return float(np.trapezoid(curve.tar, curve.far))


def eer(curve: Roc) -> Eer:
    """Equal error rate: where the false accept and false reject rates are equal.

    They seldom are at a threshold: the point where the straight line between the two
    nearest points of the curve has `FAR = FRR` is taken.

    Args:
        curve: from `roc` or `roc_of_embeddings`.

    Returns:
        The rate, and the threshold interpolated in the same way.

    Example:
        >>> eer(roc([0.9, 0.4, 0.6, 0.1], [True, True, False, False]))
        Eer(rate=0.5, threshold=0.6)
    """
    gap = (1 - curve.tar) - curve.far  # falls from 1 to -1
    after = int(np.argmax(gap <= 0))
    before = after - 1
    part = gap[before] / (gap[before] - gap[after])
    rate = curve.far[before] + part * (curve.far[after] - curve.far[before])
    high, low = curve.thresholds[before], curve.thresholds[after]
    threshold = low if np.isinf(high) else high + part * (low - high)
    return Eer(float(rate), float(threshold))


def det(curve: Roc) -> Det:
    """Points of the detection error trade-off curve.

    Args:
        curve: from `roc` or `roc_of_embeddings`.

    Returns:
        The points at which neither error rate is 0 (where normal deviates end), with
        the deviates that are its customary axes.

    Example:
        >>> curve = roc([0.9, 0.4, 0.6, 0.1], [True, True, False, False])
        >>> det(curve).far.tolist(), det(curve).frr_deviate.tolist()
        ([0.5], [0.0])

    References:
        Martin et al., "The DET Curve in Assessment of Detection Task Performance",
        Eurospeech 1997.
    """
    frr = 1 - curve.tar
    shown = (curve.far > 0) & (curve.far < 1) & (frr > 0) & (frr < 1)
    far, frr = curve.far[shown], frr[shown]
    deviate = np.vectorize(NormalDist().inv_cdf, otypes=[np.float64])
    return Det(curve.thresholds[shown], far, frr, deviate(far), deviate(frr))


def tar_at_far(curve: Roc, *, fars: Sequence[float]) -> TarAtFar:
    """True accept rate at given false accept rates.

    At the smallest threshold whose FAR is at most the one asked. A rate below one
    impostor pair, `FAR < 1 / impostors`, was not measured, whatever the threshold: such
    entries are NaN and not `supported`, and `needed` says how many pairs they need. Ten
    times as many give a figure that repeats.

    Args:
        curve: from `roc` or `roc_of_embeddings`.
        fars: false accept rates, each in (0, 1].

    Returns:
        A `TarAtFar` with one entry for each rate.

    Raises:
        ValueError: if a rate is not in (0, 1].

    Example:
        >>> curve = roc([0.9, 0.4, 0.6, 0.1], [True, True, False, False])
        >>> result = tar_at_far(curve, fars=(0.5, 0.1))
        >>> result.tar.tolist(), result.needed.tolist()
        ([1.0, nan], [2, 10])
    """
    asked = np.asarray(fars, np.float64)
    if not ((asked > 0) & (asked <= 1)).all():
        raise ValueError(
            f"Expected `fars` in (0, 1], got {list(fars)}; 0.001 is one in a thousand."
        )
    # A hair is added so that 0.001 of 1000 pairs is one pair in spite of rounding.
    allowed = np.floor(asked * curve.impostors * (1 + 1e-12))
    wrong = np.rint(curve.far * curve.impostors)
    last = np.searchsorted(wrong, allowed, side="right") - 1
    supported = allowed >= 1
    return TarAtFar(
        fars=asked,
        tar=np.where(supported, curve.tar[last], np.nan),
        thresholds=np.where(supported, curve.thresholds[last], np.nan),
        observed_far=np.where(supported, curve.far[last], np.nan),
        supported=supported,
        needed=np.ceil(1 / asked * (1 - 1e-12)).astype(np.int64),
    )


def _pairs_at(curve: Roc) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Similarities, and the genuine and impostor pairs that have each of them."""
    genuine = np.rint(np.diff(curve.tar) * curve.genuine)
    impostors = np.rint(np.diff(curve.far) * curve.impostors)
    # A bin's threshold is its lower edge; its pairs lie half a bin above on average.
    return curve.thresholds[1:] + curve.resolution / 2, genuine, impostors


def d_prime(curve: Roc) -> float:
    """How far apart genuine and impostor similarities lie, in standard deviations.

    `(mean_genuine - mean_impostor) / sqrt((var_genuine + var_impostor) / 2)`.

    Args:
        curve: from `roc` or `roc_of_embeddings`.

    Returns:
        d'; 0 if all similarities are equal, infinite if only the means differ.

    Example:
        >>> d_prime(roc([0.75, 0.5, 0.25, 0.0], [True, True, False, False]))
        4.0
    """
    scores, *weights = _pairs_at(curve)
    means = [np.average(scores, weights=w) for w in weights]
    variances = [
        np.average((scores - mean) ** 2, weights=w)
        for mean, w in zip(means, weights, strict=True)
    ]
    difference, spread = means[0] - means[1], np.sqrt(sum(variances) / 2)
    rounding = 1e-12 * np.abs(scores).max()
    if spread <= rounding:
        same = abs(difference) <= rounding
        return 0.0 if same else float(np.copysign(np.inf, difference))
    return float(difference / spread)


def histogram(curve: Roc, *, bins: int = 100) -> Histogram:
    """Numbers of genuine and impostor pairs by similarity, for a picture.

    Args:
        curve: from `roc` or `roc_of_embeddings`.
        bins: the number of equal bins from the lowest to the highest similarity.

    Returns:
        A `Histogram`; the pairs of each kind add up to `curve.genuine` and
        `curve.impostors`.

    Raises:
        ValueError: if `bins` is not positive.

    Example:
        >>> curve = roc([0.9, 0.4, 0.6, 0.1], [True, True, False, False])
        >>> histogram(curve, bins=2).genuine.tolist()
        [1, 1]
    """
    _checks.check_positive_int("bins", bins, "there is at least one bin")
    scores, genuine, impostors = _pairs_at(curve)
    counts, edges = np.histogram(scores, bins, weights=genuine)
    others, _ = np.histogram(scores, edges, weights=impostors)
    return Histogram(edges, counts.astype(np.int64), others.astype(np.int64))
