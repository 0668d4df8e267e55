"""Health of an embedding: is it still using its space?

Cheap enough for every evaluation of a training loop, and without labels but for
`alignment`. A collapsed encoder has a mean cosine near 1, uniformity near 0 and an
effective rank near 1.

References:
    Wang & Isola, "Understanding Contrastive Representation Learning through Alignment
    and Uniformity on the Hypersphere", ICML 2020, arXiv:2005.10242. Roy & Vetterli,
    "The Effective Rank: A Measure of Effective Dimensionality", EUSIPCO 2007.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from metricjax import _checks, numerics

__all__ = [
    "alignment",
    "collapse_warning",
    "effective_rank",
    "mean_cosine",
    "uniformity",
]

# Beyond these, fresh and trained encoders that work have not been seen.
POINT = 0.999  # mean cosine between items
LINE = 1.1  # effective rank


def alignment(embeddings: ArrayLike, labels: ArrayLike) -> Array:
    """Mean squared distance of the unit vectors of positive pairs.

    `E ||x - y||^2` over all pairs of one class. Computed from class means, without
    forming pairs.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        labels: `[batch]` int; a negative label is in no pair.

    Returns:
        A scalar in [0, 4]; smaller is better; NaN if there is no positive pair.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
        >>> float(alignment(x, jnp.array([0, 0, 1, 1])))
        1.0

    References:
        Wang & Isola, ICML 2020, arXiv:2005.10242, eq. 4 with alpha = 2.
    """
    _checks.check_embeddings("embeddings", embeddings)
    rows = jnp.shape(embeddings)[0]
    _checks.check_labels("labels", labels, rows)
    x, labels = numerics.l2_normalize(embeddings), jnp.asarray(labels)
    _, places = jnp.unique(labels, return_inverse=True, size=rows, fill_value=-1)
    counted = (labels >= 0).astype(x.dtype)

    def by_class(values: Array) -> Array:
        return jax.ops.segment_sum(values, places, rows)

    counts = by_class(counted)
    means = numerics.divide(by_class(x * counted[:, None]), counts[:, None])
    spread = by_class(counted * jnp.sum(jnp.square(x - means[places]), axis=1))
    # The squares of n (n - 1) / 2 differences add up to n times those from the mean.
    return jnp.sum(counts * spread) / (jnp.sum(counts * (counts - 1)) / 2)


def uniformity(
    embeddings: ArrayLike, *, temperature: float = 2.0, block_size: int = 256
) -> Array:
    """How evenly unit vectors cover the sphere: log of a mean Gaussian potential.

    `log E exp(-t ||x - y||^2)` over all pairs of different items.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        temperature: t of the formula.
        block_size: rows of the matrix of pairs in memory at once.

    Returns:
        A scalar in [-4 t, 0]; smaller is more even, 0 is one point.

    Raises:
        ValueError: if `embeddings` is not a matrix.
        TypeError: if it is not floating.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
        >>> float(uniformity(x))
        -8.0

    References:
        Wang & Isola, ICML 2020, arXiv:2005.10242, eq. 5.
    """
    _checks.check_embeddings("embeddings", embeddings)
    x = numerics.l2_normalize(embeddings)

    places = jnp.arange(len(x))

    def row(place: Array) -> Array:
        squares = 2 - 2 * numerics.matmul(x[place][None], x.T)[0]
        potential = jnp.exp(-temperature * jnp.maximum(squares, 0))
        return jnp.sum(jnp.where(places == place, 0, potential))

    others = jnp.sum(jax.lax.map(row, places, batch_size=block_size))
    return jnp.log(others / (len(x) * (len(x) - 1)))


def effective_rank(embeddings: ArrayLike) -> Array:
    """The number of dimensions that an embedding really uses.

    `exp(H(p))`, where H is the entropy of the singular values of the matrix of unit
    vectors, `p_i = sigma_i / sum_j sigma_j`.

    Args:
        embeddings: `[batch, dim]`; normalised inside, not centred.

    Returns:
        A scalar from 1 (one line) to min(batch, dim); 0 if all vectors are zero.

    Raises:
        ValueError: if `embeddings` is not a matrix.
        TypeError: if it is not floating.

    Example:
        >>> round(float(effective_rank(jnp.eye(4))), 4)
        4.0

    References:
        Roy & Vetterli, EUSIPCO 2007, definition 1.
    """
    _checks.check_embeddings("embeddings", embeddings)
    sizes = jnp.linalg.svd(numerics.l2_normalize(embeddings), compute_uv=False)
    share = numerics.divide(sizes, jnp.sum(sizes))
    entropy = jnp.sum(jax.scipy.special.entr(share))
    return jnp.where(jnp.any(sizes > 0), jnp.exp(entropy), 0.0)


def mean_cosine(embeddings: ArrayLike) -> Array:
    """Mean cosine between different items, from the sum of their unit vectors.

    Args:
        embeddings: `[batch, dim]`.

    Returns:
        A scalar: near 0 for a spread embedding, 1 for one point; NaN for one item.

    Raises:
        ValueError: if `embeddings` is not a matrix.
        TypeError: if it is not floating.

    Example:
        >>> float(mean_cosine(jnp.array([[1.0, 0.0], [2.0, 0.0]])))
        1.0
    """
    _checks.check_embeddings("embeddings", embeddings)
    x = numerics.l2_normalize(embeddings)
    total = jnp.sum(jnp.square(jnp.sum(x, axis=0))) - jnp.sum(jnp.square(x))
    return total / (len(x) * (len(x) - 1))


def collapse_warning(embeddings: ArrayLike) -> str | None:
    """A sentence if the embedding has collapsed, else None; on the host.

    It warns of values that are not finite, of one point (mean cosine above 0.999) and
    of one line (effective rank below 1.1).

    Args:
        embeddings: `[batch, dim]`, of items of several classes.

    Returns:
        What is wrong and what to try, or None.

    Raises:
        ValueError: if `embeddings` is not a matrix.
        TypeError: if it is not floating.

    Example:
        >>> collapse_warning(jnp.eye(4)) is None
        True
        >>> print(collapse_warning(jnp.ones((3, 2))))
        Embeddings have collapsed to one point (mean cosine 1.0000 between items); try \
a lower learning rate, softer mining (semi-hard, or all triplets) or a smaller margin.
    """
    _checks.check_embeddings("embeddings", embeddings)
    finite = np.asarray(jnp.all(jnp.isfinite(jnp.asarray(embeddings)), axis=1))
    if not finite.all():
        return (
            f"{np.count_nonzero(~finite)} of {len(finite)} embeddings are not finite; "
            "go back to the last good checkpoint with a lower learning rate."
        )
    if len(finite) < 2:
        return None
    cosine, rank = float(mean_cosine(embeddings)), float(effective_rank(embeddings))
    if rank == 0 or cosine > POINT:
        return (
            f"Embeddings have collapsed to one point (mean cosine {cosine:.4f} between "
            "items); try a lower learning rate, softer mining (semi-hard, or all "
            "triplets) or a smaller margin."
        )
    if rank < LINE and np.shape(embeddings)[1] > 1:
        return (
            f"Embeddings have collapsed to one line (effective rank {rank:.2f} of "
            f"{np.shape(embeddings)[1]}); try a lower learning rate or more classes in "
            "a batch."
        )
    return None
