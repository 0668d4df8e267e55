"""Folders whose content is checked: written whole or not at all, read only if intact.

    folder/manifest.json                what it is, its version, its files, checksums
    folder/embeddings-1f0c9a....npz     a data file, named by its checksum

The manifest is replaced in one step and names the data files that belong to it, so
that a folder holds either its old or its new content at every moment. Checksums find
damage and careless editing; they are no signature, and do not stop a forger.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

MANIFEST = "manifest.json"
FORMAT = 1
_KEYS = {"kind", "format", "versions", "content", "files"}
_STORED = re.compile(r"[a-z]+-[0-9a-f]{16}(\.part)?\.[a-z]+")

Write = Callable[[BinaryIO], object]


class Sealed(NamedTuple):
    """What an intact folder holds.

    Attributes:
        content: the values of the manifest.
        files: the path of each data file, by its name.
        versions: of the packages that wrote it.
    """

    content: dict[str, Any]
    files: dict[str, Path]
    versions: dict[str, str]


def write(
    folder: str | os.PathLike[str],
    *,
    kind: str,
    content: Mapping[str, Any],
    files: Mapping[str, Write],
) -> None:
    """Write a folder, or replace what is in it, in one step.

    A new folder is filled beside its place and renamed. In an existing one the new
    data files are written beside the old ones, then the manifest is replaced, then
    the old ones go.

    Args:
        folder: a path that does not exist, an empty folder, or one of the same kind.
        kind: what the folder holds, in one word.
        content: dicts, lists, strings and numbers.
        files: what writes each data file, by name (`word.suffix`).

    Raises:
        ValueError: if the folder holds something else; nothing is changed then.
        OSError: if it cannot be written; what was there before is still there.
    """
    folder = Path(folder).absolute()
    if (folder / MANIFEST).is_file():
        _manifest(folder, kind)
        _fill(folder, kind, content, files)
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"Expected a new folder, an empty one or a {kind} in {folder}, got other "
            "files; choose another path."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.parent / f".metricjax-{secrets.token_hex(8)}"
    fresh.mkdir()
    try:
        _fill(fresh, kind, content, files)
        if folder.exists():
            folder.rmdir()
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def read(folder: str | os.PathLike[str], *, kind: str) -> Sealed:
    """Read the manifest of a folder and check every file of it.

    Args:
        folder: that `write` wrote.
        kind: the kind it has to be of.

    Returns:
        What it holds.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it is of another kind, was written by a newer version, or is
            not as it was written.
    """
    folder = Path(folder).absolute()
    manifest = _manifest(folder, kind)
    paths = {
        name: _intact(folder, kind, record)
        for name, record in manifest["files"].items()
    }
    return Sealed(manifest["content"], paths, manifest["versions"])


def _fill(
    folder: Path, kind: str, content: Mapping[str, Any], files: Mapping[str, Write]
) -> None:
    records, fresh = {}, []
    try:
        for name, write_file in files.items():
            records[name], new = _store(folder, name, write_file)
            fresh += [folder / records[name]["stored"]] if new else []
        body = {
            "kind": kind,
            "format": FORMAT,
            "versions": {name: version(name) for name in ("metricjax", "jax", "numpy")},
            "content": content,
            "files": records,
        }
        part = folder / f"{MANIFEST}.part"
        text = json.dumps({**body, "sha256": _seal(body)}, indent=1)
        _flush(part, lambda file: file.write(text.encode()))
        part.replace(folder / MANIFEST)
    except BaseException:
        for path in fresh:
            path.unlink(missing_ok=True)
        raise
    wanted = {record["stored"] for record in records.values()}
    for path in folder.iterdir():
        if _STORED.fullmatch(path.name) and path.name not in wanted:
            path.unlink()


def _store(folder: Path, name: str, write_file: Write) -> tuple[dict[str, Any], bool]:
    """Write one data file; its record, and whether it was not there before."""
    stem, suffix = name.split(".")
    part = folder / f"{stem}-{secrets.token_hex(8)}.part.{suffix}"
    try:
        _flush(part, write_file)
        digest = _sha256(part)
        record = {
            "stored": f"{stem}-{digest[:16]}.{suffix}",
            "sha256": digest,
            "bytes": part.stat().st_size,
        }
        place = folder / record["stored"]
        new = not place.exists()
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)
    return record, new


def _flush(path: Path, write_file: Write) -> None:
    # To the disk before it is named: a crash must not leave an empty file behind.
    with path.open("wb") as file:
        write_file(file)
        file.flush()
        os.fsync(file.fileno())


def _manifest(folder: Path, kind: str) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a {kind} in {folder}, got no {MANIFEST} there; check the path."
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        seal = manifest.pop("sha256")
        intact = seal == _seal(manifest) and manifest.keys() >= _KEYS
    # RecursionError: brackets nested thousands deep.
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(_damaged(kind, path)) from error
    if not intact:
        raise ValueError(_damaged(kind, path))
    if manifest["kind"] != kind:
        raise ValueError(f"Expected a {kind} in {folder}, got a {manifest['kind']}.")
    if manifest["format"] > FORMAT:
        raise ValueError(
            f"Expected a {kind} of format {FORMAT} or older in {folder}, got format "
            f"{manifest['format']}, written by metricjax "
            f"{manifest['versions']['metricjax']}; upgrade metricjax."
        )
    return manifest


def _intact(folder: Path, kind: str, record: Mapping[str, Any]) -> Path:
    path = folder / Path(record["stored"]).name
    if not path.is_file():
        raise ValueError(
            f"Expected the file {path.name} of the {kind} in {folder}, got none; the "
            f"{kind} is incomplete: copy it again or make it anew."
        )
    size, digest = path.stat().st_size, _sha256(path)
    if (size, digest) != (record["bytes"], record["sha256"]):
        cut = size < record["bytes"]
        raise ValueError(_damaged(kind, path, "cut short" if cut else "changed"))
    return path


def _damaged(kind: str, path: Path, how: str = "cut short or changed") -> str:
    return (
        f"Expected {path} as it was written, got a file that was {how} since (its "
        f"checksum differs); copy the {kind} again or make it anew."
    )


def _seal(body: Mapping[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
