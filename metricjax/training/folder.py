"""A run's folder: which run it holds, and whether this command may continue it."""

import dataclasses
import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from metricjax.training.settings import Settings

__all__ = ["open_run", "read_json", "write_json"]

CONFIG = "config.json"
_PACKAGES = ("metricjax", "jax", "flax", "optax", "numpy")


def open_run(
    folder: str | os.PathLike[str],
    *,
    recipe: str,
    settings: Settings,
    data: Mapping[str, Any] | None = None,
    exists: bool = False,
) -> Path:
    """Make a run's folder, or accept one that holds the same run.

    Args:
        folder: a path that does not exist, an empty folder, or the folder of a run of
            the same recipe with the same settings, which is then continued.
        recipe: the name of the recipe.
        settings: its settings, written to `config.json`.
        data: facts about the data, written there too; a run is continued only with
            the same.
        exists: another process has opened the run; this one only looks whether it is
            the same.

    Returns:
        The folder.

    Raises:
        ValueError: if the folder holds something else; nothing is changed then.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> path = open_run(folder, recipe="arcface", settings=Settings())
        >>> open_run(folder, recipe="arcface", settings=Settings()) == path
        True
    """
    folder = Path(folder)
    config = _plain(
        {
            "recipe": recipe,
            "settings": dataclasses.asdict(settings),
            "data": dict(data or {}),
        }
    )
    path = folder / CONFIG
    if path.exists():
        defaults = _plain(dataclasses.asdict(type(settings)()))
        _check_same(folder, _read_config(path), config, defaults)
        return folder
    if exists:
        raise ValueError(
            f"Expected to find the run in {folder} that process 0 has opened there, "
            "got none; all processes need the same folder, on a disk that they share."
        )
    if folder.exists() and not _is_vacant(folder):
        raise ValueError(
            f"Expected a new, an empty or a run's folder, got {folder}, which holds "
            "other files; choose another with --out."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        path, {**config, "versions": {name: version(name) for name in _PACKAGES}}
    )
    return folder


def read_json(path: str | os.PathLike[str]) -> Any:
    """What `write_json` wrote, or None if it is not there.

    Args:
        path: of the file.

    Returns:
        The value.

    Example:
        >>> read_json("no/such/file.json") is None
        True
    """
    path = Path(path)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a JSON file, whole or not at all.

    Args:
        path: of the file; its folder exists.
        value: dicts, lists, strings and numbers.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.json"
        >>> write_json(path, {"a": 1})
        >>> read_json(path)
        {'a': 1}
    """
    part = Path(f"{os.fspath(path)}.part")
    part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def _plain(value: Any) -> Any:
    # Through JSON, so that it compares with what was read back (tuples, lists).
    return json.loads(json.dumps(value))


def _is_vacant(folder: Path) -> bool:
    # A kill may have left half of a first file.
    return folder.is_dir() and all(p.suffix == ".part" for p in folder.iterdir())


def _read_config(path: Path) -> Mapping[str, Any]:
    try:
        config = read_json(path)
        return {
            "recipe": config["recipe"],
            "settings": dict(config["settings"]),
            "data": dict(config["data"]),
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"Expected the settings of a run in {path}, got a damaged file ({error}); "
            "choose another folder with --out."
        ) from error


def _check_same(
    folder: Path,
    found: Mapping[str, Any],
    wanted: Mapping[str, Any],
    defaults: Mapping[str, Any],
) -> None:
    if found["recipe"] != wanted["recipe"]:
        raise ValueError(
            f"Expected a run of recipe {wanted['recipe']} in {folder}, got one of "
            f"recipe {found['recipe']}; choose another folder with --out."
        )
    old, new = ({**c["settings"], **c["data"]} for c in (found, wanted))
    # A run of before a setting was there goes on: its default changes nothing.
    old = {**defaults, **old}
    differing = [
        f"{name} was {old.get(name)}, is {new.get(name)}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    if differing:
        raise ValueError(
            f"Expected the settings and data of the run in {folder}, got others "
            f"({'; '.join(differing)}); choose another folder with --out."
        )
