"""An encoder for use without this library, its weights inside."""

import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export as jax_export
from jax.extend.core import jaxpr_as_fun

from metricjax.bundle._bundle import Bundle, leaves, unit_embeddings

PLATFORMS = ("cpu", "cuda", "tpu")


def export(
    bundle: Bundle, *, platforms: Sequence[str] = PLATFORMS
) -> jax_export.Exported:
    """The encoder as one StableHLO program, for any batch size, weights inside.

    It maps uint8 images `[batch, height, width, channels]` to float32 embeddings
    `[batch, dim]` of unit length. `export(bundle).serialize()` makes bytes, for which
    the package flatbuffers is needed; `jax.export.deserialize(data).call(images)` runs
    them, without metricjax and flax. JAX reads such bytes for at least six months after
    they were made: export again from the bundle, which has no such limit.

    An encoder of your own must take the batch size from `images.shape[0]`, not from
    `len(images)`: it is a symbol here.

    Args:
        bundle: the bundle.
        platforms: where the program is to run.

    Returns:
        The program; `export(bundle).mlir_module_serialized` is StableHLO alone.

    Example:
        >>> from metricjax import encoders
        >>> from metricjax.bundle import embedder, make
        >>> def apply(params, state, images, *, train, key=None):
        ...     return encoders.as_float(images).reshape(images.shape[0], -1), state
        >>> ready = make({}, {}, {}, image_shape=(2, 2, 1), apply=apply)
        >>> images = np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1)
        >>> program = export(ready, platforms=["cpu"])
        >>> bool(np.allclose(program.call(images), embedder(ready)(images)))
        True
    """
    program = jax.jit(_with_weights(bundle))
    exporter = jax_export.export(program, platforms=tuple(platforms))
    return exporter(_symbolic_images(bundle))


def save_onnx(path: str | os.PathLike[str], bundle: Bundle) -> None:
    """Write the encoder as an ONNX model for any batch size, weights inside.

    It maps what `export` maps.

    Args:
        path: of the file.
        bundle: the bundle.

    Raises:
        ImportError: if jax2onnx is missing.
        OSError: if the file cannot be written.
    """
    library = _import("jax2onnx", "onnx")
    images = _symbolic_images(bundle)
    # Traced by JAX first: jax2onnx replaces functions of flax by its own, which take
    # other arguments, but it knows all operations that are left after tracing.
    program = jaxpr_as_fun(jax.jit(_with_weights(bundle)).trace(images).jaxpr)
    model = library.to_onnx(lambda images: program(images)[0], inputs=[images])
    Path(path).write_bytes(model.SerializeToString())


def save_safetensors(path: str | os.PathLike[str], bundle: Bundle) -> None:
    """Write the weights as a .safetensors file, for other libraries.

    Arrays are named by their keys: `params/embedding/kernel`.

    Args:
        path: of the file.
        bundle: the bundle.

    Raises:
        ImportError: if safetensors is missing.
        OSError: if the file cannot be written.
    """
    library = _import("safetensors.numpy", "export")
    weights = {"params": bundle.params, "state": bundle.state}
    arrays = {
        "/".join(map(str, path)): np.ascontiguousarray(leaf)
        for path, leaf in leaves(weights)
    }
    Path(path).write_bytes(library.save(arrays))


def _with_weights(bundle: Bundle) -> Callable[[jax.Array], jax.Array]:
    encode = unit_embeddings(bundle.apply)
    return lambda images: encode(bundle.params, bundle.state, images)


def _symbolic_images(bundle: Bundle) -> jax.ShapeDtypeStruct:
    (batch,) = jax_export.symbolic_shape("batch")
    return jax.ShapeDtypeStruct((batch, *bundle.image_shape), np.uint8)


def _import(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"Expected the package {name.partition('.')[0]} for this kind of file; "
            f'install it with: pip install "metricjax[{extra}]"'
        ) from error
