"""Distances of pairs, and what a threshold on them does."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metricjax.metrics import verification
from metricjax.plots import _figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DASHES = ("-", "--", "-.", ":")
_BINS = 60


class RocCurve(NamedTuple):
    """One curve of `roc`; anything with these attributes serves.

    Attributes:
        far: `[points]`, false accept rate, ascending.
        tar: `[points]`, true accept rate.
        auc: area under the curve.
        eer: equal error rate.
    """

    far: ArrayLike
    tar: ArrayLike
    auc: float
    eer: float


def distance_histograms(
    positive: ArrayLike,
    negative: ArrayLike,
    *,
    threshold: float | None = None,
    title: str | None = None,
) -> "Figure":
    """How far apart pairs of the same class and of different classes are.

    The title gives d' and the equal error rate, as in `metrics.verification`, and the
    share of area that the histograms have in common.

    Args:
        positive: `[p]` distances of pairs of one class; smaller is closer.
        negative: `[n]` distances of pairs of two classes.
        threshold: the distance up to which a pair is accepted, drawn as a line.
        title: a line above the numbers.

    Returns:
        The figure.

    Raises:
        ValueError: if a set is empty or not finite.
        ImportError: if matplotlib is missing.

    Example:
        >>> figure = distance_histograms([0.1, 0.2, 0.3], [0.7, 0.8, 0.9])
        >>> figure.axes[0].get_title()
        "d' = 7.35, overlap 0.0 %, EER 0.0 %"
    """
    positive, negative = _sample("positive", positive), _sample("negative", negative)
    figure = _figure.new_figure(7.0, 4.6)
    axes = figure.subplots()
    both = np.concatenate([positive, negative])
    curve = verification.roc(-both, np.arange(len(both)) < len(positive))
    edges = _edges(both)
    shares = []
    for distances, name, colour, dash in (
        (positive, "same class", _figure.BLUE, "-"),
        (negative, "different classes", _figure.VERMILLION, "--"),
    ):
        share = np.histogram(distances, edges)[0] / len(distances)
        shares.append(share)
        label = f"{name} ({len(distances):,} pairs, mean {distances.mean():.2f})"
        axes.stairs(share, edges, fill=True, color=colour, alpha=0.3)
        axes.stairs(share, edges, color=colour, lw=1.8, ls=dash, label=label)
    if threshold is not None:
        _draw_threshold(axes, threshold, positive, negative)
    numbers = (
        f"d' = {verification.d_prime(curve):.2f}, "
        f"overlap {100 * np.minimum(*shares).sum():.1f} %, "
        f"EER {100 * verification.eer(curve).rate:.1f} %"
    )
    axes.set_title(f"{title}\n{numbers}" if title else numbers, fontsize=12)
    _figure.tidy(axes, "distance", "share of pairs in a bin")
    axes.set_ylim(bottom=0.0)
    axes.set_xlim(edges[0], edges[-1])
    figure.legend(loc="outside lower center", fontsize=10, frameon=False)
    return figure


def roc(
    curves: Mapping[str, RocCurve],
    *,
    log_x: bool = True,
    title: str | None = None,
) -> "Figure":
    """ROC curves of verification, with AUC and EER in the legend.

    Args:
        curves: what to call each curve, and the curve.
        log_x: a logarithmic axis of false accepts, where verification is decided.
        title: above the picture.

    Returns:
        The figure.

    Raises:
        ValueError: if there is no curve, or one has rates of different lengths.
        ImportError: if matplotlib is missing.

    Example:
        >>> curve = RocCurve([0.0, 0.1, 1.0], [0.5, 0.9, 1.0], auc=0.93, eer=0.1)
        >>> figure = roc({"trained": curve})
        >>> figure.legends[0].get_texts()[0].get_text()
        'trained: AUC 0.930, EER 10.0 %'
    """
    if not curves:
        raise ValueError("Expected at least one curve, got none.")
    figure = _figure.new_figure(6.4, 6.0)
    axes = figure.subplots()
    lowest = 0.1
    for i, (name, curve) in enumerate(curves.items()):
        far, tar = _rates(name, curve)
        lowest = min(lowest, far[far > 0].min(initial=1.0))
        colour = _figure.COLOURS[i % len(_figure.COLOURS)]
        label = f"{name}: AUC {curve.auc:.3f}, EER {100 * curve.eer:.1f} %"
        dash = _DASHES[i % len(_DASHES)]
        axes.plot(far, tar, color=colour, ls=dash, lw=2.0, label=label)
        axes.plot([curve.eer], [1 - curve.eer], "o", color=colour, mfc="white", ms=7)
    axes.plot([], [], "o", color="0.3", mfc="white", ms=7, label="equal error rate")
    low = lowest if log_x else 0.0
    chance = np.geomspace(low, 1.0, 200) if log_x else np.array([0.0, 1.0])
    axes.plot(chance, chance, color="0.5", ls=":", lw=1.5, label="chance")
    if log_x:
        axes.set_xscale("log")
    axes.set_xlim(low, 1.0)
    axes.set_ylim(0.0, 1.01)
    _figure.tidy(axes, "false accept rate", "true accept rate")
    axes.grid(color="0.9", lw=0.8)
    figure.legend(loc="outside lower center", fontsize=10, frameon=False)
    if title:
        axes.set_title(title, fontsize=12)
    return figure


def _sample(name: str, distances: ArrayLike) -> NDArray[np.float64]:
    distances = np.asarray(distances).astype(np.float64).reshape(-1)
    if distances.size == 0 or not np.isfinite(distances).all():
        raise ValueError(
            f"Expected finite distances in `{name}`, at least one, got "
            f"{distances.size} of which {np.isfinite(distances).sum()} are finite."
        )
    return distances


def _edges(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bins from the smallest distance, or from zero if that is near, to the largest."""
    low, high = distances.min(), distances.max()
    if 0.0 <= low < 0.2 * high:
        low = 0.0
    return np.linspace(low, high if high > low else low + 1.0, _BINS + 1)


def _draw_threshold(
    axes: "Axes",
    threshold: float,
    positive: NDArray[np.float64],
    negative: NDArray[np.float64],
) -> None:
    accepted = [100 * (d <= threshold).mean() for d in (positive, negative)]
    label = (
        f"threshold {threshold:.3g}: accepts {accepted[0]:.1f} % of same, "
        f"{accepted[1]:.1f} % of different"
    )
    axes.axvline(threshold, color="black", ls=":", lw=1.8, label=label)


def _rates(
    name: str, curve: RocCurve
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    far, tar = (np.asarray(rate, np.float64) for rate in (curve.far, curve.tar))
    if far.ndim != 1 or far.shape != tar.shape or far.size < 2:
        raise ValueError(
            f"Expected `far` and `tar` of one length, two points or more, in the curve "
            f"{name!r}, got shapes {list(far.shape)} and {list(tar.shape)}."
        )
    # Millions of points are thinned to what a screen can show.
    low = far[far > 0].min(initial=1.0)
    shown = np.concatenate([np.geomspace(low, 1.0, 1500), np.linspace(0.0, 1.0, 500)])
    last = (np.searchsorted(far, shown, side="right") - 1).clip(0)
    # Both ends of each rise, so that stairs stay stairs.
    first = np.searchsorted(far, far[last], side="left")
    kept = np.unique([0, *first, *last, far.size - 1])
    return far[kept], tar[kept]
