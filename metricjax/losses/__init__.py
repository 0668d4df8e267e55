"""Losses: pure functions of embeddings (and class weights) and labels.

Every loss makes `reductions.Terms` of each anchor and reduces them; `reduction=None`
gives the terms. No loss holds a `[batch, batch]` array, or `[batch, classes]` logits.
"""

from metricjax.losses._adaptive import (
    adacos,
    adaface,
    curricularface,
    magface,
    mv_softmax,
)
from metricjax.losses._additive import (
    arcface,
    combined,
    cosface,
    li_arcface,
)
from metricjax.losses._binary import (
    margin_sigmoid,
    p2sgrad,
    sphereface2,
    uniface,
)
from metricjax.losses._centers import (
    center,
    center_softmax,
)
from metricjax.losses._centroids import (
    centroid_triplet,
)
from metricjax.losses._classification import (
    ClassOptions,
    SoftmaxOptions,
    margin_softmax,
    normface,
)
from metricjax.losses._contrastive import (
    dcl,
    ntxent,
    supcon,
)
from metricjax.losses._elastic import (
    elastic_arcface,
    elastic_cosface,
)
from metricjax.losses._guided import (
    gist,
)
from metricjax.losses._hard_negatives import (
    closest_negative,
    hard_negatives,
    mean_negative,
)
from metricjax.losses._histogram import (
    fastap,
    histogram,
)
from metricjax.losses._infonce import (
    AlignedOptions,
    clip,
    info_nce,
    multiple_negatives,
    siglip,
)
from metricjax.losses._lifted import (
    generalized_lifted_structure,
    lifted_structure,
)
from metricjax.losses._margin_based import (
    margin_based,
)
from metricjax.losses._multiplicative import (
    a_softmax,
    l_softmax,
    sphereface,
    sphereface_r_v1,
    sphereface_r_v2,
)
from metricjax.losses._pairwise import (
    contrastive,
    intra_pair_variance,
    snr_contrastive,
    threshold_consistent_margin,
)
from metricjax.losses._pnp import (
    pnp,
    pnp_dq,
    pnp_ds,
    pnp_ib,
    pnp_iu,
)
from metricjax.losses._proxies import (
    proxy_anchor,
    proxy_nca,
    proxy_nca_pp,
    soft_triple,
)
from metricjax.losses._ranking import (
    recall_surrogate,
    smooth_ap,
)
from metricjax.losses._regularizers import (
    center_invariant,
    lp_norm,
    regularface,
    sparse_centers,
    zero_mean,
)
from metricjax.losses._siamese import (
    siamese,
    siamese_pairs,
)
from metricjax.losses._soft_pairs import (
    circle,
    multi_similarity,
    nca,
    ranked_list,
)
from metricjax.losses._triplets import (
    triplet,
    triplet_all,
    triplet_hard,
    triplet_semihard,
)
from metricjax.losses._tuples import (
    angular,
    n_pair,
    tuplet_margin,
)
from metricjax.losses._views import (
    multi_view,
    vicreg,
)

__all__ = [
    "AlignedOptions",
    "ClassOptions",
    "SoftmaxOptions",
    "a_softmax",
    "adacos",
    "adaface",
    "angular",
    "arcface",
    "center",
    "center_invariant",
    "center_softmax",
    "centroid_triplet",
    "circle",
    "clip",
    "closest_negative",
    "combined",
    "contrastive",
    "cosface",
    "curricularface",
    "dcl",
    "elastic_arcface",
    "elastic_cosface",
    "fastap",
    "generalized_lifted_structure",
    "gist",
    "hard_negatives",
    "histogram",
    "info_nce",
    "intra_pair_variance",
    "l_softmax",
    "li_arcface",
    "lifted_structure",
    "lp_norm",
    "magface",
    "margin_based",
    "margin_sigmoid",
    "margin_softmax",
    "mean_negative",
    "multi_similarity",
    "multi_view",
    "multiple_negatives",
    "mv_softmax",
    "n_pair",
    "nca",
    "normface",
    "ntxent",
    "p2sgrad",
    "pnp",
    "pnp_dq",
    "pnp_ds",
    "pnp_ib",
    "pnp_iu",
    "proxy_anchor",
    "proxy_nca",
    "proxy_nca_pp",
    "ranked_list",
    "recall_surrogate",
    "regularface",
    "siamese",
    "siamese_pairs",
    "siglip",
    "smooth_ap",
    "snr_contrastive",
    "soft_triple",
    "sparse_centers",
    "sphereface",
    "sphereface2",
    "sphereface_r_v1",
    "sphereface_r_v2",
    "supcon",
    "threshold_consistent_margin",
    "triplet",
    "triplet_all",
    "triplet_hard",
    "triplet_semihard",
    "tuplet_margin",
    "uniface",
    "vicreg",
    "zero_mean",
]
