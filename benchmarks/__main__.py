"""Command line of the benchmarks.

python -m benchmarks                     every case against every installed peer
python -m benchmarks triplet --peer pml  one area, one peer
python -m benchmarks --quick             at most five minutes
python -m benchmarks growth              how time and memory grow with the size
python -m benchmarks compare OLD NEW     flag what became slower
python -m benchmarks table [RESULT]      the table of the README, and plots of growth
"""

import argparse
import json
import pathlib
import sys
import time
from typing import Any

from benchmarks import harness, report
from benchmarks.cases import AREAS, Case, cases

RESULTS = pathlib.Path(__file__).parent / "results"
GROWTH = "growth"


def main() -> int:
    """Run the command; 1 if a case fails, or if `compare` finds a regression."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", help="areas, or compare/table and files")
    parser.add_argument("--peer", action="append", help="only against this peer")
    parser.add_argument("--quick", action="store_true", help="small cases only")
    parser.add_argument("--seconds", type=float, help="spent on each case")
    parser.add_argument("--largest", type=int, help="leave out larger sizes")
    parser.add_argument("--out", type=pathlib.Path, help="result file")
    arguments = parser.parse_args()
    words = arguments.words
    if words[:1] == ["compare"] and len(words) == 3:
        return report.compare(*map(_read, words[1:]))
    if words[:1] == ["table"] and len(words) <= 2:
        return show(pathlib.Path(words[1]) if len(words) == 2 else _latest())
    unknown = set(words) - {*AREAS, GROWTH}
    if unknown:
        parser.error(f"no such area: {sorted(unknown)}; there are {AREAS}")
    if GROWTH in words and len(words) > 1:
        parser.error("growth is a run of its own, with a record of its own")
    return measure(words or AREAS, arguments)


def measure(areas: list[str], arguments: argparse.Namespace) -> int:
    """Run the cases of some areas; write and print the record of all figures.

    Gives 1 if the libraries of a case disagree; such a case is left out of the record.
    """
    prefix = f"{GROWTH}-" if areas == [GROWTH] else ""
    name = f"{prefix}{time.strftime('%Y-%m-%d-%H%M')}.json"
    path = arguments.out or RESULTS / name
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"machine": harness.machine(), "cases": {}, "bounds": {}, "units": {}}
    failed = 0
    for area in areas:
        for index, case in enumerate(cases(area)):
            if not _chosen(case, arguments):
                continue
            try:
                _add(record, area, index, case, arguments)
            except (AssertionError, harness.Stopped) as error:
                print(f"FAILED: {error}", file=sys.stderr, flush=True)
                failed = 1
            # After each, so that a long run that is cut short is not lost.
            path.write_text(json.dumps(record, indent=1) + "\n")
    print(report.table(record))
    print(f"written to {path}")
    return failed


def _chosen(case: Case, arguments: argparse.Namespace) -> bool:
    if arguments.largest is not None and case.size > arguments.largest:
        return False
    return case.quick or not arguments.quick


def _add(
    record: dict[str, Any],
    area: str,
    index: int,
    case: Case,
    arguments: argparse.Namespace,
) -> None:
    seconds = arguments.seconds or (1.0 if arguments.quick else 10.0)
    result = harness.run(area, index, _against(case, arguments.peer), seconds)
    bound = harness.bound_ms(case, record["machine"]["rates"])
    record["cases"][case.key] = result
    record["bounds"][case.key] = bound
    record["units"][case.name] = case.unit
    print(report.line(case.key, result, bound), file=sys.stderr, flush=True)


def _against(case: Case, peers: list[str] | None) -> Case:
    if peers is None:
        return case
    kept = {n: c for n, c in case.contestants.items() if n in {report.OURS, *peers}}
    return case._replace(contestants=kept)


def show(path: pathlib.Path) -> int:
    """Print the table of a record; draw the latest record of growth beside it."""
    print(report.table(_read(path)))
    growth = sorted(RESULTS.glob(f"{GROWTH}-*.json"))
    if growth:
        from benchmarks import plots

        picture = RESULTS / f"{GROWTH}.png"
        plots.draw(_read(growth[-1]), picture)
        print(f"drawn to {picture}")
    return 0


def _read(path: str | pathlib.Path) -> dict[str, Any]:
    return json.loads(pathlib.Path(path).read_text())


def _latest() -> pathlib.Path:
    found = [p for p in RESULTS.glob("*.json") if not p.name.startswith(GROWTH)]
    if not found:
        raise SystemExit("No results yet; run `python -m benchmarks` first.")
    return max(found, key=lambda path: path.stat().st_mtime)


if __name__ == "__main__":
    sys.exit(main())
