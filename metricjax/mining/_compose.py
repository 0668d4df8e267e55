"""Putting miners together."""

from collections.abc import Callable, Sequence
from typing import Any

from jax import Array

from metricjax.mining._choose import mask_of
from metricjax.pairs import Pairs, Triplets

Miner = Callable[[Array, Pairs], Any]


def chain(distances: Array, pairs: Pairs, *, miners: Sequence[Miner]) -> Any:
    """One miner after the other: each chooses from what the one before it kept.

    Configure it with `jax.tree_util.Partial(chain, miners=(first, second))`.

    Args:
        distances: `[..., n]`, of each anchor to the candidates.
        pairs: masks of the same shape.
        miners: pair miners `(distances, Pairs) -> Pairs`; the last may be a triplet
            miner, `-> Triplets`.

    Returns:
        What the last miner returns; `pairs` if there is none.

    Raises:
        TypeError: if a miner before the last does not return `Pairs`.

    Example:
        >>> import jax.numpy as jnp
        >>> from metricjax.mining import easy_positive, hard
        >>> pairs = Pairs(jnp.array([True, True, False, False]),
        ...               jnp.array([False, False, True, True]))
        >>> d = jnp.array([1.0, 2.0, 4.0, 3.0])
        >>> chain(d, pairs, miners=(easy_positive, hard))[:2]
        (Array([0], dtype=int32), Array([3], dtype=int32))
    """
    for miner in miners:
        if not isinstance(pairs, Pairs):
            raise TypeError(
                f"Expected Pairs for the next miner, got {type(pairs).__name__}; a "
                "triplet miner can only be the last, or go through mining.as_pairs."
            )
        pairs = miner(distances, pairs)
    return pairs


def as_pairs(
    distances: Array, pairs: Pairs, *, miner: Callable[[Array, Pairs], Triplets]
) -> Pairs:
    """Keep the pairs that occur in the triplets that a miner chooses.

    So a triplet miner serves a pair loss:
    `losses.contrastive(x, y, pair_miner=Partial(as_pairs, miner=hard))`.

    Args:
        distances: `[..., n]`, of each anchor to the candidates.
        pairs: masks of the same shape.
        miner: a triplet miner, `(distances, Pairs) -> Triplets`.

    Returns:
        `Pairs` of the same shape.

    Example:
        >>> import jax.numpy as jnp
        >>> from metricjax.mining import hard
        >>> pairs = Pairs(jnp.array([True, True, False, False]),
        ...               jnp.array([False, False, True, True]))
        >>> as_pairs(jnp.array([1.0, 2.0, 4.0, 3.0]), pairs, miner=hard).negative
        Array([False, False, False,  True], dtype=bool)
    """
    chosen, n = miner(distances, pairs), distances.shape[-1]
    return Pairs(
        mask_of(chosen.positive, chosen.valid, n),
        mask_of(chosen.negative, chosen.valid, n),
    )


def on_similarities(similarities: Array, pairs: Pairs, *, miner: Miner) -> Any:
    """A miner of distances on similarities `s`: it sees `1 - s`.

    Of cosines that is the cosine distance. It is what a loss of similarities needs:
    `pair_miner=Partial(on_similarities, miner=multi_similarity)`.

    Args:
        similarities: `[..., n]`, of each anchor to the candidates.
        pairs: masks of the same shape.
        miner: `(distances, Pairs) -> Pairs` or `Triplets`.

    Returns:
        What the miner returns.

    Example:
        >>> import jax.numpy as jnp
        >>> from metricjax.mining import hard
        >>> pairs = Pairs(jnp.array([True, True, False, False]),
        ...               jnp.array([False, False, True, True]))
        >>> cosines = jnp.array([0.9, 0.8, 0.1, 0.2])
        >>> on_similarities(cosines, pairs, miner=hard)[:2]
        (Array([1], dtype=int32), Array([3], dtype=int32))
    """
    return miner(1.0 - similarities, pairs)
