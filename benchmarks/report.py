"""Records of results as a table, and two of them compared."""

from typing import Any

OURS = "jax"
# Below this ratio a difference is noise on a shared machine.
ALLOWANCE = 1.25

Figures = dict[str, Any]


def line(key: str, result: dict[str, Figures], bound: float) -> str:
    """One case as one line of text."""
    ours, parts = result[OURS], [f"{key:32}"]
    for name, figures in result.items():
        if not figures:
            parts.append(f"{name} did not finish")
            continue
        parts.append(
            f"{name} {figures['median_ms']:.3g} ms, {figures['growth_mib']:.0f} MiB"
            + ("" if name == OURS else f" ({_ratio(figures, ours):.1f}x)")
        )
    return " | ".join([*parts, f"roofline {bound:.3g} ms"])


def table(record: dict[str, Any]) -> str:
    """Markdown: one line for each case and peer."""
    bounds = record.get("bounds", {})
    lines = [
        "| work | size | metricjax | peer | times faster | at most | memory, ours / "
        "theirs |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, result in record["cases"].items():
        lines.extend(_rows(key, result, bounds.get(key, 0.0)))
    return "\n".join([*lines, "", _foot(record["machine"])])


def _rows(key: str, result: dict[str, Figures], bound: float) -> list[str]:
    name, size = key.rsplit("/", 1)
    ours = result[OURS]
    start = f"| {name} | {size} | {_time(ours)} | "
    memory = f"{ours['growth_mib']:.0f}"
    rows = []
    for peer, figures in result.items():
        if peer == OURS:
            continue
        if not figures:
            rows.append(f"{start}{peer} did not finish | - | - | {memory} MiB |")
            continue
        median = figures["median_ms"]
        most = f"{median / bound:.1f}x" if bound else "-"
        rows.append(
            f"{start}{peer} {_time(figures)} | {_ratio(figures, ours):.1f}x | "
            f"{most} | {memory} / {figures['growth_mib']:.0f} MiB |"
        )
    return rows or [f"{start}- | - | - | {memory} MiB |"]


def _foot(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    text = (
        f"{machine['device']}, {machine['cores']} cores, {versions}; revision "
        f"{machine['revision']}, {machine['date']}. Medians of interleaved turns, one "
        "process per library; ratios are medians over turns next to each other, since "
        "a virtual machine may be twice as slow for some seconds."
    )
    rates = machine.get("rates")
    if rates is None:
        return text
    return text + (
        ' "At most" is the time of the peer over the least in which this machine can '
        "do the matrix products of the work, or move its arrays "
        f"({rates['gflops']:.0f} GFLOP/s, {rates['gbytes']:.0f} GB/s)."
    )


def _time(figures: Figures) -> str:
    ms = figures["median_ms"]
    return f"{ms / 1e3:.2f} s" if ms >= 1e3 else f"{ms:.3g} ms"


def _ratio(figures: Figures, ours: Figures) -> float:
    """How many times longer a peer takes, from turns next to each other if recorded."""
    return figures.get("times_ours") or figures["median_ms"] / ours["median_ms"]


def compare(old: dict[str, Any], new: dict[str, Any]) -> int:
    """Print how our times changed; 1 if one became slower beyond noise."""
    slower = 0
    for key in sorted(old["cases"].keys() & new["cases"].keys()):
        before, after = (
            record["cases"][key][OURS]["median_ms"] for record in (old, new)
        )
        worse = after > ALLOWANCE * before
        slower += worse
        mark = "  SLOWER" if worse else ""
        print(f"{key:32} {before:9.2f} ms -> {after:9.2f} ms{mark}")
    return 1 if slower else 0
