"""Runs cases: one process for each contestant, calls interleaved, values compared."""

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from benchmarks.cases import Case

# Idle OpenMP threads that spin take the cores from whoever is timed next.
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "TF_CPP_MIN_LOG_LEVEL": "2"}
PACKAGES = ["jax", "jaxlib", "numpy", "torch", "pytorch-metric-learning", "faiss-cpu"]


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

    def ask(self, *command: object) -> dict[str, float]:
        """Send a command and wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(*command, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"Worker stopped at {command}; see its message above.")
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


def run(area: str, index: int, case: Case, seconds: float) -> dict[str, Any]:
    """Time one case; each contestant gets at least three calls.

    Args:
        area: of the case.
        index: of the case in its area.
        case: the case.
        seconds: about how long to go on calling, over all contestants.

    Returns:
        For each contestant its median, minimum, first call and memory growth.

    Raises:
        AssertionError: if two contestants return different values.
    """
    names = [name for name in case.contestants if available(name)]
    workers = {name: Worker() for name in names}
    try:
        first = {n: w.ask("prepare", area, index, n) for n, w in workers.items()}
        _assert_equal(case, {n: answer["value"] for n, answer in first.items()})
        calls: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        end = time.monotonic() + seconds
        while min(map(len, calls.values())) < 3 or time.monotonic() < end:
            for name, worker in workers.items():
                calls[name].append(worker.ask("call"))
            if len(calls[names[0]]) >= 200:
                break
    finally:
        for worker in workers.values():
            worker.close()
    return {name: _summary(case, first[name], calls[name]) for name in names}


def _assert_equal(case: Case, values: dict[str, float]) -> None:
    reference = next(iter(values.values()))
    for name, value in values.items():
        assert math.isclose(value, reference, rel_tol=case.tolerance), (
            f"{case.key}: {name} returns {value}, others {values}"
        )


def _summary(
    case: Case, first: dict[str, float], calls: list[dict[str, float]]
) -> dict[str, float]:
    times = [call["seconds"] for call in calls]
    median = statistics.median(times)
    return {
        "median_ms": 1e3 * median,
        "min_ms": 1e3 * min(times),
        "first_call_s": first["seconds"],
        "growth_mib": max(call["mib"] for call in calls),
        "calls": len(calls),
        "gflops": case.flops / median / 1e9,
    }


def machine() -> dict[str, Any]:
    """Where and with what the figures were made."""
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
    }


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
