"""The training loop: steps, progress, evaluation, checkpoints and exact resume."""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.progress import TimeRemainingColumn as Remaining

from metricjax.training import checkpoints, logs, processes
from metricjax.training.state import State
from metricjax.training.step import Step

__all__ = ["fit"]

Evaluate = Callable[[State], Mapping[str, float]]
CHECKPOINTS = "checkpoints"


def fit(
    step: Step,
    state: State,
    batch: Callable[[int], Any],
    *,
    steps: int,
    folder: str | os.PathLike[str],
    evaluate: Evaluate | None = None,
    score: str | None = None,
    every: int = 100,
    log_every: int = 10,
    padded: Sequence[str] = (),
    title: str = "training",
    console: Console | None = None,
) -> State:
    """Train up to a number of steps, continuing from the folder's last checkpoint.

    The batch of step t and its random key depend on t alone, so that a run that was
    killed and started again ends with the same parameters, to the bit, as one that
    was not (same device kind, same number of devices and threads). Checkpoints are
    written while training goes on.

    Several processes call this alike; the first of them alone evaluates and logs.

    Args:
        step: `(state, batch) -> (state, metrics)` from `step.make_step`; donates the
            state, so that the `state` given here must not be used afterwards.
        state: the state to start from if the folder has no checkpoint; a checkpoint is
            restored to the devices that it is on.
        batch: `t -> batch`, a pure function of the step number, from 0.
        steps: steps in all, those of earlier processes included.
        folder: gets `checkpoints/`, `metrics.jsonl` and `tensorboard/`.
        evaluate: `state -> {name: value}`, run with each checkpoint.
        score: which of these values ranks checkpoints, larger is better.
        every: steps from one checkpoint to the next; there is one at the end too.
        log_every: steps from one logged training line to the next.
        padded: see `checkpoints.restore`.
        title: shown at the progress bar.
        console: where to report; a `rich` console on standard output if None.

    Returns:
        The state after the last step.

    Raises:
        FloatingPointError: if a loss, gradient or parameter is not finite. The
            message names the step; checkpoints from before are left as they are.
        ConnectionAbortedError: if another process failed.

    Example:
        >>> import tempfile, jax.numpy as jnp, optax
        >>> from metricjax.training.state import init
        >>> from metricjax.training.step import Outputs, make_step
        >>> def loss(params, model_state, loss_state, batch, key):
        ...     return (params - batch) ** 2, Outputs({}, {}, {})
        >>> optimizer = optax.sgd(0.5)
        >>> state = init(jax.random.key(0), jnp.zeros(()), optimizer=optimizer)
        >>> state = fit(
        ...     make_step(loss, optimizer),
        ...     state,
        ...     lambda t: np.float32(3.0),
        ...     steps=2,
        ...     folder=tempfile.mkdtemp(),
        ...     console=Console(quiet=True),
        ... )
        >>> int(state.step), float(state.params)
        (2, 3.0)
    """
    first, folder = processes.is_first(), Path(folder)
    console = console or Console(quiet=not first)
    state = _resume(state, folder, console, padded)
    done = int(state.step)
    with (
        logs.open_log(folder, step=done) if first else nullcontext(_ignore) as write,
        checkpoints.open_saver(folder / CHECKPOINTS) as saver,
        _progress(title, done, steps, console) as show,
    ):
        pending = None
        for t in range(done, steps):
            data = batch(t)
            state, metrics = step(state, data)
            if pending is not None:
                # One step behind: the host works on while the device computes.
                _settle(pending, saver, folder, write, show)
            pending = _Pending(t + 1, metrics, _rows(data), (t + 1) % log_every == 0)
            if (t + 1) % every == 0 or t + 1 == steps:
                _settle(pending, saver, folder, write, show)
                pending = None
                _check_parameters(state, t + 1, saver, folder)
                values = _evaluated(evaluate, state, f"{title}, step {t + 1}")
                write("evaluation", t + 1, values)
                saver.save(
                    state,
                    step=t + 1,
                    score=values[score] if score and first else None,
                    metrics=values,
                )
                show(t + 1, values, 0)
    return state


def _ignore(group: str, step: int, values: Mapping[str, float]) -> None:
    """Logs are written once."""


def _evaluated(evaluate: Evaluate | None, state: State, when: str) -> dict[str, float]:
    if evaluate is None:
        return {}
    with processes.together(f"evaluation of {when}"):
        return dict(evaluate(state)) if processes.is_first() else {}


class _Pending(NamedTuple):
    """A step that was dispatched and whose numbers were not yet looked at."""

    step: int
    metrics: Mapping[str, Array]
    rows: int
    logged: bool


def _resume(
    state: State, folder: Path, console: Console, padded: Sequence[str]
) -> State:
    restored = checkpoints.restore(folder / CHECKPOINTS, state, padded=padded)
    for sentence in restored.skipped:
        console.print(sentence, style="yellow", soft_wrap=True)
    if restored.state is None:
        return state
    console.print(f"Continuing {folder} from step {int(restored.state.step)}.")
    # The caller may hold it for as long as it trains.
    jax.tree.map(lambda x: x.delete(), state)
    return restored.state


def _settle(
    pending: _Pending,
    saver: checkpoints.Saver,
    folder: Path,
    write: logs.Write,
    show: "_Show",
) -> None:
    """Wait for a step, stop if its numbers are not finite, then log and show them."""
    values = {name: float(value) for name, value in pending.metrics.items()}
    for name in ("loss", "gradient_norm"):
        if not math.isfinite(values.get(name, 0.0)):
            _diverged(f"The {name} is {values[name]}", pending.step, saver, folder)
    rate = show(pending.step, values, pending.rows)
    if pending.logged:
        write("train", pending.step, {**values, "images_per_second": rate})


def _check_parameters(
    state: State, step: int, saver: checkpoints.Saver, folder: Path
) -> None:
    finite = np.array(_is_finite((state.params, state.model_state, state.loss_state)))
    if not multihost_utils.process_allgather(finite).all():
        _diverged("A parameter is not finite", step, saver, folder)


def _diverged(what: str, step: int, saver: checkpoints.Saver, folder: Path) -> NoReturn:
    # All processes see it at the same step.
    with processes.together(f"step {step} of {folder}"):
        saver.wait()
        saved = checkpoints.available(folder / CHECKPOINTS)
        kept = f"is kept at {saved[-1].path}" if saved else "does not exist yet"
        raise FloatingPointError(
            f"{what} at step {step}; training stopped. The last good checkpoint "
            f"{kept}. Lower the learning rate or look at the data of that step."
        )


def _is_finite(tree: Any) -> bool:
    """Whether what this process has of the arrays is finite, each part once."""
    return all(
        bool(np.isfinite(np.asarray(shard.data)).all())
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
        for shard in leaf.addressable_shards
        if shard.replica_id == 0
    )


def _rows(data: Any) -> int:
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(data)]
    return shapes[0][0] if shapes and shapes[0] else 1


_Show = Callable[[int, Mapping[str, float], int], float]


@contextmanager
def _progress(title: str, done: int, steps: int, console: Console) -> Iterator[_Show]:
    """A bar with rate, loss, active share and time left; gives the rate back."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TextColumn("{task.fields[values]}"),
        Remaining(compact=True),
    )
    quiet = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=quiet) as bar:
        task = bar.add_task(title, total=steps, completed=done, values="")
        last, rate = time.perf_counter(), 0.0

        def show(step: int, values: Mapping[str, float], rows: int) -> float:
            nonlocal last, rate
            now = time.perf_counter()
            if rows:
                fresh = rows / (now - last)
                rate = fresh if rate == 0.0 else 0.9 * rate + 0.1 * fresh
                bar.update(task, completed=step, values=_fields(values, rate))
            else:
                line = _line(title, step, steps, values)
                console.print(line, highlight=False, soft_wrap=True)
            last = now
            return rate

        yield show


def _fields(values: Mapping[str, float], rate: float) -> str:
    shown = [f"{rate:.0f} images/s"]
    shown += [
        f"{name} {values[name]:.3f}" for name in ("loss", "active") if name in values
    ]
    return "  ".join(shown)


def _line(title: str, step: int, steps: int, values: Mapping[str, float]) -> str:
    numbers = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
    return f"{title}: step {step}/{steps}  {numbers}"
