"""The bundle: an encoder, and what has been found out about it."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from metricjax import encoders, numerics
from metricjax.bundle._architecture import build
from metricjax.gallery import Calibration, Gallery

Tree = Any  # a nested dict of arrays
Embed = Callable[[np.ndarray], np.ndarray]

BATCH = 256


class Bundle(NamedTuple):
    """An encoder ready for use. Change parts with `_replace`.

    Attributes:
        apply: see `metricjax.encoders.Apply`.
        params: its parameters, NumPy arrays.
        state: its state, NumPy arrays.
        image_shape: `(height, width, channels)` of the images it takes.
        architecture: its description, from which `load` builds `apply`; see `make`.
        trained_on: names of the identities that it was trained on.
        calibrated_on: names of the identities of the calibration.
        calibration: from `metricjax.gallery.calibrate`, or None.
        gallery: of embeddings of this encoder, or None.
    """

    apply: encoders.Apply
    params: Tree
    state: Tree
    image_shape: tuple[int, int, int]
    architecture: Mapping[str, Any]
    trained_on: tuple[str, ...] = ()
    calibrated_on: tuple[str, ...] = ()
    calibration: Calibration | None = None
    gallery: Gallery | None = None


def make(
    architecture: Mapping[str, Any],
    params: Tree,
    state: Tree,
    *,
    image_shape: Sequence[int],
    apply: encoders.Apply | None = None,
    trained_on: Sequence[str] = (),
) -> Bundle:
    """A bundle of an encoder and its weights.

    Args:
        architecture: `{"encoder": NAME, "arguments": {...}}` for an encoder of
            `metricjax.encoders`; `{"recipe": NAME, "settings": {...}, "classes":
            COUNT}` for that of a training recipe; anything, if `apply` is given.
        params: the encoder's parameters, a nested dict of arrays.
        state: its state, a nested dict of arrays.
        image_shape: `(height, width, channels)` of its images, 1 or 3 channels.
        apply: an encoder of your own. It is not stored: pass it to `load` again.
        trained_on: names of the identities that it was trained on; `calibrate` and
            `evaluate` of the command line refuse these.

    Returns:
        The bundle, without calibration and gallery.

    Raises:
        ValueError: if the architecture is unknown, or the weights or the images do not
            fit it.

    Example:
        >>> from flax import nnx
        >>> arguments = {"image_shape": [8, 8, 1], "hidden": [16], "dim": 4}
        >>> model = encoders.MLP(**arguments, rngs=nnx.Rngs(0))
        >>> _, params, state = encoders.functional(model)
        >>> architecture = {"encoder": "MLP", "arguments": arguments}
        >>> ready = make(architecture, params, state, image_shape=(8, 8, 1))
        >>> embedder(ready)(np.ones((3, 8, 8, 1), np.uint8)).shape
        (3, 4)
    """
    shape = tuple(int(size) for size in image_shape)
    if len(shape) != 3 or min(shape) < 1 or shape[2] not in (1, 3):
        raise ValueError(
            "Expected `image_shape` (height, width, channels) with 1 or 3 channels, "
            f"got {tuple(image_shape)}."
        )
    # Copied to plain NumPy, and through JSON, so that what is used is what is saved.
    params, state = jax.tree.map(np.asarray, (params, state))
    architecture = json.loads(json.dumps(architecture))
    if apply is None:
        built = build(architecture, shape)
        _check_fits("params", params, built.params)
        _check_fits("state", state, built.state)
        apply = built.apply
    return Bundle(apply, params, state, shape, architecture, tuple(trained_on))


def _check_fits(name: str, tree: Tree, wanted: Tree) -> None:
    got = {path: leaf.shape for path, leaf in leaves(tree)}
    expected = {path: leaf.shape for path, leaf in leaves(wanted)}
    for path in sorted(got.keys() | expected.keys(), key=str):
        if got.get(path) != expected.get(path):
            raise ValueError(
                f"Expected `{name}` that fit the architecture: "
                f"{'/'.join(map(str, path))} of shape {expected.get(path)}, got "
                f"{got.get(path)}."
            )


def leaves(tree: Tree) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every array of a nested dict, with its keys."""
    for path, leaf in jax.tree.leaves_with_path(tree):
        if not all(isinstance(key, jax.tree_util.DictKey) for key in path):
            raise ValueError(
                "Expected weights in nested dicts, got "
                f"{jax.tree_util.keystr(path)}; see metricjax.encoders.functional."
            )
        yield tuple(key.key for key in path), leaf


def fingerprint(bundle: Bundle) -> str:
    """What tells two encoders apart: a checksum of weights and architecture.

    Args:
        bundle: the bundle.

    Returns:
        64 hexadecimal digits, to be passed to `metricjax.gallery.enroll`.

    Example:
        >>> apply = lambda params, state, images, *, train, key=None: (params, state)
        >>> ready = make({}, np.ones(3), {}, image_shape=(2, 2, 1), apply=apply)
        >>> other = ready._replace(params=np.zeros(3))
        >>> len(fingerprint(ready)), fingerprint(ready) == fingerprint(other)
        (64, False)
    """
    digest = hashlib.sha256()
    about = [bundle.architecture, bundle.image_shape]
    digest.update(json.dumps(about, sort_keys=True).encode())
    for path, leaf in leaves({"params": bundle.params, "state": bundle.state}):
        array = np.asarray(leaf)
        digest.update(json.dumps([path, str(array.dtype), array.shape]).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def embedder(bundle: Bundle) -> Embed:
    """Compile the encoder for any number of images.

    Batches are filled up to 1, 4, 16, 64 or 256 images, so that few programs serve all
    numbers. The weights are put on the device once.

    Args:
        bundle: the bundle.

    Returns:
        `images -> embeddings`: uint8 `[n, height, width, channels]` to float32
        `[n, dim]`, unit vectors; NumPy arrays. A zero embedding stays zero.

    Example:
        >>> def apply(params, state, images, *, train, key=None):
        ...     return encoders.as_float(images).reshape(images.shape[0], -1), state
        >>> ready = make({}, {}, {}, image_shape=(1, 2, 1), apply=apply)
        >>> embedder(ready)(np.array([[[[3], [4]]]], np.uint8)).round(4).tolist()
        [[0.6000000238418579, 0.800000011920929]]
    """
    encode = jax.jit(unit_embeddings(bundle.apply))
    weights = jax.device_put((bundle.params, bundle.state))

    def embed(images: np.ndarray) -> np.ndarray:
        check_images(images, bundle.image_shape)
        parts = []
        for start in range(0, len(images), BATCH):
            part = images[start : start + BATCH]
            size = next(4**i for i in range(5) if 4**i >= len(part))
            filled = np.pad(part, [(0, size - len(part))] + [(0, 0)] * 3)
            parts.append(np.asarray(encode(*weights, filled))[: len(part)])
        if not parts:
            images_shape = jax.ShapeDtypeStruct((1, *bundle.image_shape), np.uint8)
            dim = jax.eval_shape(encode, *weights, images_shape).shape[1]
            return np.zeros((0, dim), np.float32)
        return np.concatenate(parts)

    return embed


def unit_embeddings(apply: encoders.Apply) -> Callable[..., jax.Array]:
    """`(params, state, images) -> embeddings`, in float32 and of unit length."""

    def encode(params: Tree, state: Tree, images: jax.Array) -> jax.Array:
        embeddings = apply(params, state, images, train=False)[0]
        return numerics.l2_normalize(embeddings).astype(np.float32)

    return encode


def check_images(images: np.ndarray, image_shape: tuple[int, int, int]) -> None:
    """Raise unless images are uint8 and of the bundle's shape."""
    if images.dtype != np.uint8 or images.shape[1:] != image_shape:
        raise ValueError(
            f"Expected images uint8 [n, {', '.join(map(str, image_shape))}], got "
            f"{images.dtype} {list(images.shape)}; resize and convert them, or read "
            "files with `read_image`."
        )
