"""The conformance table: one row for each public loss, kept by family."""

from tests.conformance import (
    adaptive,
    binary,
    centers,
    classification,
    contrastive,
    pairwise,
    proxies,
    ranking,
    regularizers,
    siamese,
    triplets,
    tuples,
)
from tests.conformance.row import Row

FAMILIES = [
    adaptive,
    binary,
    centers,
    classification,
    contrastive,
    pairwise,
    proxies,
    ranking,
    regularizers,
    siamese,
    triplets,
    tuples,
]
LOSSES: list[Row] = [row for family in FAMILIES for row in family.ROWS]
