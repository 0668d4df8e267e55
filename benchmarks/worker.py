"""One contestant: reads commands on standard input, answers on standard output.

`prepare AREA INDEX CONTESTANT` makes the inputs and the first call; `call` does the
work once. Answers are JSON, one line each.
"""

import contextlib
import json
import os
import sys
import time

from benchmarks.cases import Call, cases


def resident() -> tuple[float, float]:
    """Resident memory and its high-water mark, MiB."""
    with open("/proc/self/status") as lines:
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
    now, peak = (int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return now, peak


def reset_high_water() -> None:
    """Make the high-water mark start again from now."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def timed(call: Call) -> dict[str, float]:
    """One call: its value, seconds, and growth of resident memory above the start."""
    reset_high_water()
    before = resident()[0]
    start = time.perf_counter()
    value = call()
    seconds = time.perf_counter() - start
    return {"value": value, "seconds": seconds, "mib": resident()[1] - before}


def main() -> None:
    """Answer commands until the input ends."""
    # Libraries may print; the answers have the real standard output to themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    call: Call | None = None
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "prepare":
            area, index, contestant = arguments
            call = None
            call = cases(area)[int(index)].contestants[contestant]()
        assert call is not None
        print(json.dumps(timed(call)), file=answers, flush=True)


if __name__ == "__main__":
    main()
