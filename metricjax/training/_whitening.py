"""An encoder whose embeddings are whitened by what its state holds.

The state is the identity in training. Afterwards a run fits it to the images that it
trained on, and leaves it in a file beside the checkpoints, which it is no part of.

Embeddings of several parts side by side (`views.joined`) are whitened part by part:
there are too few images to know how the parts vary together.
"""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from metricjax import encoders, whitening
from metricjax.training import finetune

FILE = "whitening.npz"
# Its place in the state, beside the batch statistics of the encoder's own layers.
_NAME = "whitening"


def added(model: encoders.Deferred, dim: int, *, parts: int = 1) -> encoders.Deferred:
    """The encoder with a whitening in its state; in training it does nothing."""

    def init(key: Array) -> tuple[Any, Any]:
        params, state = model.init(key)
        same = whitening.identity(dim)
        return params, with_whitening(
            state, same if parts == 1 else _stacked([same] * parts)
        )

    def apply(
        params: Any,
        state: Any,
        images: ArrayLike,
        *,
        train: bool,
        key: Array | None = None,
    ) -> tuple[Array, Any]:
        embeddings, own = model.apply(
            params, without_whitening(state), images, train=train, key=key
        )
        whitener = whitening.Whitening(**state[_NAME])
        if not train:
            embeddings = _whitened(whitener, embeddings)
        return embeddings, with_whitening(own, whitener)

    return encoders.Deferred(apply, init)


def _whitened(whitener: whitening.Whitening, embeddings: Array) -> Array:
    """`[n, parts * dim]` by a stack of whitenings, or `[n, dim]` by one."""
    if whitener.mean.ndim == 1:
        return whitening.apply(whitener, embeddings)
    # Not len(embeddings), which an exported program does not know.
    divided = embeddings.reshape(embeddings.shape[0], *whitener.mean.shape)
    by_part = jax.vmap(whitening.apply, in_axes=(0, 1), out_axes=1)
    return by_part(whitener, divided).reshape(embeddings.shape)


def _stacked(whiteners: Sequence[whitening.Whitening]) -> whitening.Whitening:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *whiteners)


def with_whitening(state: Any, whitener: whitening.Whitening) -> Any:
    """The encoder's state with this whitening, in place of another it may have."""
    return {**state, _NAME: whitener._asdict()}


def without_whitening(state: Any) -> Any:
    """The state of the encoder's own layers."""
    return {name: leaf for name, leaf in state.items() if name != _NAME}


def start_from(
    source: str, weights: tuple[Any, Any], *, fresh: Sequence[str]
) -> tuple[Any, Any]:
    """(params, state) filled from a source, which may be whitened or not."""
    params, state = weights
    trained, kept = finetune.load_params(source)
    params, own = finetune.load_params(
        (trained, without_whitening(kept)),
        (params, without_whitening(state)),
        fresh=fresh,
    )
    return params, {**state, **own}


def fitted(
    state: Any,
    embeddings: np.ndarray,
    labels: np.ndarray,
    *,
    shrinkage: float,
    total: float,
) -> Any:
    """The encoder's state with the whitening that training examples give."""

    def fit(part: np.ndarray) -> whitening.Whitening:
        return whitening.within_class(part, labels, shrinkage=shrinkage, total=total)

    *parts, dim = state[_NAME]["mean"].shape
    if not parts:
        return with_whitening(state, fit(embeddings))
    divided = embeddings.reshape(-1, *parts, dim)
    return with_whitening(
        state, _stacked([fit(part) for part in divided.swapaxes(0, 1)])
    )


def save(folder: Path, state: Any) -> None:
    """Leave that of a state in the folder of a split, whole or not at all."""
    part = folder / f"{FILE}.part"
    with part.open("wb") as file:
        np.savez(file, mean=state[_NAME]["mean"], matrix=state[_NAME]["matrix"])
    part.replace(folder / FILE)


def load(folder: str | os.PathLike[str]) -> whitening.Whitening:
    """What `save` left there.

    Raises:
        FileNotFoundError: if there is none, since the split is not finished.
        ValueError: if the file is damaged.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a finished split with its {FILE} in {folder}, got none; the "
            "command that started the run continues it."
        )
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return whitening.Whitening(
                jnp.asarray(arrays["mean"]), jnp.asarray(arrays["matrix"])
            )
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"Expected a whitening in {path}, got a damaged file ({error}); remove it "
            "and result.json beside it, and run the command again."
        ) from error
