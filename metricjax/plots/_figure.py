"""What all pictures share: paper, colours, words, and the way to the disk."""

import os
import pathlib
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, "Color universal design", 2008. The yellow is darkened and comes last:
# as published it is faint on white.
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
COLOURS = (
    *(BLUE, VERMILLION, GREEN, "#CC79A7", "#56B4E9", "#E69F00", "#000000"),
    "#C8B400",
)
_DPI = 150


def save(figure: "Figure", path: str | os.PathLike[str]) -> None:
    """Write a figure to a file at 150 dpi, whole or not at all.

    Args:
        figure: any matplotlib figure.
        path: the file; its ending chooses the format. Missing folders are made.

    Raises:
        ValueError: if matplotlib does not know the format.

    Example:
        >>> folder = pathlib.Path(tempfile.mkdtemp(), "plots")
        >>> save(new_figure(2.0, 2.0), folder / "pairs.png")
        >>> [file.name for file in folder.iterdir()]
        ['pairs.png']
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written beside its place and then moved there: a reader, or a run that is killed,
    # never leaves half a picture.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".plot-") as folder:
        draft = pathlib.Path(folder, path.name)
        figure.savefig(draft, dpi=_DPI)
        draft.replace(path)


def missing(package: str) -> str:
    return (
        f"Expected the package {package}, which draws pictures; install it with: "
        'pip install "metricjax[train]"'
    )


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure, in inches, that pyplot does not know."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(missing("matplotlib")) from error
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def tidy(axes: "Axes", x_label: str, y_label: str) -> None:
    """Name the axes and take the frame off at the top and right."""
    axes.set_xlabel(x_label, fontsize=11)
    axes.set_ylabel(y_label, fontsize=11)
    axes.tick_params(labelsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def class_name(names: Sequence[str] | None, label: int) -> str:
    """The name of a class, or its number where it has none."""
    if names is None or not 0 <= label < len(names):
        return str(label)
    return names[label]
