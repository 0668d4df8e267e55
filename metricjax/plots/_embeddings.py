"""Embeddings as points in the plane."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metricjax import _checks
from metricjax.plots import _figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Seven shapes and eight colours, so that 56 classes in a row look different.
_MARKERS = "os^DvPX"
_LEGEND_CLASSES = 24


class Basis(NamedTuple):
    """A projection to the plane, made by `principal_axes`.

    Attributes:
        mean: `[dim]`, the point that becomes the origin.
        axes: `[2, dim]`, orthonormal.
    """

    mean: NDArray[np.float64]
    axes: NDArray[np.float64]


def principal_axes(embeddings: ArrayLike) -> Basis:
    """The two directions in which embeddings vary most.

    Args:
        embeddings: `[n, dim]` float, with at least two rows and columns.

    Returns:
        The basis, to draw several sets of embeddings alike.

    Raises:
        ValueError: if the shape is wrong or a value is not finite.
        TypeError: if the dtype is not floating.
        ImportError: if scikit-learn is missing.

    Example:
        >>> basis = principal_axes(np.array([[0.0, 0.0, 5.0], [0.0, 3.0, -5.0]]))
        >>> basis.mean.tolist()
        [0.0, 1.5, 0.0]
    """
    points = _points(embeddings)
    try:
        from sklearn.decomposition import PCA
    except ImportError as error:
        raise ImportError(_figure.missing("scikit-learn")) from error
    # Raw pixels have too many columns for an exact solver; the seed makes the other
    # reproducible. Embeddings that are all alike have no variance to divide by.
    with np.errstate(invalid="ignore"):
        fitted = PCA(n_components=2, random_state=0).fit(points)
    return Basis(np.asarray(fitted.mean_), np.asarray(fitted.components_))


def scatter(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    names: Sequence[str] | None = None,
    seen: ArrayLike | None = None,
    basis: Basis | None = None,
    title: str | None = None,
    limit: int = 2000,
) -> "Figure":
    """Embeddings as points in the plane, a colour and a shape for each class.

    Args:
        embeddings: `[n, dim]` float. Two dimensions are drawn as they are, more of
            them on their two principal axes.
        labels: `[n]` int.
        names: the name of each class, indexed by label; the numbers if None.
        seen: `[n]` bool, False for examples of classes that training never saw:
            these are drawn hollow.
        basis: axes to draw on, in place of the set's own principal axes.
        title: above the picture.
        limit: with more examples, every so many-th is drawn, about this number.

    Returns:
        The figure.

    Raises:
        ValueError: if shapes disagree or an embedding is not finite.
        TypeError: if a dtype is wrong.
        ImportError: if matplotlib or scikit-learn is missing.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(20, 5))
        >>> figure = scatter(x, np.arange(20) % 2, names=["cat", "dog"])
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['cat', 'dog']
    """
    figure = _figure.new_figure(7.0, 5.6)
    axes = figure.subplots()
    options = {"names": names, "seen": seen, "limit": limit}
    _draw_points(axes, embeddings, labels, basis=basis, **options)
    _class_legend(figure, labels, names, seen)
    if title:
        axes.set_title(title, fontsize=12)
    return figure


def before_after(
    before: ArrayLike,
    after: ArrayLike,
    labels: ArrayLike,
    *,
    names: Sequence[str] | None = None,
    seen: ArrayLike | None = None,
    shared_basis: bool = False,
    titles: tuple[str, str] = ("Before training", "After training"),
    limit: int = 2000,
) -> "Figure":
    """The same examples before and after training, side by side.

    Args:
        before: `[n, dim]` float, what the untrained encoder makes of the examples, or
            their raw pixels.
        after: `[n, dim]` float, what the trained encoder makes of them.
        labels: `[n]` int.
        names: the name of each class, indexed by label; the numbers if None.
        seen: `[n]` bool, False for examples of classes that training never saw.
        shared_basis: draw both on the principal axes of all points together, in place
            of each on its own; the dimensions must then agree.
        titles: above the two pictures; put the measured numbers here.
        limit: with more examples, every so many-th is drawn, about this number.

    Returns:
        The figure.

    Raises:
        ValueError: if shapes disagree or an embedding is not finite.
        TypeError: if a dtype is wrong.
        ImportError: if matplotlib or scikit-learn is missing.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(20, 5))
        >>> figure = before_after(x, x[:, :2], np.arange(20) % 2)
        >>> [axes.get_title() for axes in figure.axes]
        ['Before training', 'After training']
    """
    basis = None
    if shared_basis:
        both = _points(before), _points(after)
        _checks.check_same_dim("before", both[0], "after", both[1])
        basis = principal_axes(np.concatenate(both))
    options = {"names": names, "seen": seen, "limit": limit}
    figure = _figure.new_figure(12.0, 5.6)
    pair = figure.subplots(1, 2, sharex=shared_basis, sharey=shared_basis)
    panels = zip(pair, (before, after), titles, strict=True)
    for axes, embeddings, title in panels:
        _draw_points(axes, embeddings, labels, basis=basis, **options)
        axes.set_title(title, fontsize=12)
        if shared_basis:
            # Shared limits cannot be stretched, so the boxes are.
            axes.set_aspect("equal", adjustable="box")
    _class_legend(figure, labels, names, seen)
    return figure


def _points(embeddings: ArrayLike) -> NDArray[np.float64]:
    embeddings = np.asarray(embeddings)
    _checks.check_embeddings("embeddings", embeddings)
    if min(embeddings.shape) < 2:
        raise ValueError(
            "Expected `embeddings` of at least two rows and two dimensions, got shape "
            f"{list(embeddings.shape)}."
        )
    points = embeddings.astype(np.float64)
    if not np.isfinite(points).all():
        rows = (~np.isfinite(points)).any(axis=1).sum()
        raise ValueError(f"Expected finite `embeddings`, got {rows} rows that are not.")
    return points


def _draw_points(
    axes: "Axes",
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    names: Sequence[str] | None,
    seen: ArrayLike | None,
    basis: Basis | None,
    limit: int,
) -> None:
    points, labels = _points(embeddings), np.asarray(labels)
    _checks.check_labels("labels", labels, len(points))
    _checks.check_positive_int("limit", limit, "give the number of points to draw")
    seen = _seen(seen, labels)
    plane, word = points, "dimension"
    if points.shape[1] > 2 or basis is not None:
        word = "principal axis" if basis is None else "common axis"
        basis = basis or principal_axes(points)
        plane = (points - basis.mean) @ basis.axes.T
    share = plane.var(axis=0) / max(points.var(axis=0).sum(), np.finfo(float).tiny)
    _figure.tidy(
        axes, *(f"{word} {i + 1} ({100 * share[i]:.0f} % of variance)" for i in (0, 1))
    )
    step = -(-len(points) // limit)
    order = np.arange(0, len(points), step)
    # A few rounds over the classes, so that no class hides those drawn before it.
    for part in np.array_split(np.random.default_rng(0).permutation(order), 8):
        _draw_classes(axes, plane[part], labels[part], seen[part], np.unique(labels))
    axes.set_aspect("equal", adjustable="datalim")
    _write_names(axes, plane, labels, names)


def _write_names(
    axes: "Axes",
    plane: NDArray[np.float64],
    labels: NDArray[np.integer],
    names: Sequence[str] | None,
) -> None:
    """The name of each class at its middle, unless they are too many to read."""
    from matplotlib.patheffects import withStroke

    classes = np.unique(labels)
    if len(classes) > _LEGEND_CLASSES:
        return
    for i, label in enumerate(classes):
        x, y = np.median(plane[labels == label], axis=0)
        axes.text(
            *(x, y),
            _figure.class_name(names, int(label)),
            color=_style(i)[0],
            path_effects=[withStroke(linewidth=4, foreground="white")],
            fontsize=12,
            zorder=3,
            fontweight="bold",
            ha="center",
            va="center",
        )


def _draw_classes(
    axes: "Axes",
    plane: NDArray[np.float64],
    labels: NDArray[np.integer],
    seen: NDArray[np.bool_],
    classes: NDArray[np.integer],
) -> None:
    for i, label in enumerate(classes):
        for filled in (True, False):
            chosen = (labels == label) & (seen == filled)
            if chosen.any():
                colour, marker = _style(i)
                axes.scatter(
                    *plane[chosen].T,
                    s=20.0,
                    marker=marker,
                    facecolors=colour if filled else "none",
                    edgecolors="white" if filled else colour,
                    linewidths=0.3 if filled else 1.0,
                    alpha=0.8,
                )


def _class_legend(
    figure: "Figure",
    labels: ArrayLike,
    names: Sequence[str] | None,
    seen: ArrayLike | None,
) -> None:
    """A legend of the classes, or the number of them if they are many."""
    from matplotlib.lines import Line2D

    labels = np.asarray(labels)
    mask, classes = _seen(seen, labels), np.unique(labels)
    unseen = np.array([not mask[labels == label].any() for label in classes])
    if len(classes) <= _LEGEND_CLASSES:
        entries = [
            (*_style(i), hollow, _figure.class_name(names, int(label)))
            for i, (label, hollow) in enumerate(zip(classes, unseen, strict=True))
        ]
    else:
        entries = [("0.3", "o", False, f"{(~unseen).sum()} classes")]
        if unseen.any():
            entries.append(("0.3", "o", True, f"{unseen.sum()} classes"))
    handles = [_entry(Line2D, *entry) for entry in entries]
    place = "outside right center"
    figure.legend(handles=handles, loc=place, fontsize=10, frameon=False)


def _entry(line, colour: str, marker: str, hollow: bool, name: str):
    return line(
        *([], []),
        ls="",
        marker=marker,
        ms=7,
        mec=colour,
        mfc="none" if hollow else colour,
        label=f"{name} (unseen)" if hollow else name,
    )


def _style(i: int) -> tuple[str, str]:
    return _figure.COLOURS[i % len(_figure.COLOURS)], _MARKERS[i % len(_MARKERS)]


def _seen(seen: ArrayLike | None, labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    if seen is None:
        return np.ones(labels.shape, bool)
    seen = np.asarray(seen)
    _checks.check_mask("seen", seen, labels.shape)
    return seen
