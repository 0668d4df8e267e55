"""Softmax over candidates, aligned sets and views."""

from functools import partial

import jax.numpy as jnp
from jax.tree_util import Partial

from metricjax import _checks, losses, reductions
from tests.conformance.row import BATCH, DIM, EMBEDDINGS, Row
from tests.oracles import losses as oracles
from tests.oracles import losses_contrastive as contrastive

OTHER = {"other_embeddings": (BATCH, DIM)}
ALIGNED = EMBEDDINGS | OTHER
GUIDE = {"guide_embeddings": (BATCH, DIM), "other_guide_embeddings": (BATCH, DIM)}
NEGATIVES = {"negative_embeddings": (BATCH, DIM)}


def multiple_negatives(*, where=None, reduction=reductions.mean, **options):
    """A hard negative of each row, which is padding where the row is."""
    return losses.multiple_negatives(
        where=where, negative_where=where, reduction=reduction, **options
    )


def multi_view(
    embeddings, other_embeddings, labels, *, reduction=reductions.mean, **options
):
    """Two views as two arguments, for a table whose inputs are `[batch, dim]`."""
    _checks.check_embeddings("embeddings", embeddings)
    views = jnp.stack([embeddings, other_embeddings])
    return losses.multi_view(
        views, loss=losses.supcon, labels=labels, reduction=reduction, **options
    )


def multi_view_oracle(embeddings, other_embeddings, labels):
    rows = [*embeddings, *other_embeddings]
    return oracles.supcon(rows, [*labels, *labels])


def aligned(name, loss, oracle, inputs=ALIGNED) -> Row:
    return Row(name, loss, oracle, inputs, refs=False, ring=True)


ROWS = [
    Row("supcon", losses.supcon, oracles.supcon, ring=True),
    Row("ntxent", losses.ntxent, contrastive.ntxent, ring=True),
    Row(
        "ntxent_negatives",
        Partial(losses.ntxent, other_positives=False, temperature=0.5),
        partial(contrastive.ntxent, other_positives=False, temperature=0.5),
        ring=True,
    ),
    Row("dcl", losses.dcl, contrastive.dcl, ring=True),
    aligned("info_nce", losses.info_nce, contrastive.info_nce),
    aligned(
        "multiple_negatives",
        multiple_negatives,
        contrastive.multiple_negatives,
        ALIGNED | NEGATIVES,
    ),
    aligned("clip", losses.clip, contrastive.clip, ALIGNED | {"temperature": ()}),
    aligned(
        "siglip",
        losses.siglip,
        contrastive.siglip,
        ALIGNED | {"scale": (), "bias": ()},
    ),
    aligned(
        "gist",
        Partial(losses.gist, temperature=0.1),
        partial(contrastive.gist, temperature=0.1),
        ALIGNED | GUIDE,
    ),
    Row(
        "multi_view",
        multi_view,
        multi_view_oracle,
        ALIGNED,
        refs=False,
        ring=True,
    ),
    Row(
        "vicreg",
        losses.vicreg,
        contrastive.vicreg,
        ALIGNED,
        labels=False,
        refs=False,
        blocks=False,
    ),
]
