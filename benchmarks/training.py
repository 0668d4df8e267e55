"""Records of training runs, and the table of them.

    python -m benchmarks.training record NAME --recipe arcface [other flags of train.py]
    python -m benchmarks.training table

`record` runs `train.py` (or continues its run in runs/records/NAME), and writes what it
measured to benchmarks/results/train/NAME.json: the command, the machine, versions, wall
time and the values of every split. `table` prints them as Markdown.
"""

import json
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "results" / "train"


def record(name: str, flags: Sequence[str]) -> dict[str, Any]:
    """Run `train.py` with these flags and write its record."""
    out = ROOT / "runs" / "records" / name
    command = [sys.executable, "train.py", *flags, "--out", str(out)]
    fresh = not out.exists()
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True)
    seconds = time.perf_counter() - start
    # A run that was continued has no wall time of its own.
    return write(name, flags, out, seconds=round(seconds, 1) if fresh else None)


def write(
    name: str, flags: Sequence[str], out: Path, *, seconds: float | None
) -> dict[str, Any]:
    """Write the record of a finished run's folder."""
    config = json.loads((out / "config.json").read_text())
    found = {
        "command": shlex.join(["python", "train.py", *_without_paths(flags)]),
        "recipe": config["recipe"],
        "steps": config["settings"]["steps"],
        "seconds": seconds,
        "machine": harness.machine(),
        "splits": [
            _brief(split) for split in json.loads((out / "results.json").read_text())
        ],
    }
    RECORDS.mkdir(parents=True, exist_ok=True)
    path = RECORDS / f"{name}.json"
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def _brief(split: dict[str, Any]) -> dict[str, Any]:
    """A split's result without its lists of names."""
    kept = {"split", "unseen_classes", "unseen", "seen", "further", "threshold"}
    brief = {key: value for key, value in split.items() if key in kept}
    if len(brief["unseen_classes"]) > 20:
        brief["unseen_classes"] = len(brief["unseen_classes"])
    return brief


def _without_paths(flags: Sequence[str]) -> list[str]:
    """The flags as another user would give them: folders of this machine left out."""
    shown, after = [], ""
    for flag in flags:
        if after == "--data-dir":
            flag = "DIR"
        elif ":" in flag and "/" in flag:
            kind, _, path = flag.partition(":")
            flag = f"{kind}:{Path(path).name}"
        shown.append(flag)
        after = flag
    return shown


def table() -> str:
    """All records as Markdown: the classes never seen, or the accuracy of seen ones."""
    rows = [
        "| command | s | Recall@1 | MAP@R | EER | further |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for path in sorted(RECORDS.glob("*.json")):
        rows.append(_row(json.loads(path.read_text())))
    return "\n".join(rows)


def _row(found: dict[str, Any]) -> str:
    splits = found["splits"]
    part = "unseen" if "unseen" in splits[0] else "seen"
    cells = [
        _spread([split[part]["trained"][name] for split in splits])
        for name in ("recall_at_1", "map_at_r", "eer")
    ]
    further = "; ".join(
        f"{name} {_spread([split['further'][name] for split in splits])}"
        for name in splits[0].get("further", {})
    )
    seconds = "" if found["seconds"] is None else f"{found['seconds']:.0f}"
    return f"| `{found['command']}` | {seconds} | {' | '.join(cells)} | {further} |"


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.3f}"
    if len(values) < 2:
        return mean
    return f"{mean} ± {statistics.stdev(values):.3f}"


def main(arguments: Sequence[str]) -> int:
    """The command line; gives the exit code."""
    if arguments[:1] == ["record"] and len(arguments) > 1:
        record(arguments[1], arguments[2:])
        return 0
    if list(arguments) == ["table"]:
        print(table())
        return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
