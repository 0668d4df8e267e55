"""Checkpoints that survive a kill at any moment: the last two and the best one.

Orbax writes the arrays; beside them goes a list of the files and their checksums,
written last. A checkpoint without that list, or whose files do not agree with it, was
cut short: it is passed over for the one before.

Several processes save and restore together, in a folder that all of them see; the first
one keeps the list. Any number of devices and processes can restore.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import SingleDeviceSharding

from metricjax.training import _paths, processes

__all__ = [
    "Checkpoint",
    "Restored",
    "Saver",
    "available",
    "candidates",
    "intact",
    "open_saver",
    "restore",
    "save",
]

_ARRAYS = "state"
_RECORD = "checkpoint.json"
_KEPT = 2


class Checkpoint(NamedTuple):
    """A checkpoint on disk.

    Attributes:
        step: the number of steps taken.
        path: its folder.
        score: what ranks it, larger is better; None if it was not evaluated.
        metrics: the evaluation at that step.
    """

    step: int
    path: Path
    score: float | None
    metrics: Mapping[str, float]

    @property
    def arrays(self) -> Path:
        """What Orbax has written of the state, a folder in the checkpoint's."""
        return self.path / _ARRAYS


class Restored(NamedTuple):
    """What `restore` found.

    Attributes:
        state: the restored pytree, or None if there was no usable checkpoint.
        checkpoint: where it came from, or None.
        skipped: one sentence for each damaged checkpoint that was passed over.
    """

    state: Any
    checkpoint: Checkpoint | None
    skipped: tuple[str, ...]


class Saver(NamedTuple):
    """What saves checkpoints while training goes on.

    Attributes:
        save: `(state, *, step, score=None, metrics=None) -> Checkpoint`, as `save`. The
            state may be donated as soon as it returns.
        wait: `() -> None`; afterwards all that was saved is on disk.
    """

    save: Callable[..., Checkpoint]
    wait: Callable[[], None]


def save(
    folder: str | os.PathLike[str],
    state: Any,
    *,
    step: int,
    score: float | None = None,
    metrics: Mapping[str, float] | None = None,
) -> Checkpoint:
    """Save a checkpoint; then delete all but the last two and the best.

    Args:
        folder: the folder of the run's checkpoints; made if it does not exist.
        state: any pytree of arrays and random keys.
        step: its step; a checkpoint of the same step is replaced.
        score: ranks it among the others, larger is better; None: not ranked.
        metrics: kept beside it.

    Returns:
        The checkpoint.

    Example:
        >>> import tempfile, jax.numpy as jnp
        >>> folder = tempfile.mkdtemp()
        >>> for step in (1, 2, 3, 4):
        ...     saved = save(folder, {"w": jnp.ones(2)}, step=step, score=-step)
        >>> [checkpoint.step for checkpoint in available(folder)]
        [1, 3, 4]
    """
    with open_saver(folder) as saver:
        return saver.save(state, step=step, score=score, metrics=metrics)


@contextlib.contextmanager
def open_saver(folder: str | os.PathLike[str]) -> Iterator[Saver]:
    """Save checkpoints while the caller works on; `save` for more than one.

    The files are written by threads. A kill in the meantime costs that checkpoint and
    none before it: its list of files is written when the files are there, and older
    checkpoints are deleted after that.

    Args:
        folder: the folder of the run's checkpoints; made if it does not exist.

    Yields:
        `Saver`. What was saved is on disk when the block is left.

    Raises:
        OSError: if a file cannot be written; by the next `save`, `wait`, or at the end.

    Example:
        >>> import tempfile, jax.numpy as jnp
        >>> folder = tempfile.mkdtemp()
        >>> with open_saver(folder) as saver:
        ...     saved = saver.save({"w": jnp.ones(2)}, step=1)
        >>> [checkpoint.step for checkpoint in available(folder)]
        [1]
    """
    folder, first = Path(folder).absolute(), processes.is_first()
    pending: list[Future[None]] = []

    def wait() -> None:
        while pending:
            pending.pop().result()

    with (
        ocp.StandardCheckpointer(multiprocessing_options=_everyone()) as checkpointer,
        ThreadPoolExecutor(1, "checkpoint") as thread,
    ):

        def save(
            state: Any,
            *,
            step: int,
            score: float | None = None,
            metrics: Mapping[str, float] | None = None,
        ) -> Checkpoint:
            wait()
            made = Checkpoint(step, _path(folder, step), score, dict(metrics or {}))
            if first:
                _delete(made.path)
                made.path.mkdir(parents=True)
            checkpointer.save(made.arrays, _kept(state))

            def finish() -> None:
                checkpointer.wait_until_finished()
                if first:
                    _finish(made)

            pending.append(thread.submit(finish))
            return made

        yield Saver(save, wait)
        wait()


def _kept(state: Any) -> Any:
    """The state in buffers that the next step does not get."""
    # A CPU's arrays are written to disk from where they are, not from a copy.
    on_cpu = jax.default_backend() == "cpu"
    return jax.tree.map(jnp.copy, state) if on_cpu else state


def _finish(made: Checkpoint) -> None:
    """Declare a checkpoint complete, and delete what it makes superfluous."""
    record = {
        "step": made.step,
        "score": made.score,
        "metrics": made.metrics,
        "files": _checksums(made.arrays),
    }
    # Renamed into place, so that the list is there whole or not at all.
    part = made.path / f"{_RECORD}.part"
    part.write_text(json.dumps(record, indent=1))
    part.replace(made.path / _RECORD)
    for old in _superfluous(available(made.path.parent)):
        _delete(old.path)


def _everyone() -> ocp.options.MultiprocessingOptions:
    """All processes, which wait for each other without a collective of the devices."""
    count = jax.process_count()
    active = set(range(count)) if count > 1 else None
    return ocp.options.MultiprocessingOptions(active_processes=active)


def _alone() -> ocp.options.MultiprocessingOptions:
    """This process, whatever the others do."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    index = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=index, active_processes={index}
    )


def available(folder: str | os.PathLike[str]) -> list[Checkpoint]:
    """The finished checkpoints of a folder, by step; their files are not read.

    Args:
        folder: the folder of the run's checkpoints; it need not exist.

    Returns:
        The checkpoints, the last one last.

    Example:
        >>> available("no/such/folder")
        []
    """
    records = sorted(Path(folder).absolute().glob(f"*/{_RECORD}"))
    found = [_read(path) for path in records]
    return [Checkpoint(*record[:4]) for record in found if record is not None]


def restore(
    folder: str | os.PathLike[str],
    template: Any,
    *,
    best: bool = False,
    padded: Sequence[str] = (),
) -> Restored:
    """The state of the last intact checkpoint, or of the best.

    Args:
        folder: the folder of the run's checkpoints; it need not exist.
        template: a pytree of the structure, shapes, dtypes and shardings that are
            wanted, for instance a fresh state; it is left as it is. Parts of a nested
            dict may be left out. Where its arrays are divided among several processes,
            all of them restore together.
        best: take the checkpoint of the highest score instead of the last.
        padded: names of arrays that may have other numbers of rows than the saved ones:
            rows at the end are left out, or are zero.

    Returns:
        `Restored`; its `state` is None where nothing can be restored.

    Raises:
        ValueError: if the checkpoint is intact, but of other arrays.

    Example:
        >>> import tempfile, jax.numpy as jnp
        >>> folder = tempfile.mkdtemp()
        >>> saved = save(folder, {"w": jnp.arange(3)}, step=7)
        >>> restored = restore(folder, {"w": jnp.zeros(3, int)})
        >>> restored.state["w"].tolist(), restored.checkpoint.step, restored.skipped
        ([0, 1, 2], 7, ())
    """
    folder = Path(folder).absolute()
    wanted = jax.tree.map(_abstract, template)
    shared = not all(x.sharding.is_fully_addressable for x in jax.tree.leaves(wanted))
    found, skipped = None, ()
    if processes.is_first() or not shared:
        found, skipped = intact(candidates(folder, best=best))
    if shared:
        # One decides for all: the others need not read every file for its checksum.
        step = -1 if found is None else found.step
        step = int(multihost_utils.broadcast_one_to_all(np.int32(step)))
        found = None if step < 0 else _known(_path(folder, step))
    if found is None:
        return Restored(None, None, skipped)
    options = _everyone() if shared else _alone()
    return Restored(_load(found, wanted, padded, options), found, skipped)


def _abstract(x: Any) -> jax.ShapeDtypeStruct:
    """Shape, dtype and place of an array; one without a place belongs to this process.

    It must not be read to where it was when it was saved, on devices that may be gone.
    """
    x = ocp.utils.to_shape_dtype_struct(x)
    if x.sharding is not None:
        return x
    here = SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here)


def intact(paths: Sequence[Path]) -> tuple[Checkpoint | None, tuple[str, ...]]:
    """The first checkpoint whose files are all there, as they were written.

    Args:
        paths: folders of single checkpoints, such as `candidates` gives.

    Returns:
        It, or None, and a sentence for each damaged one before it.

    Example:
        >>> intact([])
        (None, ())
    """
    skipped = []
    for path in paths:
        record = _read(path / _RECORD)
        if record is not None and _checksums(path / _ARRAYS) == record.files:
            return Checkpoint(*record[:4]), tuple(skipped)
        skipped.append(f"The checkpoint {path} was cut short and is passed over.")
    return None, tuple(skipped)


def _known(path: Path) -> Checkpoint:
    """A checkpoint that another process has found intact."""
    record = _read(path / _RECORD)
    if record is None:
        raise FileNotFoundError(
            f"Expected the checkpoint {path} that process 0 has found, got none; all "
            "processes need the same folder, on a disk that they share."
        )
    return Checkpoint(*record[:4])


def _load(
    saved: Checkpoint,
    wanted: Any,
    padded: Sequence[str],
    options: ocp.options.MultiprocessingOptions,
) -> Any:
    def allow(keys: Any, arguments: Any) -> Any:
        name = getattr(keys[-1], "key", None)
        if name in padded and isinstance(arguments, ocp.ArrayRestoreArgs):
            return dataclasses.replace(arguments, strict=False)
        return arguments

    arguments = ocp.checkpoint_utils.construct_restore_args(wanted)
    arguments = jax.tree.map_with_path(
        allow, arguments, is_leaf=lambda x: isinstance(x, ocp.RestoreArgs)
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=options)
    with ocp.Checkpointer(handler, multiprocessing_options=options) as checkpointer:
        request = ocp.args.PyTreeRestore(wanted, arguments, partial_restore=True)
        found = checkpointer.restore(saved.arrays, args=request)
    for name, leaf in _paths.named(found).items():
        if isinstance(leaf, jax.ShapeDtypeStruct):
            raise ValueError(
                f"Expected {name} in the checkpoint {saved.path}, got none; it is of "
                "other settings than those of now."
            )
    return found


class _Record(NamedTuple):
    step: int
    path: Path
    score: float | None
    metrics: Mapping[str, float]
    files: Mapping[str, str]


def _read(path: Path) -> _Record | None:
    try:
        record = json.loads(path.read_text())
        return _Record(
            record["step"],
            path.parent,
            record["score"],
            record["metrics"],
            record["files"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def candidates(folder: str | os.PathLike[str], *, best: bool = False) -> list[Path]:
    """The checkpoints of a folder in the order to try them, damaged ones among them.

    Args:
        folder: the folder of the run's checkpoints; it need not exist.
        best: those of the highest scores instead of the last ones.

    Returns:
        Their folders.

    Example:
        >>> candidates("no/such/folder")
        []
    """
    folder = Path(folder).absolute()
    if best:
        scored = [c for c in available(folder) if c.score is not None]
        return [c.path for c in sorted(scored, key=_rank, reverse=True)]
    return sorted((p for p in folder.glob("[0-9]*") if p.is_dir()), reverse=True)


def _rank(checkpoint: Checkpoint) -> tuple[float, int]:
    score = -np.inf if checkpoint.score is None else checkpoint.score
    # Of equals the earlier one, so that resuming decides as the first run did.
    return score, -checkpoint.step


def _superfluous(checkpoints: list[Checkpoint]) -> list[Checkpoint]:
    kept = {c.step for c in checkpoints[-_KEPT:]}
    scored = [c for c in checkpoints if c.score is not None]
    if scored:
        kept.add(max(scored, key=_rank).step)
    return [c for c in checkpoints if c.step not in kept]


def _path(folder: Path, step: int) -> Path:
    return folder / f"{step:08d}"


def _delete(path: Path) -> None:
    # The list first: a deletion cut short must not look like a checkpoint.
    (path / _RECORD).unlink(missing_ok=True)
    if path.exists():
        shutil.rmtree(path)


def _checksums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
