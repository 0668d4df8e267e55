"""Class weights as what an example is compared with: one row a class, or several.

`[classes, dim]`, or `[classes, subcenters, dim]`, where a class is as near as the
nearest of its sub-centers.
"""

import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import _checks, numerics, similarities


def check_class_weights(embeddings: ArrayLike, class_weights: ArrayLike) -> None:
    """Raise unless both are float, of the right rank and of the same `dim`."""
    _checks.check_embeddings("embeddings", embeddings)
    if jnp.ndim(class_weights) not in (2, 3):
        raise ValueError(
            "Expected `class_weights` of shape [classes, dim], or [classes, "
            f"subcenters, dim], got {_checks.describe(class_weights)}; pass one row "
            "for each class, or one row for each sub-center of each class."
        )
    _checks.check_float("class_weights", class_weights)
    _checks.check_same_dim("embeddings", embeddings, "class_weights", class_weights)


def check(
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    labels: ArrayLike,
    where: ArrayLike | None,
) -> tuple[Array, Array]:
    """Checked embeddings as unit vectors, zero in padding; and labels as an array."""
    check_class_weights(embeddings, class_weights)
    _checks.check_labels("labels", labels, jnp.shape(embeddings)[0])
    x = numerics.l2_normalize(numerics.mask_rows(embeddings, where))
    return x, jnp.asarray(labels)


def unit_vectors(
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    labels: ArrayLike,
    where: ArrayLike | None,
) -> tuple[Array, Array, Array]:
    """The same with the class weights as unit vectors."""
    x, labels = check(embeddings, class_weights, labels, where)
    return x, numerics.l2_normalize(class_weights), labels


def known(labels: Array, classes: int, where: ArrayLike | None) -> Array:
    """Bool `[batch]`: the label is a class, and the row is not padding."""
    inside = (labels >= 0) & (labels < classes)
    return inside if where is None else inside & jnp.asarray(where)


def target_cosine(x: Array, w: Array, labels: Array) -> Array:
    """Cosine `[batch]` of unit vectors to their class; any class if there is none.

    Normalised after the choice, which costs the batch and not the classes.
    """
    own = numerics.l2_normalize(w.at[labels].get(mode="clip"))
    if w.ndim == 2:
        return jnp.sum(x * own, axis=1)
    return jnp.max(jnp.sum(x[:, None] * own, axis=2), axis=1)


def candidates(w: Array) -> tuple[Array, Partial]:
    """Class weights as `ref_embeddings [classes, dim]` and `measure` of the engine."""
    if w.ndim == 2:
        return w, Partial(similarities.dot)
    return w[:, 0], Partial(_nearest, others=w[:, 1:])


def _nearest(x: Array, first: Array, *, others: Array) -> Array:
    # One sub-center after the other: [b, classes, subcenters] would be a larger block.
    cosine = similarities.dot(x, first)
    for index in range(others.shape[1]):
        cosine = jnp.maximum(cosine, similarities.dot(x, others[:, index]))
    return cosine
