"""Embed images in batches, and measure how well embeddings tell classes apart."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from metricjax import encoders, similarities
from metricjax.data import deferred
from metricjax.metrics import retrieval, verification
from metricjax.training import inputs

__all__ = ["METRICS", "embedder", "raw_pixels", "scores"]

Embed = Callable[[Any, Any, np.ndarray], np.ndarray]
Similarity = Callable[[Any, Any], jax.Array]

METRICS = {
    "recall_at_1": "Recall@1",
    "r_precision": "R-precision",
    "map_at_r": "MAP@R",
    "eer": "EER",
    "auc": "AUC",
}
"""Names of the measured values and how they are written in tables."""


def embedder(apply: encoders.Apply, *, batch: int = 256) -> Embed:
    """Compile an encoder for the evaluation of any number of images.

    The last batch is padded, so that there is one program for all of them; images that
    are not in memory are read while those before are encoded.

    Args:
        apply: the encoder, see `metricjax.encoders.functional`.
        batch: images encoded at once.

    Returns:
        `(params, state, images) -> embeddings [n, dim]`, where the parameters are the
        encoder's own; images and embeddings are NumPy arrays.

    Example:
        >>> def apply(params, state, images, *, train, key=None):
        ...     return images.reshape(len(images), -1) * params, state
        >>> embed = embedder(apply, batch=4)
        >>> embed(2.0, {}, np.ones((6, 2, 2, 1), np.float32)).shape
        (6, 4)
    """

    @jax.jit
    def encode(params: Any, state: Any, images: jax.Array) -> jax.Array:
        return apply(params, state, images, train=False)[0]

    def embed(params: Any, state: Any, images: np.ndarray) -> np.ndarray:
        def cut(number: int) -> np.ndarray:
            return images[number * batch : (number + 1) * batch]

        count, parts = -(-len(images) // batch), []
        is_read_late = isinstance(images, deferred.Rows)
        take = inputs.ahead(cut, steps=count) if is_read_late else cut
        for number in range(count):
            part = take(number)
            missing = [(0, batch - len(part))] + [(0, 0)] * (part.ndim - 1)
            padded = np.pad(part, missing)
            parts.append(np.asarray(encode(params, state, padded))[: len(part)])
        return np.concatenate(parts)

    return embed


def raw_pixels(images: np.ndarray) -> np.ndarray:
    """The baseline embedding: the pixels themselves.

    Args:
        images: `[n, height, width, channels]`, uint8 or floating.

    Returns:
        `[n, height * width * channels]` float32 in 0..1.

    Example:
        >>> raw_pixels(np.full((2, 4, 4, 1), 255, np.uint8)).shape
        (2, 16)
    """
    return np.asarray(encoders.as_float(images)).reshape(len(images), -1)


def scores(
    embeddings: np.ndarray,
    labels: np.ndarray,
    *,
    similarity: Similarity = similarities.cosine,
) -> dict[str, float]:
    """Every image against every other.

    Args:
        embeddings: `[n, dim]`.
        labels: `[n]` int, at least two classes.
        similarity: `(x [n, dim], y [m, dim]) -> [n, m]`, larger is closer.

    Returns:
        The values named in `METRICS`.

    Raises:
        ValueError: if there is no pair of one class, or none of two classes.

    Example:
        >>> x = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]], np.float32)
        >>> scores(x, np.array([0, 0, 1, 1]))["recall_at_1"]
        1.0
    """
    ranked = retrieval.evaluate(embeddings, labels, ks=(1,), similarity=similarity)
    curve = verification.roc_of_embeddings(embeddings, labels, similarity=similarity)
    return {
        "recall_at_1": float(ranked.recall_at_k[0]),
        "r_precision": float(ranked.r_precision),
        "map_at_r": float(ranked.map_at_r),
        "eer": float(verification.eer(curve).rate),
        "auc": float(verification.auc(curve)),
    }
