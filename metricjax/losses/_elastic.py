"""Margin softmax with a random margin for each example: ElasticFace."""

from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import _class_blocks, _classes, margins, reductions
from metricjax.losses._classification import (
    SoftmaxOptions,
    class_log_weights_of,
    margin_softmax,
)
from metricjax.reductions import Reduction


def elastic_arcface(
    key: Array,
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 0.5,
    std: ArrayLike = 0.05,
    plus: bool = False,
    scale: ArrayLike = 64.0,
    fallback: margins.Fallback = margins.safe,
    label_smoothing: ArrayLike = 0.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[SoftmaxOptions],
) -> Any:
    """ElasticFace-Arc: ArcFace with a normally distributed margin for each example.

    `m_i ~ N(m, sigma)`, drawn from the key and the place of the example in the batch,
    so that the number of devices changes nothing. The authors' code has no fallback.

    Args:
        key: a typed random key, another one at each step.
        embeddings: `[batch, dim]`; normalised inside.
        class_weights: `[classes, dim]`; see `margin_softmax`.
        labels: int `[batch]`; see `margin_softmax`.
        margin: `m` in radians, the mean.
        std: `sigma`; 0.05, and 0.0175 with `plus`.
        plus: ElasticFace+: whether the margins of a batch are dealt out in order, the
            largest to the example farthest from its class. The authors' code means
            this, but permutes by the order in the place of the rank. Static.
        scale: `s`.
        fallback: see `arcface`.
        label_smoothing: see `margin_softmax`.
        reduction: see `margin_softmax`.
        **options: see `SoftmaxOptions`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, w, y = jnp.array([[1.0, 0.5]]), jnp.eye(2), jnp.array([0])
        >>> loss = elastic_arcface(jax.random.key(0), x, w, y, scale=10.0, std=0.0)
        >>> round(float(loss), 4)
        0.2557

    References:
        Boutros et al., "ElasticFace: Elastic Margin Loss for Deep Face Recognition",
        CVPR Workshops 2022, arXiv:2109.09416.
    """
    elastic = _elastic(
        Partial(margins.arcface, fallback=fallback),
        key,
        *(embeddings, class_weights, labels, margin, std, plus),
        options,
    )
    return margin_softmax(
        embeddings,
        class_weights,
        labels,
        margin=elastic,
        scale=scale,
        label_smoothing=label_smoothing,
        reduction=reduction,
        **options,
    )


def elastic_cosface(
    key: Array,
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 0.35,
    std: ArrayLike = 0.05,
    plus: bool = False,
    scale: ArrayLike = 64.0,
    label_smoothing: ArrayLike = 0.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[SoftmaxOptions],
) -> Any:
    """ElasticFace-Cos: CosFace with a normally distributed margin for each example.

    `m_i ~ N(m, sigma)`; see `elastic_arcface`.

    Args:
        key: a typed random key, another one at each step.
        embeddings: `[batch, dim]`; normalised inside.
        class_weights: `[classes, dim]`; see `margin_softmax`.
        labels: int `[batch]`; see `margin_softmax`.
        margin: `m`, the mean, in units of the cosine.
        std: `sigma`; 0.05, and 0.02 with `plus`.
        plus: see `elastic_arcface`. Static.
        scale: `s`.
        label_smoothing: see `margin_softmax`.
        reduction: see `margin_softmax`.
        **options: see `SoftmaxOptions`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, w, y = jnp.array([[1.0, 0.5]]), jnp.eye(2), jnp.array([0])
        >>> loss = elastic_cosface(jax.random.key(0), x, w, y, scale=10.0, std=0.0)
        >>> round(float(loss), 4)
        0.3208

    References:
        Boutros et al., "ElasticFace: Elastic Margin Loss for Deep Face Recognition",
        CVPR Workshops 2022, arXiv:2109.09416.
    """
    elastic = _elastic(
        Partial(margins.cosface),
        key,
        *(embeddings, class_weights, labels, margin, std, plus),
        options,
    )
    return margin_softmax(
        embeddings,
        class_weights,
        labels,
        margin=elastic,
        scale=scale,
        label_smoothing=label_smoothing,
        reduction=reduction,
        **options,
    )


def _elastic(
    function: Partial,
    key: Array,
    embeddings: ArrayLike,
    class_weights: ArrayLike,
    labels: ArrayLike,
    margin: ArrayLike,
    std: ArrayLike,
    plus: bool,
    options: SoftmaxOptions,
) -> Partial:
    """The margin `function`, its parameter drawn anew for each example."""
    where, axis_name = options.get("where"), options.get("axis_name")
    x, w, labels = _classes.unit_vectors(embeddings, class_weights, labels, where)
    size = x.shape[0]
    first = 0 if axis_name is None else size * jax.lax.axis_index(axis_name)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(size) + first)
    draws = jax.vmap(lambda k: jax.random.normal(k, (), x.dtype))(keys)
    if plus:
        axes = {"axis_name": axis_name, "class_axis": options.get("class_axis")}
        cosine = _class_blocks.target_cosine(x, w, labels, **axes)
        log_weights = class_log_weights_of(options.get("class_log_weights"), w)
        known = _class_blocks.known(labels, w.shape[0], where, log_weights, **axes)
        ranked = (draws, jax.lax.stop_gradient(cosine), known)
        if axis_name is not None:
            ranked = jax.lax.all_gather(ranked, axis_name, tiled=True)
        draws = jax.lax.dynamic_slice_in_dim(_largest_to_farthest(*ranked), first, size)
    return Partial(function, margin=margin + std * draws)


def _largest_to_farthest(draws: Array, cosine: Array, used: Array) -> Array:
    """The draws of the rows in use, permuted to fall with the cosine."""
    nearest_first = jnp.argsort(jnp.where(used, -cosine, jnp.inf))
    smallest_first = jnp.sort(jnp.where(used, draws, jnp.inf))
    dealt = jnp.zeros_like(draws).at[nearest_first].set(smallest_first)
    return jnp.where(used, dealt, 0.0)
