"""Sets of triplets: all those whose two distances stand in a given relation."""

import math
from collections.abc import Callable

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from metricjax import _checks, numerics
from metricjax import distances as metric
from metricjax.mining._choose import per_positive, usable
from metricjax.pairs import Pairs, Triplets


def hard_band(
    distances: Array,
    pairs: Pairs,
    *,
    positives: int | None = None,
    negatives: int | None = None,
) -> Triplets:
    """All triplets whose negative is not farther than the positive: `d_an <= d_ap`.

    `hard` is one triplet of each anchor; this is the set. Memory is `n * positives *
    negatives`, as of all the sets of this kind: they are for looking at, or for small
    batches, or with few `negatives`.

    Args:
        distances: `[..., n]`, of each anchor to the candidates.
        pairs: masks of the same shape.
        positives: most positives of an anchor, the first in order; with K examples per
            class give K - 1. By default n. Static.
        negatives: most negatives of each positive, the nearest of the set; by default
            all of them, in order. Static.

    Returns:
        `Triplets` `[..., positives * negatives]`.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if the masks are not bool.

    Example:
        >>> pairs = Pairs(jnp.array([True, False, False, False]),
        ...               jnp.array([False, True, True, True]))
        >>> d = jnp.array([1.0, 0.5, 1.1, 9.0])
        >>> hard_band(d, pairs, positives=1).valid.tolist()
        [False, True, False, False]

    References:
        Named after Schroff et al., "FaceNet", CVPR 2015, arXiv:1503.03832, section 3.2.
    """

    def inside(d_ap: Array, d_an: Array) -> Array:
        return d_an <= d_ap

    return _band(distances, pairs, inside, positives, negatives)


def semihard_band(
    distances: Array,
    pairs: Pairs,
    *,
    margin: ArrayLike = 0.2,
    positives: int | None = None,
    negatives: int | None = None,
) -> Triplets:
    """All triplets with the negative within the margin: `d_ap < d_an <= d_ap + m`.

    The other meaning of semi-hard: `semihard` takes of each positive the nearest of the
    farther negatives, however far that is.

    Args:
        distances: `[..., n]`, of each anchor to the candidates.
        pairs: masks of the same shape.
        margin: `m`, in units of the distance; a number, or `[...]`, one per anchor.
        positives: see `hard_band`. Static.
        negatives: see `hard_band`. Static.

    Returns:
        `Triplets` `[..., positives * negatives]`.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if the masks are not bool.

    Example:
        >>> pairs = Pairs(jnp.array([True, False, False, False]),
        ...               jnp.array([False, True, True, True]))
        >>> d = jnp.array([1.0, 0.5, 1.1, 9.0])
        >>> semihard_band(d, pairs, positives=1).valid.tolist()
        [False, False, True, False]

    References:
        Schroff et al., "FaceNet", CVPR 2015, arXiv:1503.03832, section 3.2: they "lie
        inside the margin".
    """

    def inside(d_ap: Array, d_an: Array) -> Array:
        return (d_an > d_ap) & (d_an <= d_ap + _each(margin))

    return _band(distances, pairs, inside, positives, negatives)


def easy_band(
    distances: Array,
    pairs: Pairs,
    *,
    margin: ArrayLike = 0.2,
    positives: int | None = None,
    negatives: int | None = None,
) -> Triplets:
    """All triplets with the negative beyond the margin: `d_an > d_ap + m`.

    Those that cost nothing.

    Args:
        distances: `[..., n]`, of each anchor to the candidates.
        pairs: masks of the same shape.
        margin: see `semihard_band`.
        positives: see `hard_band`. Static.
        negatives: see `hard_band`. Static.

    Returns:
        `Triplets` `[..., positives * negatives]`.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if the masks are not bool.

    Example:
        >>> pairs = Pairs(jnp.array([True, False, False, False]),
        ...               jnp.array([False, True, True, True]))
        >>> d = jnp.array([1.0, 0.5, 1.1, 9.0])
        >>> easy_band(d, pairs, positives=1).valid.tolist()
        [False, False, False, True]
    """

    def inside(d_ap: Array, d_an: Array) -> Array:
        return d_an > d_ap + _each(margin)

    return _band(distances, pairs, inside, positives, negatives)


def active_band(
    distances: Array,
    pairs: Pairs,
    *,
    margin: ArrayLike = 0.2,
    positives: int | None = None,
    negatives: int | None = None,
) -> Triplets:
    """All triplets that violate the margin: `d_an <= d_ap + m`, hard and semi-hard.

    Args:
        distances: `[..., n]`, of each anchor to the candidates.
        pairs: masks of the same shape.
        margin: see `semihard_band`.
        positives: see `hard_band`. Static.
        negatives: see `hard_band`. Static.

    Returns:
        `Triplets` `[..., positives * negatives]`.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if the masks are not bool.

    Example:
        >>> pairs = Pairs(jnp.array([True, False, False, False]),
        ...               jnp.array([False, True, True, True]))
        >>> d = jnp.array([1.0, 0.5, 1.1, 9.0])
        >>> active_band(d, pairs, positives=1).valid.tolist()
        [False, True, True, False]
    """

    def inside(d_ap: Array, d_an: Array) -> Array:
        return d_an <= d_ap + _each(margin)

    return _band(distances, pairs, inside, positives, negatives)


def _each(margin: ArrayLike) -> Array:
    """The margin with an axis for the candidates, if it has one for the anchors."""
    margin = jnp.asarray(margin)
    return margin[..., None] if margin.ndim else margin


def _band(
    distances: Array,
    pairs: Pairs,
    inside: Callable[[Array, Array], Array],
    positives: int | None,
    negatives: int | None,
) -> Triplets:
    distances, pairs = usable(distances, pairs)

    def rule(number: Array, column: Array, d_ap: Array) -> tuple[Array, Array]:
        del number, column
        return distances, inside(d_ap[..., None], distances)

    return per_positive(
        distances, pairs, rule, positives=positives, negatives=negatives
    )


def angular(
    distances: Array,
    pairs: Pairs,
    *,
    candidates: ArrayLike,
    angle: ArrayLike = math.pi / 9.0,
    positives: int | None = None,
    negatives: int | None = None,
) -> Triplets:
    """All triplets with a large angle at the negative, above `alpha`.

    `tan(angle) = ||a - p|| / (2 ||n - c||)`, where `c = (a + p) / 2` is the middle of
    the pair: the angle of the angular loss. With `rows.mine` the candidates are those
    of `rows.candidates`.

    Args:
        distances: `[..., n]`, Euclidean (not squared), of each anchor to the
            candidates.
        pairs: masks of the same shape.
        candidates: `[n, dim]`, the vectors themselves, for the distances between them.
            Give unit vectors, and distances of unit vectors, for the usual meaning.
        angle: `alpha`, in radians; the default is 20 degrees.
        positives: most positives of an anchor, the first in order; with K examples per
            class give K - 1. By default n. Static.
        negatives: most negatives of each positive, those of the largest angle; by
            default all of them, in order. Static.

    Returns:
        `Triplets` `[..., positives * negatives]`.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if the masks are not bool.

    Example:
        >>> x = jnp.array([[0.0, -1.0], [0.0, 1.0], [1.0, 0.0], [9.0, 0.0]])
        >>> pairs = Pairs(jnp.array([False, True, False, False]),
        ...               jnp.array([False, False, True, True]))
        >>> chosen = angular(metric.euclidean(x)[0], pairs, candidates=x, positives=1)
        >>> chosen.valid.tolist()
        [False, False, True, False]

    References:
        Wang et al., "Deep Metric Learning with Angular Loss", ICCV 2017,
        arXiv:1708.01682, eq. 5-6.
    """
    distances, pairs = usable(distances, pairs)
    _checks.check_embeddings("candidates", candidates)
    candidates = numerics.promote(candidates)
    _checks.check_shape(
        "candidates",
        candidates,
        (distances.shape[-1], candidates.shape[1]),
        "one vector for each column of the distances",
    )

    def rule(number: Array, column: Array, d_ap: Array) -> tuple[Array, Array]:
        del number
        squared = _to_candidates(candidates, column)
        # Apollonius: the median of a triangle from its three sides.
        median = 2.0 * (jnp.square(distances) + squared) - jnp.square(d_ap)[..., None]
        median = numerics.sqrt(median) / 2.0
        return median, d_ap[..., None] > 2.0 * jnp.tan(angle) * median

    return per_positive(
        distances, pairs, rule, positives=positives, negatives=negatives
    )


def _to_candidates(candidates: Array, column: Array) -> Array:
    """Squared distances `[..., n]` of the candidates in these columns to all."""
    chosen = candidates[column.reshape(-1)]
    squared = metric.squared_euclidean(chosen, candidates)
    return squared.reshape(*column.shape, -1)
