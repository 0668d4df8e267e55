"""One contestant: reads commands on standard input, answers on standard output.

`prepare AREA INDEX CONTESTANT` makes the inputs and the first call, and answers with a
digest of what it computed; `call` does the work as a training loop would, again and
again for a moment; `rates LIBRARY` measures what the machine can do. Answers are JSON,
one line each.
"""

import contextlib
import json
import os
import statistics
import sys
import time
from typing import Any

import numpy as np

from benchmarks import rates
from benchmarks.cases import Call, cases

SAMPLE = 1024
# Seconds of calls before those that count, and of those. While another library had the
# machine threads went to sleep and caches were filled by it.
WARM, COUNTED = 0.1, 0.1


def resident() -> tuple[float, float]:
    """Resident memory and its high-water mark, MiB."""
    with open("/proc/self/status") as lines:
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
    now, peak = (int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return now, peak


def on_accelerator() -> tuple[float, float] | None:
    """The same of the accelerator that this process uses, if it uses one."""
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        cuda = sys.modules["torch"].cuda
        now, peak = cuda.memory_allocated(), cuda.max_memory_allocated()
        return now / 2**20, peak / 2**20
    if "jax" in sys.modules:
        stats = sys.modules["jax"].devices()[0].memory_stats()
        if stats:
            now, peak = stats["bytes_in_use"], stats["peak_bytes_in_use"]
            return now / 2**20, peak / 2**20
    return None


def reset_high_water() -> None:
    """Make the high-water mark start again from now; that of JAX's device can't."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.reset_peak_memory_stats()


def timed(call: Call) -> tuple[dict[str, float], tuple[Any, ...]]:
    """One call: seconds and growth of memory above the start; and its results."""
    reset_high_water()
    before = (on_accelerator() or resident())[0]
    start = time.perf_counter()
    results = call()
    seconds = time.perf_counter() - start
    peak = (on_accelerator() or resident())[1]
    return {"seconds": seconds, "mib": max(peak - before, 0.0)}, results


def repeated(call: Call) -> dict[str, float]:
    """Median seconds and largest growth of some calls in a row."""
    end = time.perf_counter() + WARM
    first = timed(call)[0]
    if first["seconds"] > WARM + COUNTED:
        # So long a call wakes the machine itself.
        return first
    while time.perf_counter() < end:
        call()
    answers, end = [], time.perf_counter() + COUNTED
    while not answers or time.perf_counter() < end:
        answers.append(timed(call)[0])
    return {
        "seconds": statistics.median(answer["seconds"] for answer in answers),
        # The first call included: later ones may find what it left behind.
        "mib": max(answer["mib"] for answer in [first, *answers]),
    }


def digest(result: Any) -> dict[str, Any]:
    """Shape, extremes and some entries of an array of any library."""
    tensor = result.detach().cpu() if hasattr(result, "detach") else result
    array = np.asarray(tensor)
    places = np.linspace(0, array.size - 1, min(array.size, SAMPLE)).astype(int)
    return {
        "shape": array.shape,
        "least": float(array.min()),
        "most": float(array.max()),
        "sample": array.flat[places].astype(float).tolist(),
    }


def prepare(area: str, index: str, contestant: str) -> tuple[Call, dict[str, Any]]:
    """The call of a contestant, after its first time."""
    if contestant.split("-")[0] in {"torch", "pml"}:
        _use_accelerator_of_torch()
    call = cases(area)[int(index)].contestants[contestant]()
    answer, results = timed(call)
    return call, {**answer, "results": [digest(result) for result in results]}


def _use_accelerator_of_torch() -> None:
    """Make new tensors there; without one nothing, since the switch costs time."""
    import torch

    if torch.cuda.is_available():
        torch.set_default_device("cuda")


def main() -> None:
    """Answer commands until the input ends."""
    # Libraries may print; the answers have the real standard output to themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    call: Call | None = None
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "rates":
            answer = rates.measure(*arguments)
        elif command == "prepare":
            call, answer = prepare(*arguments)
        else:
            assert call is not None
            answer = repeated(call)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
