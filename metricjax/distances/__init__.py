"""Distances between two sets of vectors: `(x, y) -> [n, m]`, smaller is closer.

`y` defaults to `x`. Every function takes any floating dtype and returns float32
(float64 stays float64). Products run at full float32 by default; see `precision`.
Configure one with `jax.tree_util.Partial`, whose numbers are then differentiable:
`Partial(mahalanobis, factor=factor)`.
"""

from metricjax.distances._coordinates import chebyshev, hamming, lp, manhattan
from metricjax.distances._euclidean import (
    euclidean,
    mahalanobis,
    paired,
    squared_euclidean,
)
from metricjax.distances._pairwise import Distance
from metricjax.distances._shapes import cosine, hyperbolic, negative, snr, to_ball

__all__ = [
    "Distance",
    "chebyshev",
    "cosine",
    "euclidean",
    "hamming",
    "hyperbolic",
    "lp",
    "mahalanobis",
    "manhattan",
    "negative",
    "paired",
    "snr",
    "squared_euclidean",
    "to_ball",
]
