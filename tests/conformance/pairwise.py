"""Pair losses."""

from functools import partial

from jax.tree_util import Partial

from metricjax import losses, reductions
from tests.conformance.row import Row
from tests.oracles import losses as oracles
from tests.oracles import losses_pairwise

ROWS = [
    Row(
        "contrastive",
        Partial(losses.contrastive, margin=2.0),
        partial(oracles.contrastive, margin=2.0),
        ring=True,
    ),
    Row(
        "contrastive_linear",
        Partial(
            losses.contrastive,
            squared=False,
            positive_margin=0.1,
            margin=2.0,
            reduction=reductions.mean_active,
        ),
        partial(oracles.contrastive_linear, margin=2.0),
        ring=True,
    ),
    Row(
        "snr_contrastive",
        losses.snr_contrastive,
        losses_pairwise.snr_contrastive,
        ring=True,
    ),
    Row(
        "threshold_consistent_margin",
        losses.threshold_consistent_margin,
        losses_pairwise.threshold_consistent_margin,
        ring=True,
    ),
    Row(
        "threshold_consistent_margin_weighted",
        Partial(
            losses.threshold_consistent_margin,
            positive_margin=0.8,
            negative_margin=-0.1,
            positive_weight=2.0,
            negative_weight=0.5,
        ),
        partial(
            losses_pairwise.threshold_consistent_margin,
            margins=(0.8, -0.1),
            weights=(2.0, 0.5),
        ),
        ring=True,
    ),
    Row(
        "intra_pair_variance",
        losses.intra_pair_variance,
        losses_pairwise.intra_pair_variance,
        ring=True,
    ),
    Row(
        "multi_similarity",
        losses.multi_similarity,
        losses_pairwise.multi_similarity,
        ring=True,
    ),
    Row(
        "multi_similarity_all_pairs",
        Partial(losses.multi_similarity, epsilon=None, negative_scale=40.0),
        partial(losses_pairwise.multi_similarity, epsilon=None, negative_scale=40.0),
        ring=True,
    ),
    Row(
        "circle",
        losses.circle,
        losses_pairwise.circle,
        frozen=losses_pairwise.frozen(losses_pairwise.circle),
        ring=True,
    ),
    Row("nca", losses.nca, losses_pairwise.nca, ring=True),
    Row(
        "nca_expected",
        Partial(losses.nca, expected=True, scale=0.5),
        partial(losses_pairwise.nca, expected=True, scale=0.5),
        ring=True,
    ),
    Row(
        "ranked_list",
        losses.ranked_list,
        losses_pairwise.ranked_list,
        frozen=losses_pairwise.frozen(losses_pairwise.ranked_list),
        ring=True,
    ),
]
