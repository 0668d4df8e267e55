"""What a loss remembers from step to step: explicit state and pure updates.

State goes in and comes out; keep it beside the parameters, save it with them, and
update it after the gradient has been taken. No update is differentiated.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from metricjax import _checks, numerics
from metricjax._adaptation import (
    NormStatistics,
    init_adacos_scale,
    init_norm_statistics,
    update_adacos_scale,
    update_curriculum,
    update_norm_statistics,
)
from metricjax._queue import Queue, References, init_queue, push, references

__all__ = [
    "NormStatistics",
    "Queue",
    "References",
    "ema",
    "init_adacos_scale",
    "init_norm_statistics",
    "init_queue",
    "push",
    "references",
    "update_adacos_scale",
    "update_centers",
    "update_curriculum",
    "update_norm_statistics",
]


# --- class centers ------------------------------------------------------------------


def update_centers(
    centers: ArrayLike,
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    rate: ArrayLike = 0.5,
    where: ArrayLike | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> Array:
    """Move class centers towards the embeddings of a batch, for `losses.center`.

    `c_j <- c_j - a sum_{i: y_i = j} (c_j - x_i) / (1 + n_j)`, where `n_j` is the number
    of examples of class j in the batch. A class that is absent keeps its center; one
    with a single example goes half of `a` of the way, so that a stray example moves it
    little. Start from zeros, or from small random vectors.

    Args:
        centers: `[classes, dim]`.
        embeddings: `[batch, dim]`, as given to the loss; no gradient flows.
        labels: int `[batch]`; a value outside of [0, classes) moves nothing.
        rate: `a` in [0, 1].
        where: bool `[batch]`; False marks padding.
        axis_name: inside `jax.shard_map`, the mesh axis over which the batch is
            sharded; the centers are whole on every device, and stay alike.

    Returns:
        The new centers, of the shape and dtype of the old.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.array([[3.0], [6.0]]), jnp.array([0, 0])
        >>> update_centers(jnp.array([[0.0], [1.0]]), x, y).tolist()
        [[1.5], [1.0]]

    References:
        Wen et al., "A Discriminative Feature Learning Approach for Deep Face
        Recognition", ECCV 2016, eq. 4.
    """
    _checks.check_embeddings("centers", centers)
    _checks.check_embeddings("embeddings", embeddings)
    _checks.check_same_dim("embeddings", embeddings, "centers", centers)
    _checks.check_labels("labels", labels, jnp.shape(embeddings)[0])
    x = jax.lax.stop_gradient(numerics.mask_rows(embeddings, where))
    old = jax.lax.stop_gradient(numerics.promote(centers))
    labels, classes = jnp.asarray(labels), old.shape[0]
    known = (labels >= 0) & (labels < classes)
    if where is not None:
        known = known & jnp.asarray(where)
    # An index behind the last is dropped; a negative one would count from the end.
    index = jnp.where(known, labels, classes)
    gaps = old.at[index].get(mode="clip") - x
    pull = jnp.zeros_like(old).at[index].add(gaps.astype(old.dtype), mode="drop")
    count = jnp.zeros(classes, old.dtype).at[index].add(1.0, mode="drop")
    if axis_name is not None:
        pull, count = jax.lax.psum((pull, count), axis_name)
    new = old - rate * pull / (1.0 + count)[:, None]
    return new.astype(jnp.result_type(centers))


# --- a teacher ----------------------------------------------------------------------


def ema(teacher: Any, student: Any, *, decay: ArrayLike = 0.999) -> Any:
    """A teacher that follows the student slowly: `t <- d t + (1 - d) s`.

    Keep the teacher in float32: in bfloat16 a step of a thousandth is rounded away.

    Args:
        teacher: parameters, a pytree; a copy of the student's at the start.
        student: parameters of the same structure; no gradient flows.
        decay: `d`; 0.999 in MoCo. Towards one it is slower.

    Returns:
        The new teacher, in its dtypes. What is not floating (a count, a key) is the
        student's.

    Raises:
        ValueError: if the structures differ.

    Example:
        >>> float(ema({"w": jnp.array(1.0)}, {"w": jnp.array(3.0)}, decay=0.75)["w"])
        1.5

    References:
        He et al., "Momentum Contrast for Unsupervised Visual Representation Learning",
        CVPR 2020, arXiv:1911.05722, eq. 2.
    """

    def move(old: ArrayLike, new: ArrayLike) -> Array:
        if not jnp.issubdtype(jnp.result_type(old), jnp.floating):
            return jnp.asarray(new)
        moved = decay * numerics.promote(old) + (1.0 - decay) * numerics.promote(new)
        return jnp.asarray(moved, jnp.result_type(old))

    return jax.lax.stop_gradient(jax.tree.map(move, teacher, student))
