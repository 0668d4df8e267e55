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
    """All records as Markdown: the digits in tables, the other data sets as a list."""
    records = {path.stem: json.loads(path.read_text()) for path in _paths()}
    digits = {k: v for k, v in records.items() if k.startswith("digits-")}
    is_open = {k: "unseen" in v["splits"][0] for k, v in digits.items()}
    lines = ["| digits never seen | Recall@1 | MAP@R | EER |", "|---|---:|---:|---:|"]
    rows = [_open_row(v) for k, v in digits.items() if is_open[k]]
    lines += sorted(rows, key=lambda row: row.split("|")[3], reverse=True)
    lines += ["", "| other images of the same digits | accuracy |", "|---|---|"]
    lines += [
        f"| `{v['recipe']}` | {_further(v)} |"
        for k, v in digits.items()
        if not is_open[k]
    ]
    for name in sorted(records.keys() - digits.keys()):
        lines += ["", f"`{records[name]['command']}`: {_further(records[name])}"]
    return "\n".join(lines)


def _paths() -> list[Path]:
    return sorted(RECORDS.glob("*.json"))


def _open_row(found: dict[str, Any]) -> str:
    cells = [
        _spread([split["unseen"]["trained"][name] for split in found["splits"]])
        for name in ("recall_at_1", "map_at_r", "eer")
    ]
    return f"| `{found['recipe']}` | {' | '.join(cells)} |"


def _further(found: dict[str, Any]) -> str:
    """What else was measured, with mean and standard deviation over the splits."""
    splits = found["splits"]
    parts = {
        name: [split["further"][name] for split in splits]
        for name in splits[0]["further"]
    }
    if "unseen" in splits[0]:
        values = [split["unseen"]["trained"]["eer"] for split in splits]
        parts = {"equal error rate": values, **parts}
    return "; ".join(f"{name} {_spread(values)}" for name, values in parts.items())


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
