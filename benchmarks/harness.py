"""Runs cases: one process for each contestant, in turns, values compared."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from benchmarks.cases import Case

ENVIRONMENT = {
    # Idle OpenMP threads that spin take the cores from whoever is timed next.
    "OMP_WAIT_POLICY": "PASSIVE",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    # Else the first process would take all memory of an accelerator.
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}
PACKAGES = ["jax", "jaxlib", "numpy", "torch", "pytorch-metric-learning", "faiss-cpu"]
LEAST_TURNS, MOST_TURNS = 3, 100

Answer = dict[str, Any]


class Stopped(RuntimeError):
    """A contestant's process ended before it answered."""


class Worker:
    """A contestant in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | ENVIRONMENT,
        )

    def ask(self, *command: object) -> Answer:
        """Send a command and wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(*command, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise Stopped(f"Worker stopped at {command}; see its message above.")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def available(contestant: str) -> bool:
    """Whether the library of a contestant is installed."""
    package = {"pml": "pytorch-metric-learning", "faiss": "faiss-cpu"}
    try:
        version(package.get(contestant, contestant.split("-")[0]))
    except PackageNotFoundError:
        return False
    return True


def run(area: str, index: int, case: Case, seconds: float) -> dict[str, Answer]:
    """Time one case; each contestant gets at least three turns.

    Args:
        area: of the case.
        index: of the case in its area.
        case: the case.
        seconds: about how long to go on calling, over all contestants.

    Returns:
        For each contestant its median, minimum, first call and memory growth; nothing
        if it may run out of memory, and did.

    Raises:
        AssertionError: if two contestants return different values.
        Stopped: if a process ended that may not.
    """
    workers = {name: Worker() for name in case.contestants if available(name)}
    first, failed = {}, []
    try:
        for name, worker in workers.items():
            try:
                first[name] = worker.ask("prepare", area, index, name)
            except Stopped:
                if name not in case.may_fail:
                    raise
                failed.append(name)
        assert_equal(case, {n: answer["results"] for n, answer in first.items()})
        turns: dict[str, list[Answer]] = {name: [] for name in first}
        end = time.monotonic() + seconds
        for number in range(MOST_TURNS):
            if number >= LEAST_TURNS and time.monotonic() > end:
                break
            for name in first:
                turns[name].append(workers[name].ask("call"))
    finally:
        for worker in workers.values():
            worker.close()
    found = {name: _summary(case, first[name], turns[name]) for name in first}
    (ours, *_) = turns.values()
    for name, theirs in turns.items():
        found[name]["times_ours"] = _ratio(theirs, ours)
    return found | {name: {} for name in failed}


def _ratio(theirs: list[Answer], ours: list[Answer]) -> float:
    """How many times longer, the median over turns next to each other.

    A virtual machine may be twice as slow for some seconds: both are, then.
    """
    pairs = zip(theirs, ours, strict=True)
    return statistics.median(x["seconds"] / y["seconds"] for x, y in pairs)


def assert_equal(case: Case, results: dict[str, list[Answer]]) -> None:
    """Raise unless all contestants computed the same value and gradients.

    Raises:
        AssertionError: if they did not, within the tolerances of the case.
    """
    (first, reference), *others = results.items()
    for name, found in others:
        assert len(found) == len(reference), f"{case.key}: {name} returns other results"
        for i, (x, y) in enumerate(zip(found, reference, strict=True)):
            assert x["shape"] == y["shape"], f"{case.key}: {name}, result {i}"
            scale = max(abs(y["least"]), abs(y["most"]))
            tolerance = case.gradient_tolerance if i else case.tolerance
            x, y = (np.array([r["least"], r["most"], *r["sample"]]) for r in (x, y))
            error = np.max(np.abs(x - y))
            # Written so that NaN fails.
            assert error <= tolerance * scale, (
                f"{case.key}: result {i} of {name} is {error / scale:.1e} from that of "
                f"{first}, {x[:4]} and {y[:4]}; allowed are {tolerance:.0e}"
            )


def _summary(case: Case, first: Answer, turns: list[Answer]) -> Answer:
    times = [turn["seconds"] for turn in turns]
    median = statistics.median(times)
    return {
        "median_ms": 1e3 * median,
        "min_ms": 1e3 * min(times),
        "first_call_s": first["seconds"],
        "growth_mib": max(turn["mib"] for turn in turns),
        "turns": len(turns),
        "gflops": case.flops / median / 1e9,
    }


def machine() -> Answer:
    """Where and with what the figures were made, and what the machine can do."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "device": _device(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
        "revision": _revision(),
        "date": time.strftime("%Y-%m-%d"),
        "rates": _rates(),
    }


def _rates() -> dict[str, float]:
    """The best rates of any library."""
    found = []
    for library in filter(available, ("jax", "torch")):
        worker = Worker()
        try:
            found.append(worker.ask("rates", library))
        finally:
            worker.close()
    return {name: max(rates[name] for rates in found) for name in found[0]}


def bound_ms(case: Case, rates: dict[str, float]) -> float:
    """The roofline: the least time of the products, or of the bytes, of a case."""
    return max(1e-6 * case.flops / rates["gflops"], 1e-6 * case.bytes / rates["gbytes"])


def _device() -> str:
    import jax

    kind = jax.devices()[0].device_kind
    if kind != "cpu":
        return kind
    with open("/proc/cpuinfo") as lines:
        names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()


def _revision() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    return out.stdout.strip() or "unknown"
