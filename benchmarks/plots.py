"""How time and memory grow with the size, drawn from a record of `growth`."""

import pathlib
from collections import defaultdict
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

# Okabe and Ito's colours, which the colour-blind can tell apart; and a marker each.
STYLES = {
    "jax": ("metricjax", "#0072B2", "o"),
    "pml": ("pytorch-metric-learning", "#D55E00", "s"),
    "torch": ("torch, by hand", "#009E73", "^"),
    "optax": ("optax", "#CC79A7", "D"),
    "faiss": ("faiss", "#E69F00", "v"),
}
TITLES = {
    "distances": "pairwise distances",
    "triplet_all": "triplets, all",
    "triplet_hard": "triplets, hardest",
    "supcon": "SupCon",
    "ntxent": "NT-Xent",
    "arcface_step": "ArcFace and SGD",
    "nearest_neighbors": "10 nearest neighbours",
    "retrieval_metrics": "retrieval metrics",
}
UNITS = {
    "batch": "examples in the batch",
    "classes": "classes",
    "gallery": "items in the gallery",
}
# Below this a process grows by what its allocator happens to do.
LEAST_MIB = 1.0

Points = dict[str, list[tuple[int, dict[str, float]]]]


def draw(record: dict[str, Any], path: pathlib.Path) -> None:
    """Draw a record of growth: for each work its time, and below it its memory.

    Args:
        record: as `python -m benchmarks growth` writes it.
        path: of the picture.
    """
    works = _works(record)
    with mpl.rc_context({"font.size": 9, "axes.titlesize": 10}):
        columns = -(-len(works) // 2)
        figure = Figure(figsize=(2.9 * columns, 9.4), layout="constrained")
        halves: Any = figure.subfigures(2, 1, hspace=0.03)
        names = list(works)
        for half, row in zip(halves, (names[:columns], names[columns:]), strict=True):
            axes = half.subplots(2, columns, sharex="col", squeeze=False)
            for i in range(columns):
                if i < len(row):
                    _column(axes[:, i], row[i], works[row[i]], record, first=i == 0)
                else:
                    for axis in axes[:, i]:
                        axis.set_axis_off()
        used = {name for points in works.values() for name in points}
        shown = [name for name in STYLES if name in used]
        handles = [_handle(name) for name in shown]
        figure.legend(
            handles=handles, loc="outside lower center", ncols=len(shown), frameon=False
        )
        figure.suptitle(_title(record["machine"]), fontsize=10)
        figure.savefig(path, dpi=130)


def _works(record: dict[str, Any]) -> dict[str, Points]:
    """Name of the work -> contestant -> its points, by size."""
    works: dict[str, Points] = defaultdict(lambda: defaultdict(list))
    for key, result in record["cases"].items():
        name, size = key.rsplit("/", 1)
        for contestant, figures in result.items():
            if figures:
                works[name][contestant].append((int(size), figures))
    return works


def _column(
    axes: Any, name: str, points: Points, record: dict[str, Any], *, first: bool
) -> None:
    time, memory = axes
    for contestant, found in points.items():
        sizes = [size for size, _ in found]
        _line(time, contestant, sizes, [f["median_ms"] for _, f in found])
        grown = [max(f["growth_mib"], LEAST_MIB) for _, f in found]
        _line(memory, contestant, sizes, grown)
    bounds = [
        (size, bound)
        for size, _ in points["jax"]
        if (bound := record["bounds"][f"{name}/{size}"])
    ]
    time.plot(*zip(*bounds, strict=True), color="0.45", linestyle=":", linewidth=1.2)
    # At the small end, where it is far below all else.
    time.annotate(
        "roofline",
        bounds[0],
        xytext=(14, 0),
        textcoords="offset points",
        va="center",
        color="0.4",
        fontsize=8,
    )
    time.set_title(TITLES.get(name, name.replace("_", " ")))
    memory.set_xlabel(UNITS[record["units"][name]])
    if first:
        time.set_ylabel("time, ms")
        memory.set_ylabel("memory, MiB (at least 1)")
    for axis in (time, memory):
        _dress(axis)
    memory.set_ylim(bottom=LEAST_MIB / 1.5)


def _line(axis: Axes, contestant: str, sizes: list[int], values: list[float]) -> None:
    axis.plot(sizes, values, **_look(contestant))


def _look(contestant: str) -> dict[str, Any]:
    label, colour, marker = STYLES[contestant]
    ours = contestant == "jax"
    return {
        "label": label,
        "color": colour,
        "marker": marker,
        "markersize": 4.5,
        "linewidth": 2.0 if ours else 1.4,
        "zorder": 3 if ours else 2,
    }


def _handle(contestant: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], **_look(contestant))


def _dress(axis: Axes) -> None:
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.grid(True, which="major", color="0.9", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.yaxis.set_major_locator(LogLocator(base=10, numticks=12))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_locator(LogLocator(base=10, numticks=12))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _title(machine: dict[str, Any]) -> str:
    return (
        "Loss and gradient (or search), float32, embeddings of 128, 4 examples a class "
        f"- {machine['device']}, {machine['cores']} cores, {machine['date']}"
    )
