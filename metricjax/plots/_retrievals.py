"""Queries and what was found for them."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metricjax import _checks
from metricjax.plots import _figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# As many letters fit above an image; two lines at most.
_CAPTION = 15


def retrievals(
    images: ArrayLike,
    neighbours: ArrayLike,
    labels: ArrayLike,
    *,
    queries: ArrayLike | None = None,
    names: Sequence[str] | None = None,
    title: str | None = None,
) -> "Figure":
    """Queries with their nearest neighbours, right and wrong ones marked.

    Right neighbours have a green solid frame and a tick, wrong ones a vermillion
    dashed frame, a cross and the name of their class.

    Args:
        images: `[n, height, width, channels]` uint8, with 1 or 3 channels.
        neighbours: `[rows, k]` int, for each query the indices of its neighbours in
            `images`, nearest first.
        labels: `[n]` int.
        queries: `[rows]` int, the indices of the queries; 0, 1, 2, ... if None.
        names: the name of each class, indexed by label; the numbers if None.
        title: a line above the count of right neighbours.

    Returns:
        The figure.

    Raises:
        ValueError: if shapes disagree or an index is out of range.
        TypeError: if a dtype is wrong.
        ImportError: if matplotlib is missing.

    Example:
        >>> images = np.zeros((4, 8, 8, 1), np.uint8)
        >>> figure = retrievals(images, [[1, 2]], [0, 0, 1, 1])
        >>> figure.get_suptitle()
        "1 of 2 neighbours are of their query's class"
    """
    images, labels = np.asarray(images), np.asarray(labels)
    _checks.check_labels("labels", labels, len(images))
    neighbours = _indices("neighbours", neighbours, len(images), axes=2)
    queries = _indices(
        "queries",
        np.arange(len(neighbours)) if queries is None else queries,
        len(images),
        axes=1,
    )
    _checks.check_shape("queries", queries, neighbours.shape[:1], "one for each row")
    right = labels[neighbours] == labels[queries][:, None]
    rows, count = neighbours.shape

    def caption(index: int) -> str:
        return _figure.class_name(names, int(labels[index]))

    figure = _figure.new_figure(1.05 * (count + 1.4), 1.3 * rows + 0.7)
    grid = figure.subplots(
        rows, count + 2, squeeze=False, width_ratios=[1.0, 0.15, *[1.0] * count]
    )
    for row, query in enumerate(queries.tolist()):
        _draw_image(grid[row, 0], images[query], caption(query))
        grid[row, 1].set_axis_off()
        for axes, index in zip(grid[row, 2:], neighbours[row].tolist(), strict=True):
            hit = bool(labels[index] == labels[query])
            _draw_image(axes, images[index], "" if hit else caption(index))
            _frame(axes, hit)
    numbers = f"{right.sum()} of {right.size} neighbours are of their query's class"
    figure.suptitle(f"{title}\n{numbers}" if title else numbers, fontsize=12)
    return figure


def _indices(
    name: str, indices: ArrayLike, size: int, *, axes: int
) -> NDArray[np.integer]:
    indices = np.asarray(indices)
    if indices.ndim != axes or 0 in indices.shape:
        raise ValueError(
            f"Expected `{name}` with {axes} axes, none of them empty, got shape "
            f"{list(indices.shape)}."
        )
    if not np.issubdtype(indices.dtype, np.integer):
        raise TypeError(f"Expected `{name}` of integers, got {indices.dtype}.")
    if indices.min() < 0 or indices.max() >= size:
        raise ValueError(
            f"Expected `{name}` in [0, {size}), the images given, got values from "
            f"{indices.min()} to {indices.max()}."
        )
    return indices


def _draw_image(axes: "Axes", image: NDArray[np.uint8], caption: str) -> None:
    grey = image.shape[-1] == 1
    pixels = image[..., 0] if grey else image
    axes.imshow(pixels, cmap="gray" if grey else None, vmin=0, vmax=255)
    axes.set_xticks([])
    axes.set_yticks([])
    lines = textwrap.wrap(caption.replace("/", "/ "), _CAPTION)
    if len(lines) > 2:
        lines = [lines[0], f"\N{HORIZONTAL ELLIPSIS}{caption[1 - _CAPTION :]}"]
    axes.set_title("\n".join(lines), fontsize=8.5, pad=3)


def _frame(axes: "Axes", hit: bool) -> None:
    colour = _figure.GREEN if hit else _figure.VERMILLION
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=3.0, capstyle="butt")
        spine.set_linestyle("-" if hit else (0, (2, 1)))
    axes.text(
        *(0.96, 0.05),
        "\N{CHECK MARK}" if hit else "\N{BALLOT X}",
        transform=axes.transAxes,
        ha="right",
        fontsize=10,
        color="white",
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.2},
    )
