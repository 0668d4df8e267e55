"""Losses: pure functions of embeddings (and class weights) and labels.

Every loss makes `reductions.Terms` of each anchor and reduces them; `reduction=None`
gives the terms. No loss holds a `[batch, batch]` array, or `[batch, classes]` logits.
"""

from metricjax.losses._classification import (
    ClassOptions,
    arcface,
    combined,
    cosface,
    margin_softmax,
    normface,
    sphereface,
)
from metricjax.losses._contrastive import supcon
from metricjax.losses._pairwise import contrastive
from metricjax.losses._triplets import (
    triplet,
    triplet_all,
    triplet_hard,
    triplet_semihard,
)

__all__ = [
    "ClassOptions",
    "arcface",
    "combined",
    "contrastive",
    "cosface",
    "margin_softmax",
    "normface",
    "sphereface",
    "supcon",
    "triplet",
    "triplet_all",
    "triplet_hard",
    "triplet_semihard",
]
