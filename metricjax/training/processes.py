"""Training by several processes, each with devices of its own, as one run.

    with processes.join("10.0.0.1:1234", count=2, index=0):  # in each process
        ...                                                  # all else of JAX

Every process runs the same program. Each takes its rows of every batch, the first one
alone measures and writes, and what one of them cannot do stops all.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import NoReturn

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

__all__ = ["is_first", "join", "leave", "together"]

# A process at the end of its work waits so long for the others to be there too.
_PARTING = 20
# One that failed waits so long to see whether all did.
_FAREWELL = 5
# Waiting has no limit of its own: it ends when a process is lost.
_FOREVER = 1000 * 3600 * 24 * 365

_AGAIN = (
    "Started again, all of them, the same command continues from the last checkpoint."
)


@contextlib.contextmanager
def join(
    coordinator: str | None = None,
    *,
    count: int | None = None,
    index: int | None = None,
    limit: int = 60,
    start_limit: int = 300,
) -> Iterator[None]:
    """Work as one of several processes, as long as all of them do.

    To be entered before anything that makes JAX look for devices. On SLURM, Open MPI,
    Kubernetes and TPU nothing has to be given: JAX finds out. Elsewhere each process is
    told where the first one is, how many there are, and which it is; what is left out
    is taken from the variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID.

    If a process is lost, the others end too, after at most about `limit` seconds, and
    say so on standard error: by an exception, or, where the program waits for a device,
    by the end of the process.

    Args:
        coordinator: `host:port` of the first process, at which it listens.
        count: number of processes.
        index: of this process, from 0.
        limit: seconds without a sign of life after which a process counts as lost.
        start_limit: seconds to wait for all processes to be there.

    Yields:
        None.

    Raises:
        ValueError: if the processes cannot be told from the arguments.
        ConnectionError: if they do not meet, or if one of them was lost.

    Example:
        >>> with join("10.0.0.1:1234", count=2, index=0):  # doctest: +SKIP
        ...     print(jax.process_index(), jax.device_count(), jax.local_device_count())
        0 16 8
    """
    count = _from_environment("JAX_NUM_PROCESSES") if count is None else count
    index = _from_environment("JAX_PROCESS_ID") if index is None else index
    _check(coordinator, count, index, limit)
    where = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
    unmet = (
        f"Expected {count or 'all'} processes to meet"
        + (f" at {where}" if where else "")
        + f" within {start_limit} s. Start all of them, with the same coordinator and "
        "numbers from 0; its port must be free and open."
    )
    with _last_words(unmet):
        _initialize(coordinator, count, index, limit, start_limit, unmet)
        _find_devices()
    with _last_words(_WORDS), _explained():
        yield


def is_first() -> bool:
    """Whether this process is the one that measures and writes.

    Example:
        >>> is_first()
        True
    """
    return jax.process_index() == 0


@contextlib.contextmanager
def together(what: str) -> Iterator[None]:
    """Leave a block when all processes do; if one fails in it, all fail.

    They need not do the same in it: the others may wait for what the first one does. Of
    a single process it is a block as any other.

    Args:
        what: is done in it, for the message; no two blocks of a run have the same.

    Yields:
        None.

    Raises:
        ConnectionAbortedError: if another process failed.

    Example:
        >>> with together("measuring"):
        ...     if is_first():
        ...         print("measured")
        measured
    """
    if jax.process_count() == 1:
        yield
        return
    if not jax.distributed.is_initialized():
        raise ValueError(
            f"Expected the {jax.process_count()} processes to know of each other, got "
            "devices of others without; enter `processes.join` first, or give "
            "--distributed."
        )
    try:
        yield
    except Exception:
        # If the others are gone as well, what went wrong here is the better message.
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            _who_failed(what, failed=True)
        raise
    failed = _who_failed(what, failed=False)
    if failed:
        raise ConnectionAbortedError(
            f"Process {failed[0]} of {jax.process_count()} failed in {what} and says "
            "why; all stop."
        )


def _who_failed(what: str, *, failed: bool) -> list[int]:
    """Wait for all processes; those that failed."""
    ocp.multihost.get_barrier_sync_fn()(key=what, timeout_ms=_FOREVER)
    flags = multihost_utils.process_allgather(np.array(failed))
    return np.flatnonzero(flags).tolist()


def leave(code: int) -> NoReturn:
    """End this process; if it failed, without waiting long for the others.

    They end as well, see `join`.

    Args:
        code: the exit code; 0 says that all is well.

    Raises:
        SystemExit: with the exit code.

    Example:
        >>> leave(0)
        Traceback (most recent call last):
        ...
        SystemExit: 0
    """
    if code and jax.distributed.is_initialized() and not _do_all_leave():
        # The ordinary way out waits for them, and ends in a report of the runtime.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _do_all_leave() -> bool:
    meet = ocp.multihost.get_barrier_sync_fn()
    try:
        meet(key="leaving", timeout_ms=1000 * _FAREWELL)
    except jax.errors.JaxRuntimeError:
        return False
    return True


def _from_environment(name: str) -> int | None:
    text = os.environ.get(name)
    if text is None:
        return None
    if not text.isdigit():
        raise ValueError(f"Expected a number in the variable {name}, got {text!r}.")
    return int(text)


def _check(
    coordinator: str | None, count: int | None, index: int | None, limit: int
) -> None:
    if coordinator is not None and not _is_address(coordinator):
        raise ValueError(
            f"Expected the coordinator as HOST:PORT, got {coordinator!r}; it is the "
            "host of process 0, with any port that is free there."
        )
    if count is not None and count < 1:
        raise ValueError(f"Expected at least one process, got {count}.")
    if index is not None and (index < 0 or (count is not None and index >= count)):
        known = "0 or more" if count is None else f"0 to {count - 1}"
        raise ValueError(f"Expected the process to be one of {known}, got {index}.")
    if limit < 1:
        raise ValueError(f"Expected a limit of at least one second, got {limit}.")


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdigit() and 0 < int(port) < 2**16


def _initialize(
    coordinator: str | None,
    count: int | None,
    index: int | None,
    limit: int,
    start_limit: int,
    unmet: str,
) -> None:
    try:
        jax.distributed.initialize(
            coordinator,
            count,
            index,
            heartbeat_timeout_seconds=limit,
            shutdown_timeout_seconds=_PARTING,
            initialization_timeout=start_limit,
        )
    except jax.errors.JaxRuntimeError as error:
        raise ConnectionError(f"{unmet} (Got: {_first_line(error)}.)") from None
    except ValueError as error:
        raise ValueError(
            "Expected to be told the coordinator (HOST:PORT), the number of processes "
            f"and which this one is, got coordinator {coordinator}, processes {count}, "
            f"process {index}; only on SLURM, Open MPI, Kubernetes and TPU does JAX "
            "find out."
        ) from error


def _find_devices() -> None:
    """Wait until all processes know the devices of all."""
    try:
        jax.devices()
    except RuntimeError as error:
        raise ConnectionError(
            f"Expected all processes to find their devices, got: {_first_line(error)}. "
            "Start all of them again."
        ) from error


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Say what an error of the devices of many processes most likely means."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        raise ConnectionAbortedError(
            f"The processes no longer work together ({_first_line(error)}): most "
            f"likely another one was lost. {_AGAIN}"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")


_WORDS = (
    "This process was ended from outside, or because another one was lost; the lines "
    f"above, or those of the other processes, may say more. {_AGAIN}"
)

# Says it when the pipe from its parent closes, unless that has sent something before.
_REPORTER = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "sys.stdin.read() or print(sys.argv[1], file=sys.stderr)"
)


@contextlib.contextmanager
def _last_words(words: str) -> Iterator[None]:
    """Have something said if this process ends in the block because one was lost.

    The runtime ends a process that waits for a lost one: no code of this one runs then,
    or not for long. What is said is left to a process that only waits for that.
    """
    command = [sys.executable, "-I", "-S", "-c", _REPORTER, words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as reporter:
        said: str | None = "all"
        try:
            yield
        except ConnectionError as error:
            if isinstance(error.__cause__, RuntimeError):
                # There may be no time left to say it here.
                said = None
            raise
        finally:
            reporter.communicate(said)
