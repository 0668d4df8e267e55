"""Bundles on disk: a checked folder of plain arrays and JSON, no pickle."""

import os
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from metricjax import _sealed, encoders
from metricjax.bundle._bundle import Bundle, fingerprint, leaves, make
from metricjax.gallery import _files, _json

WEIGHTS = "weights.npz"


def save(folder: str | os.PathLike[str], bundle: Bundle) -> None:
    """Write a bundle, whole or not at all.

    Args:
        folder: a path that does not exist, an empty folder, or a bundle, which is
            replaced in one step.
        bundle: what to write.

    Raises:
        ValueError: if the folder holds something else, or the gallery is of another
            encoder; nothing is changed then.
        OSError: if it cannot be written; what was there before is still there.

    Example:
        >>> import tempfile
        >>> apply = lambda params, state, images, *, train, key=None: (params, state)
        >>> ready = make({}, {"w": np.ones(3)}, {}, image_shape=(2, 2, 1), apply=apply)
        >>> folder = tempfile.mkdtemp()
        >>> save(folder, ready)
        >>> load(folder, apply=apply).params
        {'w': array([1., 1., 1.])}
    """
    mark = fingerprint(bundle)
    if bundle.gallery is not None:
        _files.check_encoder(bundle.gallery, mark, "the bundle")
    arrays, records = {}, []
    for path, leaf in leaves({"params": bundle.params, "state": bundle.state}):
        leaf = np.ascontiguousarray(leaf)
        records.append({"path": path, "dtype": str(leaf.dtype)})
        arrays[str(len(arrays))] = _plain(leaf)
    content = {
        "fingerprint": mark,
        "architecture": bundle.architecture,
        "image_shape": bundle.image_shape,
        "weights": records,
        "trained_on": bundle.trained_on,
        "calibrated_on": bundle.calibrated_on,
        "calibration": None
        if bundle.calibration is None
        else _json.calibration_to_json(bundle.calibration),
    }
    files: dict[str, _sealed.Write] = {
        WEIGHTS: partial(np.savez, allow_pickle=False, **arrays)
    }
    if bundle.gallery is not None:
        files |= _files.files(bundle.gallery)
    _sealed.write(folder, kind="bundle", content=content, files=files)


def load(
    folder: str | os.PathLike[str], *, apply: encoders.Apply | None = None
) -> Bundle:
    """Read a bundle that is as it was written.

    Args:
        folder: that `save` wrote.
        apply: the encoder, for a bundle made with one of your own.

    Returns:
        The bundle.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if a file was changed or cut short, or this version of the library
            cannot build the encoder.

    Example:
        >>> load("no/such/folder")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: Expected a bundle in ...
    """
    sealed = _sealed.read(folder, kind="bundle")
    content = sealed.content
    tree: dict[str, Any] = {"params": {}, "state": {}}
    with np.load(sealed.files[WEIGHTS], allow_pickle=False) as arrays:
        for index, record in enumerate(content["weights"]):
            array = arrays[str(index)].view(jnp.dtype(record["dtype"]))
            _insert(tree, record["path"], array)
    bundle = make(
        content["architecture"],
        tree["params"],
        tree["state"],
        image_shape=content["image_shape"],
        apply=apply,
        trained_on=content["trained_on"],
    )
    gallery = None
    if _files.ARRAYS in sealed.files:
        gallery = _files.from_files(sealed, content["fingerprint"])
    found = content["calibration"]
    return bundle._replace(
        calibrated_on=tuple(content["calibrated_on"]),
        calibration=None if found is None else _json.calibration_from_json(found),
        gallery=gallery,
    )


def _plain(array: np.ndarray) -> np.ndarray:
    # bfloat16 and its kin are unknown to the .npz format: their bytes are stored.
    return array.view(f"u{array.dtype.itemsize}") if array.dtype.kind == "V" else array


def _insert(tree: dict[Any, Any], path: list[str | int], leaf: np.ndarray) -> None:
    *parents, last = path
    for key in parents:
        tree = tree.setdefault(key, {})
    tree[last] = leaf
