"""Encoder weights from wherever they are kept."""

import importlib
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metricjax import _sealed
from metricjax.training import folder

Tree = Any  # a nested dict of arrays
Weights = tuple[Tree, Tree]

_ORBAX = ("_CHECKPOINT_METADATA", "_METADATA")
_CHECKPOINT = "checkpoint.json"


def read(source: Any, *, split: int, best: bool) -> Weights:
    """(params, state) of a source; see `finetune.load_params`."""
    if not isinstance(source, str | os.PathLike):
        return _in_memory(source)
    path = Path(source).absolute()
    if path.is_file() and path.suffix == ".safetensors":
        return _from_safetensors(path)
    if (path / _sealed.MANIFEST).is_file():
        return _from_bundle(path)
    if (path / folder.CONFIG).is_file():
        return _from_checkpoints(path / f"split{split}" / "checkpoints", best=best)
    if (path / _CHECKPOINT).is_file():
        return _from_checkpoints(path)
    if any(path.glob(f"*/{_CHECKPOINT}")):
        return _from_checkpoints(path, best=best)
    if any((path / name).is_file() for name in _ORBAX):
        return _from_orbax(path)
    if not path.exists():
        raise FileNotFoundError(f"Expected weights in {path}, got nothing there.")
    raise ValueError(
        "Expected a bundle, a run's folder, checkpoints or a .safetensors file, got "
        f"{path}; read it yourself and pass (params, state)."
    )


def _in_memory(source: Any) -> Weights:
    if hasattr(source, "params") and hasattr(source, "state"):
        return source.params, source.state
    if isinstance(source, tuple) and len(source) == 2:
        return source
    raise TypeError(
        "Expected a path, a pair (params, state), or something with `params` and "
        f"`state`, got {type(source).__name__}."
    )


def _from_bundle(path: Path) -> Weights:
    # The weights alone: they can be used even where the encoder cannot be rebuilt.
    sealed = _sealed.read(path, kind="bundle")
    tree: dict[str, Any] = {"params": {}, "state": {}}
    with np.load(sealed.files["weights.npz"], allow_pickle=False) as arrays:
        for index, record in enumerate(sealed.content["weights"]):
            array = arrays[str(index)].view(jnp.dtype(record["dtype"]))
            _insert(tree, record["path"], array)
    return tree["params"], tree["state"]


def _from_safetensors(path: Path) -> Weights:
    library = _import("safetensors.numpy", "export")
    arrays = library.load_file(path)
    tree: dict[str, Any] = {"params": {}, "state": {}}
    for name, array in arrays.items():
        part, *keys = name.split("/")
        if part not in tree or not keys:
            raise ValueError(
                "Expected arrays named params/... and state/..., got "
                f"{', '.join(sorted(arrays))} in {path}; read it with "
                "safetensors.numpy.load_file and pass (params, state)."
            )
        _insert(tree, [part, *_positions(keys)], array)
    return tree["params"], tree["state"]


def _from_checkpoints(path: Path, *, best: bool = False) -> Weights:
    """From one checkpoint, or from the last or the best of their folder."""
    # Not at the top: bundles and .safetensors files are read without Orbax.
    _import("orbax.checkpoint", "train")
    from metricjax.training import checkpoints

    is_one = (path / _CHECKPOINT).is_file()
    tried = [path] if is_one else checkpoints.candidates(path, best=best)
    found, skipped = checkpoints.intact(tried)
    for sentence in skipped:
        warnings.warn(sentence, stacklevel=4)
    if found is None:
        raise FileNotFoundError(
            f"Expected an intact checkpoint in {path}, got none; train first."
        )
    return _from_orbax(found.arrays)


def _from_orbax(path: Path) -> Weights:
    library = _import("orbax.checkpoint", "train")
    with library.PyTreeCheckpointer() as checkpointer:
        tree = checkpointer.metadata(path).item_metadata.tree
        if _is_training_state(tree):
            # The optimiser's part, twice as large, is not read.
            params = {"encoder": tree["params"]["encoder"]}
            tree = {"params": params, "model_state": tree["model_state"]}
        # As NumPy arrays, so that it does not matter on which devices it was saved.
        numpy = library.RestoreArgs(restore_type=np.ndarray)
        arguments = library.args.PyTreeRestore(
            item=tree,
            restore_args=jax.tree.map(lambda _: numpy, tree),
            partial_restore=True,
        )
        tree = checkpointer.restore(path, args=arguments)
    return _pair(_with_positions(tree), path)


def _is_training_state(tree: Any) -> bool:
    return (
        isinstance(tree, Mapping)
        and "model_state" in tree
        and "encoder" in tree.get("params", ())
    )


def _pair(tree: Any, path: Path) -> Weights:
    if _is_training_state(tree):
        return tree["params"]["encoder"], tree["model_state"]
    if not isinstance(tree, Mapping) or "params" not in tree:
        raise ValueError(
            f"Expected a training state, (params, state) or Linen variables in {path}, "
            f"got {sorted(tree)}; read it yourself and pass (params, state)."
        )
    others = {key: value for key, value in tree.items() if key != "params"}
    return tree["params"], others["state"] if others.keys() == {"state"} else others


def _with_positions(tree: Any) -> Any:
    if not isinstance(tree, Mapping):
        return tree
    keys = _positions(tree)
    return {
        key: _with_positions(value)
        for key, value in zip(keys, tree.values(), strict=True)
    }


def _positions(keys: Iterable[str]) -> list[str | int]:
    # Files know names alone; in Flax, a number is always a position in a list.
    return [int(key) if key.isdecimal() else key for key in keys]


def _insert(tree: dict[Any, Any], path: Iterable[str | int], leaf: Any) -> None:
    *parents, last = path
    for key in parents:
        tree = tree.setdefault(key, {})
    tree[last] = leaf


def _import(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"Expected the package {name.partition('.')[0]} for this kind of file; "
            f'install it with: pip install "metricjax[{extra}]"'
        ) from error
