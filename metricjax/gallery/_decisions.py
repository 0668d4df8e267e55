"""Answers: are these two the same, and who is this?"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from metricjax import _checks
from metricjax.gallery._calibration import Calibration, threshold_at
from metricjax.gallery._probability import log_odds, probability
from metricjax.gallery._search import Search, exact_search
from metricjax.gallery._templates import Gallery, check_dim, unit_rows

# Nearest templates looked at, at first, for the nearest identities.
FIRST = 64


class Verification(NamedTuple):
    """Whether pairs are the same; NumPy, each array `[pairs]`.

    Attributes:
        same: bool, whether the similarity is at least the threshold.
        similarities: cosines.
        probabilities: that the pair is of one identity.
        threshold: what was decided by.
        far: the false accept rate that the threshold was chosen for.
    """

    same: np.ndarray
    similarities: np.ndarray
    probabilities: np.ndarray
    threshold: float
    far: float


class Identification(NamedTuple):
    """Who the queries are; of each the `k` nearest identities, nearest first.

    Attributes:
        known: bool `[queries]`, whether the nearest is at least as similar as the
            threshold; otherwise the answer is "unknown".
        names: `k` for each query; fewer where the search found fewer.
        similarities: `[queries, k]`, to the nearest template of each; minus infinity
            where the search found fewer.
        probabilities: `[queries, k]`, that it is this identity.
        unknown: `[queries]`, the probability that it is none of the gallery.
        threshold: what was decided by.
        far: the false accept rate of one comparison that it was chosen for.
        fpir: an upper bound of the share of strangers that are taken for someone, by
            the sum of the chances of all templates.
    """

    known: np.ndarray
    names: tuple[tuple[str, ...], ...]
    similarities: np.ndarray
    probabilities: np.ndarray
    unknown: np.ndarray
    threshold: float
    far: float
    fpir: float


def verify(
    embeddings: ArrayLike,
    ref_embeddings: ArrayLike,
    calibration: Calibration,
    *,
    far: float | None = None,
    prior: float = 0.5,
) -> Verification:
    """Decide of pairs whether they are of one identity.

    Args:
        embeddings: `[pairs, dim]`, one side, finite and not zero.
        ref_embeddings: `[pairs, dim]`, the other side.
        calibration: from `calibrate`, for the same encoder.
        far: false accept rate to decide by, if not the calibrated one.
        prior: how often a compared pair is of one identity; for the probabilities.

    Returns:
        A `Verification`.

    Raises:
        ValueError: if shapes disagree, a row is zero or not finite, or the calibration
            does not support the rate.
        TypeError: if a dtype is wrong.

    Example:
        >>> from metricjax.gallery import calibrate
        >>> rng = np.random.default_rng(0)
        >>> labels = np.repeat(np.arange(20), 5)
        >>> x = rng.normal(size=(20, 8))[labels] + 0.3 * rng.normal(size=(100, 8))
        >>> found = calibrate(x, labels, far=0.01)
        >>> verify(x[[0, 0]], x[[1, 50]], found).same.tolist()
        [True, False]
    """
    x = unit_rows("embeddings", embeddings)
    y = unit_rows("ref_embeddings", ref_embeddings)
    _checks.check_shape("ref_embeddings", y, x.shape, "one row for each pair")
    far = calibration.far if far is None else far
    threshold = threshold_at(calibration, far)
    similarities = np.einsum("nd,nd->n", x, y)
    return Verification(
        same=similarities >= threshold,
        similarities=similarities,
        probabilities=probability(calibration.log_odds, similarities, prior=prior),
        threshold=threshold,
        far=far,
    )


def identify(
    embeddings: ArrayLike,
    gallery: Gallery,
    calibration: Calibration,
    *,
    k: int = 5,
    fpir: float | None = None,
    prior_unknown: float = 0.5,
    search: Search | None = None,
) -> Identification:
    """Find out who the queries are, or that they are unknown.

    An identity is as similar as its nearest template. The answer is "unknown" where no
    template reaches the threshold. Probabilities are Bayes' rule on the likelihood
    ratios `r_i` of the similarities: `P(i) = p_i r_i / (p_0 + sum_j p_j r_j)`, with
    the prior `p_0` for unknown and the rest shared evenly by the gallery. The sum is
    over the identities that the search looked at, at least those of the 64 nearest
    templates.

    Args:
        embeddings: `[queries, dim]`, finite and not zero.
        gallery: not empty, of the same encoder.
        calibration: from `calibrate`, for the same encoder.
        k: how many identities to name; all if there are fewer.
        fpir: false positive identification rate to decide by: at most this share of
            strangers is taken for someone. By default the threshold is that of the
            calibration, for single comparisons, and among many templates strangers
            pass more often; see `Identification.fpir`.
        prior_unknown: how often a query is none of the gallery, in (0, 1).
        search: what searches `gallery.embeddings`; `exact_search` by default. Make it
            once if you call this often.

    Returns:
        An `Identification`.

    Raises:
        ValueError: if the gallery is empty or of another dimension, a row is zero or
            not finite, or the calibration does not support the rate.
        TypeError: if a dtype is wrong.

    Example:
        >>> from metricjax.gallery import calibrate, enroll
        >>> rng = np.random.default_rng(0)
        >>> labels = np.repeat(np.arange(20), 5)
        >>> x = rng.normal(size=(20, 8))[labels] + 0.3 * rng.normal(size=(100, 8))
        >>> people = enroll(x[:10], ["ann"] * 5 + ["bob"] * 5)
        >>> found = identify(x[[9, 50]], people, calibrate(x, labels, far=0.01), k=1)
        >>> found.names, found.known.tolist()
        ((('bob',), ('ann',)), [True, False])
    """
    _checks.check_positive_int("k", k, "name at least one identity")
    if not 0.0 < prior_unknown < 1.0:
        raise ValueError(
            f"Expected `prior_unknown` between 0 and 1, got {prior_unknown}."
        )
    x, rows = unit_rows("embeddings", embeddings), len(gallery.embeddings)
    if not rows:
        raise ValueError("Expected identities in the gallery, got none; enroll some.")
    check_dim(gallery, x)
    far = calibration.far if fpir is None else fpir / rows
    threshold = threshold_at(calibration, far)
    search = exact_search(gallery.embeddings) if search is None else search
    labels, similarities = _nearest_identities(x, gallery, search, k)
    found = labels >= 0
    ratios = np.where(found, np.exp(log_odds(calibration.log_odds, similarities)), 0.0)
    shares = ratios * (1 - prior_unknown) / len(gallery.names)
    total = prior_unknown + shares.sum(axis=1)
    return Identification(
        known=similarities[:, 0] >= threshold,
        names=tuple(
            tuple(gallery.names[label] for label in row[:k] if label >= 0)
            for row in labels
        ),
        similarities=similarities[:, :k],
        probabilities=(shares / total[:, None])[:, :k],
        unknown=prior_unknown / total,
        threshold=threshold,
        far=far,
        fpir=min(1.0, far * rows),
    )


def _nearest_identities(
    x: np.ndarray, gallery: Gallery, search: Search, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and similarities of the nearest identities, `[n, k or more]`.

    The identities among the m nearest templates, in the order in which they first
    come, are the nearest ones; m grows until there are enough.
    """
    rows, wanted = len(gallery.embeddings), min(k, len(gallery.names))
    m = min(rows, max(FIRST, 2 * k))
    while True:
        found = search(x, m)
        scores, indices = np.asarray(found.similarities), np.asarray(found.indices)
        labels = np.where(indices >= 0, gallery.labels[indices], -1)
        first = _first(labels)
        if m == rows or first.sum(axis=1).min(initial=wanted) >= wanted:
            break
        m = min(rows, 4 * m)
    # First comers to the front, in their order; the others to the end.
    order = np.argsort(~first, axis=1, kind="stable")
    labels = np.where(first, labels, -1)
    scores = np.where(first, scores, -np.inf)
    width = max(wanted, int(first.sum(axis=1).max(initial=0)))
    return (
        np.take_along_axis(labels, order, axis=1)[:, :width],
        np.take_along_axis(scores, order, axis=1)[:, :width],
    )


def _first(labels: np.ndarray) -> np.ndarray:
    """Where a label stands in its row for the first time; -1 never does."""
    order = np.argsort(labels, axis=1, kind="stable")
    by_label = np.take_along_axis(labels, order, axis=1)
    new = np.ones(labels.shape, bool)
    new[:, 1:] = by_label[:, 1:] != by_label[:, :-1]
    first = np.empty_like(new)
    np.put_along_axis(first, order, new, axis=1)
    return first & (labels >= 0)
