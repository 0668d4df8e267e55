"""Tuple losses."""

from functools import partial

from jax.tree_util import Partial

from metricjax import losses, mining, reductions
from tests.conformance.row import BATCH, CLASSES, DIM, EMBEDDINGS, Row
from tests.oracles import losses_tuples as oracles
from tests.oracles.losses import mean, softplus

ALIGNED = EMBEDDINGS | {"positives": (BATCH, DIM)}


def aligned(name, loss, oracle) -> Row:
    return Row(name, loss, oracle, ALIGNED, refs=False)


ROWS = [
    Row(
        "triplet_all_swap",
        Partial(losses.triplet_all, swap=True),
        oracles.triplet_all_swap,
    ),
    Row(
        "triplet_hard_swap",
        Partial(losses.triplet_hard, swap=True),
        oracles.triplet_hard_swap,
        ring=True,
    ),
    Row("n_pair", losses.n_pair, oracles.n_pair, ring=True),
    Row("tuplet_margin", losses.tuplet_margin, oracles.tuplet_margin, ring=True),
    Row("angular", losses.angular, oracles.angular),
    Row(
        "angular_with_n_pair",
        Partial(losses.angular, angle=0.7, n_pair_weight=0.5),
        partial(oracles.angular, angle=0.7, n_pair_weight=0.5),
    ),
    Row(
        "lifted_structure", losses.lifted_structure, oracles.lifted_structure, ring=True
    ),
    Row(
        "generalized_lifted_structure",
        losses.generalized_lifted_structure,
        oracles.generalized_lifted_structure,
        ring=True,
    ),
    Row(
        "generalized_lifted_structure_soft",
        Partial(losses.generalized_lifted_structure, soft=True, margin=0.2),
        partial(oracles.generalized_lifted_structure, penalty=softplus, margin=0.2),
        ring=True,
    ),
    Row(
        "margin_based",
        losses.margin_based,
        oracles.margin_based,
        EMBEDDINGS | {"boundary": ()},
        frozen=oracles.margin_based_frozen,
        ring=True,
    ),
    Row(
        "margin_based_all_triplets",
        Partial(losses.margin_based, miner=mining.all),
        oracles.margin_based_triplets,
        EMBEDDINGS | {"boundary": (CLASSES,)},
        refs=False,
        linear_memory=False,
    ),
    aligned("hard_negatives", losses.hard_negatives, oracles.hard_negatives),
    aligned(
        "hard_negatives_hardest",
        Partial(
            losses.hard_negatives,
            semi_hard=False,
            margin=0.5,
            reduction=reductions.mean,
        ),
        partial(oracles.hard_negatives, semi_hard=False, margin=0.5, reduce=mean),
    ),
    aligned(
        "mean_negative", losses.mean_negative, partial(oracles.hard_negatives, take=[0])
    ),
    aligned(
        "closest_negative",
        losses.closest_negative,
        partial(oracles.hard_negatives, take=[1]),
    ),
    Row(
        "centroid_triplet",
        losses.centroid_triplet,
        oracles.centroid_triplet,
        refs=False,
    ),
    Row(
        "centroid_triplet_every_class",
        Partial(losses.centroid_triplet, hard=False, soft=True),
        partial(oracles.centroid_triplet, hard=False, penalty=softplus),
        refs=False,
    ),
]
