"""Checkpoints that survive a kill at any moment: the last two and the best one.

Orbax writes the arrays; beside them goes a list of the files and their checksums,
written last. A checkpoint without that list, or whose files do not agree with it, was
cut short: it is passed over for the one before.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

__all__ = ["Checkpoint", "Restored", "available", "restore", "save"]

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
    path = Path(folder).absolute() / f"{step:08d}"
    _delete(path)
    path.mkdir(parents=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path / _ARRAYS, state)
    record = {
        "step": step,
        "score": score,
        "metrics": dict(metrics or {}),
        "files": _checksums(path / _ARRAYS),
    }
    # Renamed into place, so that the list is there whole or not at all.
    part = path / f"{_RECORD}.part"
    part.write_text(json.dumps(record, indent=1))
    part.replace(path / _RECORD)
    for old in _superfluous(available(folder)):
        _delete(old.path)
    return Checkpoint(step, path, score, record["metrics"])


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
    folder: str | os.PathLike[str], template: Any, *, best: bool = False
) -> Restored:
    """The state of the last intact checkpoint, or of the best.

    Args:
        folder: the folder of the run's checkpoints; it need not exist.
        template: a pytree of the same structure, shapes and dtypes, for instance a
            fresh state; it is left as it is.
        best: take the checkpoint of the highest score instead of the last.

    Returns:
        `Restored`; its `state` is None where nothing can be restored.

    Example:
        >>> import tempfile, jax.numpy as jnp
        >>> folder = tempfile.mkdtemp()
        >>> saved = save(folder, {"w": jnp.arange(3)}, step=7)
        >>> restored = restore(folder, {"w": jnp.zeros(3, int)})
        >>> restored.state["w"].tolist(), restored.checkpoint.step, restored.skipped
        ([0, 1, 2], 7, ())
    """
    skipped = []
    for path in _candidates(Path(folder).absolute(), best=best):
        record = _read(path / _RECORD)
        if record is None or _checksums(path / _ARRAYS) != record.files:
            skipped.append(f"The checkpoint {path} was cut short and is passed over.")
            continue
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
        with ocp.StandardCheckpointer() as checkpointer:
            state = checkpointer.restore(path / _ARRAYS, abstract)
        return Restored(state, Checkpoint(*record[:4]), tuple(skipped))
    return Restored(None, None, tuple(skipped))


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


def _candidates(folder: Path, *, best: bool) -> list[Path]:
    """Checkpoint folders to try, in order; damaged ones among them."""
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
