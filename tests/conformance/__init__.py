"""The conformance table: one row for each public loss, kept by family."""

from tests.conformance import classification, contrastive, pairwise, triplets
from tests.conformance.row import Row

FAMILIES = [classification, contrastive, pairwise, triplets]
LOSSES: list[Row] = [row for family in FAMILIES for row in family.ROWS]
