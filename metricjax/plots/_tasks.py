"""What an encoder is trained on and tried on: pairs, triplets and one-shot tasks."""

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metricjax import _checks
from metricjax.plots import _figure, _retrievals

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GAP = 0.35


def nway_task(
    query: ArrayLike,
    support: ArrayLike,
    *,
    truth: int,
    chosen: int,
    scores: ArrayLike | None = None,
    names: Sequence[str] | None = None,
    title: str = "",
) -> "Figure":
    """A one-shot task: a query, N candidates of which one is right, and the answer.

    The right candidate has a green solid frame, a tick and the word "right"; a wrong
    answer has a vermillion dashed frame, a cross and the word "chosen".

    Args:
        query: `[height, width, channels]`, uint8 or a float in 0..1, with 1 or 3
            channels.
        support: `[N, height, width, channels]`, likewise, one image of each class.
        truth: which of them is of the query's class.
        chosen: which of them was chosen.
        scores: `[N]` similarities or distances, written below the images.
        names: of the N classes, written below the images.
        title: a line above that which says what was chosen.

    Returns:
        The figure.

    Raises:
        ValueError: if shapes disagree or an index is out of range.
        TypeError: if a dtype is wrong.
        ImportError: if matplotlib is missing.

    Example:
        >>> images = np.zeros((6, 8, 8, 1), np.uint8)
        >>> figure = nway_task(images[0], images[1:], truth=2, chosen=4)
        >>> figure.get_suptitle()
        '5-way task: chosen wrongly'
    """
    pixels = _pixels("support", support)
    large = _pixels("query", np.asarray(query)[None])
    ways = len(pixels)
    for name, index in (("truth", truth), ("chosen", chosen)):
        if not 0 <= index < ways:
            raise ValueError(
                f"Expected `{name}` in [0, {ways}), the candidates, got {index}."
            )
    values = _scores("scores", scores, ways)
    if names is not None and len(names) != ways:
        raise ValueError(f"Expected {ways} `names`, one each, got {len(names)}.")
    columns = _columns(ways)
    rows = -(-ways // columns)
    side = float(np.clip(rows, 1.6, 2.6))
    lines = 1 + 2 * (names is not None) + (scores is not None)
    height = (1.1 + 0.15 * lines) * max(rows, 1.6) + 0.6
    figure = _figure.new_figure(1.1 * (side + _GAP + columns), height)
    ratios = [side, _GAP, *[1.0] * columns]
    grid = figure.add_gridspec(rows, columns + 2, width_ratios=ratios)
    axes = figure.add_subplot(grid[:, 0])
    _retrievals._draw_image(axes, large[0], "")
    axes.set_title("query", fontsize=11, pad=4)
    for index in range(ways):
        row, column = divmod(index, columns)
        axes = figure.add_subplot(grid[row, column + 2])
        _retrievals._draw_image(axes, pixels[index], "")
        _mark(axes, is_right=index == truth, is_chosen=index == chosen)
        words = [] if names is None else _lines(names[index])
        axes.set_xlabel("\n".join([*words, *values[index]]), fontsize=8.5, labelpad=3)
    said = f"{ways}-way task: chosen {'rightly' if chosen == truth else 'wrongly'}"
    _set_title(figure, title, said)
    return figure


def pairs_sheet(
    first: ArrayLike,
    second: ArrayLike,
    same: ArrayLike,
    *,
    scores: ArrayLike | None = None,
    title: str = "",
    limit: int = 24,
) -> "Figure":
    """Pairs of images as an encoder is given them, and which of them match.

    Pairs of one class have green solid frames and a tick, others vermillion dashed
    frames and a cross.

    Args:
        first: `[n, height, width, channels]`, uint8 or a float in 0..1, with 1 or 3
            channels.
        second: `[n, height, width, channels]`, the other image of each pair.
        same: `[n]` bool, True for pairs of one class.
        scores: `[n]`, written above the pairs.
        title: a line above the count of pairs.
        limit: at most so many are drawn, the first ones.

    Returns:
        The figure.

    Raises:
        ValueError: if shapes disagree or there is no pair.
        TypeError: if a dtype is wrong.
        ImportError: if matplotlib is missing.

    Example:
        >>> images = np.zeros((4, 8, 8, 1), np.uint8)
        >>> figure = pairs_sheet(images, images, np.array([True, False, False, True]))
        >>> figure.get_suptitle()
        '4 pairs, 2 of one class'
    """
    sides = _pixels("first", first), _pixels("second", second)
    count = len(sides[0])
    _checks.check_shape("second", sides[1], sides[0].shape, "one for each of `first`")
    same = np.asarray(same)
    _checks.check_mask("same", same, (count,))
    values = _scores("scores", scores, count)
    figure, places, _ = _sheet(count, 2, limit, height=1.3)
    for index, (left, right) in enumerate(places):
        match = bool(same[index])
        for axes, image in ((left, sides[0][index]), (right, sides[1][index])):
            _retrievals._draw_image(axes, image, "")
            _retrievals._frame(axes, match)
        # One mark for a pair is enough.
        left.texts[0].remove()
        words = ["same" if match else "different", *values[index]]
        left.set_title("  ".join(words), fontsize=9, pad=3, loc="left")
    said = f"{_number(count, 'pair')}, {int(same.sum())} of one class"
    _set_title(figure, title, said, count=count, drawn=len(places))
    return figure


def triplets_sheet(
    anchors: ArrayLike,
    positives: ArrayLike,
    negatives: ArrayLike,
    *,
    title: str = "",
    limit: int = 24,
) -> "Figure":
    """Triplets of images as an encoder is given them.

    Args:
        anchors: `[n, height, width, channels]`, uint8 or a float in 0..1, with 1 or 3
            channels.
        positives: `[n, height, width, channels]`, of the anchors' classes.
        negatives: `[n, height, width, channels]`, of other classes.
        title: a line above the number of triplets.
        limit: at most so many are drawn, the first ones.

    Returns:
        The figure.

    Raises:
        ValueError: if shapes disagree or there is no triplet.
        TypeError: if a dtype is wrong.
        ImportError: if matplotlib is missing.

    Example:
        >>> images = np.zeros((4, 8, 8, 1), np.uint8)
        >>> triplets_sheet(images, images, images, limit=3).get_suptitle()
        '4 triplets, the first 3 drawn'
    """
    parts = [
        _pixels(name, images)
        for name, images in (
            ("anchors", anchors),
            ("positives", positives),
            ("negatives", negatives),
        )
    ]
    for name, part in zip(("positives", "negatives"), parts[1:], strict=True):
        _checks.check_shape(name, part, parts[0].shape, "one for each anchor")
    count = len(parts[0])
    figure, places, across = _sheet(count, 3, limit, height=1.2)
    for index, group in enumerate(places):
        words = ("anchor", "positive", "negative") if index < across else [""] * 3
        for axes, part, word in zip(group, parts, words, strict=True):
            _retrievals._draw_image(axes, part[index], "")
            axes.set_title(word, fontsize=9, pad=3)
        _retrievals._frame(group[1], True)
        _retrievals._frame(group[2], False)
    said = _number(count, "triplet")
    _set_title(figure, title, said, count=count, drawn=len(places))
    return figure


def _sheet(
    count: int, size: int, limit: int, *, height: float
) -> tuple["Figure", list[list["Axes"]], int]:
    """A figure, the places of each group of images in it, and the groups in a row."""
    _checks.check_positive_int("limit", limit, "give the number to draw")
    drawn = min(count, limit)
    across = min(drawn, 8 // size)
    rows = -(-drawn // across)
    ratios = ([*[1.0] * size, _GAP] * across)[:-1]
    figure = _figure.new_figure(max(4.0, 1.05 * sum(ratios)), height * rows + 0.7)
    grid = figure.subplots(rows, len(ratios), squeeze=False, width_ratios=ratios)
    for axes in grid.flat:
        axes.set_axis_off()
    places = []
    for index in range(drawn):
        row, column = divmod(index, across)
        start = column * (size + 1)
        places.append(list(grid[row, start : start + size]))
        for axes in places[-1]:
            axes.set_axis_on()
    return figure, places, across


def _set_title(
    figure: "Figure", title: str, said: str, *, count: int = 0, drawn: int = 0
) -> None:
    if drawn < count:
        said = f"{said}, the first {drawn} drawn"
    figure.suptitle(f"{title}\n{said}" if title else said, fontsize=12)


def _columns(ways: int) -> int:
    """So many that the last row has the fewest empty places, the grid near square."""
    side = math.ceil(math.sqrt(ways))
    return min(range(side, 2 * side), key=lambda columns: -ways % columns)


def _lines(name: str) -> list[str]:
    """A name in two lines at most; of a longer one, its end, which tells more."""
    wide = _retrievals._CAPTION
    lines = textwrap.wrap(name.replace("/", "/ "), wide)
    if len(lines) > 2:
        lines = [lines[0], f"\N{HORIZONTAL ELLIPSIS}{name[1 - wide :]}"]
    return lines


def _number(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _pixels(name: str, images: ArrayLike) -> NDArray[np.uint8]:
    images = np.asarray(images)
    if images.ndim != 4 or 0 in images.shape or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"Expected `{name}` of images [height, width, channels] with 1 or 3 "
            f"channels, got shape {list(images.shape)}."
        )
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise TypeError(
            f"Expected `{name}` in uint8 or a float in 0..1, got {images.dtype}."
        )
    return np.round(255.0 * np.clip(images.astype(np.float32), 0.0, 1.0)).astype(
        np.uint8
    )


def _scores(name: str, scores: ArrayLike | None, count: int) -> list[list[str]]:
    """A word for each image, or none."""
    if scores is None:
        return [[] for _ in range(count)]
    scores = np.asarray(scores)
    _checks.check_shape(name, scores, (count,), "one for each")
    largest = np.abs(scores[np.isfinite(scores)]).max(initial=0.0) or 1.0
    decimals = max(0, 2 - math.floor(math.log10(largest)))
    return [[f"{score:.{decimals}f}"] for score in scores.tolist()]


def _mark(axes: "Axes", *, is_right: bool, is_chosen: bool) -> None:
    words = ["chosen"] * is_chosen + ["right"] * is_right
    axes.set_title(", ".join(words), fontsize=9, pad=3, fontweight="bold")
    if words:
        _retrievals._frame(axes, is_right)
