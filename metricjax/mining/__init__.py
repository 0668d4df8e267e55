"""Mining: which pairs or triplets of a batch to train on.

A miner maps the distances of anchors to candidates `[..., n]`, and the masks of their
pairs, to a choice. It works on any number of anchors at once: one row, a block, a whole
batch; it runs under `jit` and `vmap`. Distances: smaller is closer (for rows of
similarities see `on_similarities`). Ties go to the lowest index, and a distance that is
not a number is never chosen. Configure a miner with `jax.tree_util.Partial`.

- A pair miner, `(distances, Pairs) -> Pairs`, keeps some of the pairs. Every pair loss
  takes one as `pair_miner=`, and they chain.
- A triplet miner, `(distances, Pairs) -> Triplets`, gives a fixed number of indices.
  `losses.triplet` takes one as `miner=`; `as_pairs` makes a pair miner of it.
- One that draws takes a key first: `Partial(distance_weighted, key, dim=64)`.

`rows.mine` applies any of them to a batch, block by block.
"""

from metricjax.mining._compose import as_pairs, chain, on_similarities
from metricjax.mining._pairs import (
    easy_positive,
    hard_aware,
    hardest,
    multi_similarity,
    pair_margin,
)
from metricjax.mining._random import distance_weighted, uniform_histogram
from metricjax.mining._sets import (
    active_band,
    angular,
    easy_band,
    hard_band,
    semihard_band,
)
from metricjax.mining._triplets import (
    all,
    easy,
    farther_negative,
    hard,
    nth_positive,
    semihard,
)

__all__ = [
    "active_band",
    "all",
    "angular",
    "as_pairs",
    "chain",
    "distance_weighted",
    "easy",
    "easy_band",
    "easy_positive",
    "farther_negative",
    "hard",
    "hard_aware",
    "hard_band",
    "hardest",
    "multi_similarity",
    "nth_positive",
    "on_similarities",
    "pair_margin",
    "semihard",
    "semihard_band",
    "uniform_histogram",
]
