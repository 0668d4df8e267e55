"""A queue of embeddings as state; seen through `metricjax.memory`."""

from typing import NamedTuple, TypedDict

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from metricjax import _checks, _collect, numerics

Axis = str | tuple[str, ...]


class Queue(NamedTuple):
    """The last embeddings that were pushed, in a ring.

    Attributes:
        embeddings: `[size, dim]`.
        labels: int32 `[size]`.
        ids: int32 `[size]`, which item each row is.
        where: bool `[size]`; False marks rows that nothing has been pushed to yet.
        next: int32 scalar, the row that the next embedding goes to, the oldest.
    """

    embeddings: Array
    labels: Array
    ids: Array
    where: Array
    next: Array


class References(TypedDict):
    """A queue as the options of a loss.

    Attributes:
        ref_embeddings: `[size, dim]`.
        ref_labels: int32 `[size]`.
        ref_where: bool `[size]`.
        ref_ids: int32 `[size]`.
    """

    ref_embeddings: Array
    ref_labels: Array
    ref_where: Array
    ref_ids: Array


def init_queue(size: int, dim: int, *, dtype: DTypeLike = jnp.float32) -> Queue:
    """An empty queue of embeddings, for cross-batch memory or MoCo.

    Its rows are marked as empty, so that a loss may use it from the first step: there
    is no warm-up. XBM's authors train some steps without it, until embeddings move
    slowly.

    Args:
        size: number of embeddings it holds.
        dim: of the embeddings.
        dtype: of the embeddings; bfloat16 halves the memory.

    Returns:
        `Queue`.

    Raises:
        ValueError: if a size is not a positive integer.

    Example:
        >>> queue = init_queue(4, 2)
        >>> queue.embeddings.shape, bool(queue.where.any())
        ((4, 2), False)

    References:
        Wang et al., "Cross-Batch Memory for Embedding Learning", CVPR 2020,
        arXiv:1912.06798; He et al., "Momentum Contrast for Unsupervised Visual
        Representation Learning", CVPR 2020, arXiv:1911.05722.
    """
    _checks.check_positive_int("size", size, "pass how many embeddings to hold")
    _checks.check_positive_int("dim", dim, "pass the size of the embeddings")
    # Each leaf has its own buffer: a training step donates them all.
    return Queue(
        jnp.zeros((size, dim), dtype),
        jnp.full(size, -1, jnp.int32),
        jnp.full(size, -1, jnp.int32),
        jnp.zeros(size, bool),
        jnp.zeros((), jnp.int32),
    )


def push(
    queue: Queue,
    embeddings: ArrayLike,
    labels: ArrayLike,
    ids: ArrayLike,
    *,
    where: ArrayLike | None = None,
    axis_name: Axis | None = None,
) -> Queue:
    """The queue with a batch in the place of its oldest rows.

    For cross-batch memory push the batch of this step, before the loss or after it;
    with the ids no example is its own candidate, nor is an older embedding of it:

        queue = push(queue, x, labels, ids)
        loss = losses.contrastive(x, labels) + losses.contrastive(
            x, labels, ids=ids, **references(queue)
        )

    For MoCo push the keys, embeddings by the teacher (`ema`), with their ids as labels.
    The candidates of a query are then its own key and those of other images:

        queue = push(queue, keys, ids, ids)
        loss = losses.ntxent(
            x, ids, ref_embeddings=queue.embeddings, ref_labels=queue.labels,
            ref_where=queue.where,
        )

    Args:
        queue: the old one.
        embeddings: `[batch, dim]`, as the loss is to see them; no gradient flows. Of a
            batch larger than the queue the last rows stay.
        labels: int `[batch]`.
        ids: int `[batch]`, which item each row is: its place in the data set.
        where: bool `[batch]`; False marks padding, which is not pushed.
        axis_name: inside `jax.shard_map`, the mesh axis over which the batch is
            sharded. The queue is whole on every device, and stays alike.

    Returns:
        The new queue.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> queue = init_queue(3, 1)
        >>> for i in range(2):
        ...     x, ids = jnp.full((2, 1), i + 1.0), jnp.arange(2) + 2 * i
        ...     queue = push(queue, x, jnp.array([0, 1]), ids)
        >>> queue.ids.tolist(), int(queue.next)
        ([3, 1, 2], 1)

    References:
        Wang et al., "Cross-Batch Memory for Embedding Learning", CVPR 2020,
        arXiv:1912.06798, algorithm 1; He et al., "Momentum Contrast for Unsupervised
        Visual Representation Learning", CVPR 2020, arXiv:1911.05722, algorithm 1.
    """
    _check(queue, embeddings, labels, ids, where)
    # Padding may hold anything; it is not pushed, but it is sent.
    x = jax.lax.stop_gradient(numerics.mask_rows(embeddings, where))
    real = jnp.ones(x.shape[0], bool) if where is None else jnp.asarray(where)
    new = (
        x.astype(queue.embeddings.dtype),
        jnp.asarray(labels).astype(jnp.int32),
        jnp.asarray(ids).astype(jnp.int32),
        real,
    )
    new = _collect.whole(new, axis_name)
    size, real = queue.labels.shape[0], new[3]
    order = jnp.cumsum(real, dtype=jnp.int32)
    count = order[-1]
    stays = real & (order > count - size)
    # A row that does not stay goes behind the last one, where it is dropped.
    place = jnp.where(stays, (queue.next + order - 1) % size, size)
    rows = [
        old.at[place].set(values, mode="drop")
        for old, values in zip(queue[:4], new, strict=True)
    ]
    return Queue(*rows, next=(queue.next + count) % size)


def references(queue: Queue) -> References:
    """A queue as the candidates of a pair loss: `loss(..., ids=, **references(queue))`.

    Args:
        queue: see `push`.

    Returns:
        A dict of `ref_embeddings`, `ref_labels`, `ref_where` and `ref_ids`. Give `ids`
        too: without them no row is known to be the example itself.

    Example:
        >>> sorted(references(init_queue(4, 2)))
        ['ref_embeddings', 'ref_ids', 'ref_labels', 'ref_where']
    """
    return References(
        ref_embeddings=queue.embeddings,
        ref_labels=queue.labels,
        ref_where=queue.where,
        ref_ids=queue.ids,
    )


def _check(
    queue: Queue,
    embeddings: ArrayLike,
    labels: ArrayLike,
    ids: ArrayLike,
    where: ArrayLike | None,
) -> None:
    _checks.check_embeddings("embeddings", embeddings)
    _checks.check_same_dim(
        "embeddings", embeddings, "queue.embeddings", queue.embeddings
    )
    size = jnp.shape(embeddings)[0]
    _checks.check_labels("labels", labels, size)
    _checks.check_labels("ids", ids, size)
    if where is not None:
        _checks.check_mask("where", where, (size,))
