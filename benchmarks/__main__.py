"""Command line of the benchmarks.

python -m benchmarks                     every case against every installed peer
python -m benchmarks triplet --peer pml  one area, one peer
python -m benchmarks --quick             a few minutes
python -m benchmarks compare OLD NEW     flag what became slower
python -m benchmarks table [RESULT]      the table of the README
"""

import argparse
import json
import pathlib
import sys
import time

from benchmarks import harness
from benchmarks.cases import AREAS, Case, cases

RESULTS = pathlib.Path(__file__).parent / "results"
OURS = "jax"
# Below this ratio of medians a difference is noise on a shared machine.
ALLOWANCE = 1.25


def main() -> int:
    """Run the command; 1 if `compare` finds a regression."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", help="areas, or compare/table and files")
    parser.add_argument("--peer", action="append", help="only against this peer")
    parser.add_argument("--quick", action="store_true", help="small cases only")
    parser.add_argument("--seconds", type=float, help="spent on each case")
    parser.add_argument("--out", type=pathlib.Path, help="result file")
    arguments = parser.parse_args()
    words = arguments.words
    if words[:1] == ["compare"] and len(words) == 3:
        return compare(*map(_read, words[1:]))
    if words[:1] == ["table"] and len(words) <= 2:
        print(table(_read(words[1] if len(words) == 2 else _latest())))
        return 0
    unknown = set(words) - set(AREAS)
    if unknown:
        parser.error(f"no such area: {sorted(unknown)}; there are {AREAS}")
    seconds = arguments.seconds or (2.0 if arguments.quick else 10.0)
    record = measure(words or AREAS, arguments.peer, arguments.quick, seconds)
    path = arguments.out or RESULTS / f"{time.strftime('%Y-%m-%d-%H%M')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(table(record))
    print(f"written to {path}")
    return 0


def measure(
    areas: list[str], peers: list[str] | None, quick: bool, seconds: float
) -> dict:
    """Run the cases of some areas; the record of all figures."""
    record = {"machine": harness.machine(), "cases": {}}
    for area in areas:
        for index, case in enumerate(cases(area)):
            if quick and not case.quick:
                continue
            case = _against(case, peers)
            result = harness.run(area, index, case, seconds)
            record["cases"][case.key] = result
            print(_line(case.key, result), file=sys.stderr, flush=True)
    return record


def _against(case: Case, peers: list[str] | None) -> Case:
    if peers is None:
        return case
    kept = {n: c for n, c in case.contestants.items() if n in {OURS, *peers}}
    return case._replace(contestants=kept)


def _line(key: str, result: dict) -> str:
    parts = [f"{key:32}"]
    for name, figures in result.items():
        ratio = figures["median_ms"] / result[OURS]["median_ms"]
        parts.append(
            f"{name} {figures['median_ms']:.1f} ms, {figures['growth_mib']:.0f} MiB"
            + ("" if name == OURS else f" ({ratio:.1f}x)")
        )
    return " | ".join(parts)


def table(record: dict) -> str:
    """Markdown: one line for each case and peer."""
    machine = record["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    lines = [
        "| work | size | metricjax | peer | times faster | memory, ours / theirs |",
        "|---|---|---|---|---|---|",
    ]
    for key, result in record["cases"].items():
        name, size = key.rsplit("/", 1)
        ours = result[OURS]
        ours_text = f"{_time(ours)} | "
        peers = {n: r for n, r in result.items() if n != OURS}
        for peer, figures in peers.items():
            ratio = figures["median_ms"] / ours["median_ms"]
            memory = f"{ours['growth_mib']:.0f} / {figures['growth_mib']:.0f} MiB"
            lines.append(
                f"| {name} | {size} | {ours_text}{peer} {_time(figures)} | "
                f"{ratio:.1f}x | {memory} |"
            )
        if not peers:
            memory = f"{ours['growth_mib']:.0f} MiB"
            lines.append(f"| {name} | {size} | {ours_text}- | - | {memory} |")
    lines.append("")
    lines.append(
        f"{machine['device']}, {machine['cores']} cores, {versions}; revision "
        f"{machine['revision']}, {machine['date']}. Medians of interleaved calls, one "
        "process per library."
    )
    return "\n".join(lines)


def _time(figures: dict) -> str:
    ms = figures["median_ms"]
    return f"{ms / 1e3:.2f} s" if ms >= 1e3 else f"{ms:.3g} ms"


def compare(old: dict, new: dict) -> int:
    """Print how our times changed; 1 if one became slower beyond noise."""
    slower = 0
    for key in sorted(old["cases"].keys() & new["cases"].keys()):
        before = old["cases"][key][OURS]["median_ms"]
        after = new["cases"][key][OURS]["median_ms"]
        worse = after > ALLOWANCE * before
        slower += worse
        mark = "  SLOWER" if worse else ""
        print(f"{key:32} {before:9.2f} ms -> {after:9.2f} ms{mark}")
    return 1 if slower else 0


def _read(path: str | pathlib.Path) -> dict:
    return json.loads(pathlib.Path(path).read_text())


def _latest() -> pathlib.Path:
    found = sorted(RESULTS.glob("*.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise SystemExit("No results yet; run `python -m benchmarks` first.")
    return found[-1]


if __name__ == "__main__":
    sys.exit(main())
