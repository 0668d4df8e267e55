"""Center loss: an example is drawn to the center of its class.

The centers are state, not parameters: `memory.update_centers` moves them.
"""

from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from metricjax import _checks, numerics, reductions, rows, similarities
from metricjax.losses._classification import ClassOptions
from metricjax.reductions import Reduction, Terms


def center(
    embeddings: ArrayLike,
    centers: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction | None = reductions.mean,
    axis_name: rows.Axis | None = None,
) -> Any:
    """Center loss: half the squared distance to the center of the class.

    `||x_i - c_{y_i}||^2 / 2`. No gradient flows to the centers: after each step move
    them with `memory.update_centers`. It needs a loss beside it that keeps classes
    apart, see `center_softmax`; beside a loss that normalises the embeddings, pass
    normalised ones here too, else all shrink to nothing.

    Args:
        embeddings: `[batch, dim]`; not normalised inside.
        centers: `[classes, dim]`; constants.
        labels: int `[batch]` in [0, classes). Another value is no class: its example
            costs nothing and is not counted.
        where: bool `[batch]`; False marks padding.
        weights: float `[batch]`; importance of each example, a constant.
        reduction: of `Terms`, whose terms are examples; all are active. The paper adds
            over the batch, this loss and the softmax alike, where the authors' code
            takes the means of both; so does this.
        axis_name: inside `jax.shard_map`, the mesh axis over which the batch is
            sharded; the centers are whole on every device.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.array([[1.0, 2.0], [0.0, 0.0]]), jnp.array([1, 0])
        >>> centers = jnp.array([[0.0, 0.0], [1.0, 0.0]])
        >>> float(center(x, centers, y))
        1.0

    References:
        Wen et al., "A Discriminative Feature Learning Approach for Deep Face
        Recognition", ECCV 2016, eq. 2.
    """
    _check("centers", embeddings, centers, labels)
    x = numerics.mask_rows(embeddings, where)
    known = _known(labels, centers)
    if where is not None:
        known = known & jnp.asarray(where)
    weight = known.astype(x.dtype)
    if weights is not None:
        _checks.check_shape(
            "weights", weights, known.shape, "one weight for each example"
        )
        weight = weight * jax.lax.stop_gradient(numerics.promote(weights))
    terms = Terms(weight * _costs(x, centers, labels), weight, weight)
    return rows.reduce(terms, reduction, axis_name=axis_name)


def center_softmax(
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    centers: ArrayLike,
    labels: ArrayLike,
    *,
    center_weight: ArrayLike = 0.003,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[ClassOptions],
) -> Any:
    """Softmax cross-entropy and center loss together, on embeddings of any length.

    `-log softmax_y(w_j . x) + l ||x - c_y||^2 / 2`. The softmax is plain, neither side
    is normalised: separating classes wants long embeddings, which the center loss
    shortens. For a bias append a constant to the embeddings for the softmax, and add
    `center` to it yourself. One step:

        loss, gradient = jax.value_and_grad(loss_of)(params, centers, ...)
        centers = memory.update_centers(centers, embeddings, labels)

    Args:
        embeddings: `[batch, dim]`; not normalised inside.
        class_weights: `[classes, dim]`; not normalised inside.
        centers: `[classes, dim]`; constants, see `center`.
        labels: int `[batch]`; see `center`.
        center_weight: `l`. 0.003 is the paper's for faces; a two-dimensional embedding
            of digits bears 0.07.
        reduction: of `Terms`, whose terms are examples; active are those for which
            another class has at least the logit of the true one.
        **options: see `ClassOptions`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.array([[1.0, 0.5]]), jnp.array([0])
        >>> round(float(center_softmax(x, jnp.eye(2), jnp.zeros((2, 2)), y)), 4)
        0.476

    References:
        Wen et al., "A Discriminative Feature Learning Approach for Deep Face
        Recognition", ECCV 2016, eq. 5.
    """
    _check("class_weights", embeddings, class_weights, labels)
    _check("centers", embeddings, centers, labels)
    _checks.check_shape(
        "centers", centers, jnp.shape(class_weights), "one center for each class"
    )
    x = numerics.mask_rows(embeddings, options.get("where"))
    classes = jnp.arange(jnp.shape(class_weights)[0], dtype=jnp.result_type(labels))
    return rows.apply(
        _softmax_row,
        x,
        labels,
        measure=similarities.dot,
        reduction=reduction,
        per_anchor=center_weight * _costs(x, centers, labels),
        ref_embeddings=class_weights,
        ref_labels=classes,
        **options,
    )


def _check(
    name: str, embeddings: ArrayLike, vectors: ArrayLike, labels: ArrayLike
) -> None:
    _checks.check_embeddings("embeddings", embeddings)
    _checks.check_embeddings(name, vectors)
    _checks.check_same_dim("embeddings", embeddings, name, vectors)
    _checks.check_labels("labels", labels, jnp.shape(embeddings)[0])


def _known(labels: ArrayLike, centers: ArrayLike) -> Array:
    labels = jnp.asarray(labels)
    return (labels >= 0) & (labels < jnp.shape(centers)[0])


def _costs(x: Array, centers: ArrayLike, labels: ArrayLike) -> Array:
    """`||x - c_y||^2 / 2`; 0 where there is no such center."""
    own = numerics.promote(jax.lax.stop_gradient(jnp.asarray(centers)))
    own = own.at[jnp.asarray(labels)].get(mode="clip")
    gap = jnp.where(_known(labels, centers)[:, None], x - own, 0.0)
    return jnp.sum(jnp.square(gap), axis=1) / 2.0


def _softmax_row(
    logits: Array, positive: Array, negative: Array, center_cost: Array
) -> Terms:
    known = jnp.any(positive, axis=1)
    hit = jnp.sum(jnp.where(positive, logits, 0.0), axis=1)
    cost = jax.nn.logsumexp(logits, axis=1) - hit + center_cost
    wrong = jnp.any(negative & (logits >= hit[:, None]), axis=1)
    return Terms(
        jnp.where(known, cost, 0.0),
        known.astype(logits.dtype),
        (known & wrong).astype(logits.dtype),
    )
