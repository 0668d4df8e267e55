"""The same work at many sizes, for the plots of how time and memory grow.

A peer is run as far as it gets in seconds and gigabytes on a small machine.
"""

from benchmarks import distances, metrics, pairs, softmax, triplet
from benchmarks.cases import Case

BATCHES = [2**k for k in range(5, 15)]
CLASSES = [2**k for k in range(10, 20)]
GALLERIES = [1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000]


def _ntxent(batch: int) -> Case:
    reach = {"pml": 256, "optax": 1024}
    peers = tuple(name for name, largest in reach.items() if batch <= largest)
    return pairs.ntxent(batch, peers=peers)


def _for_ours_alone(case: Case, largest: int) -> Case:
    """The case without its peers above a size."""
    if case.size <= largest:
        return case
    return case._replace(contestants={"jax": case.contestants["jax"]})


CASES = [
    *(distances.case(b, peer=b <= 8192) for b in BATCHES),
    *(triplet.batch_all(b, peer=b <= 1024) for b in BATCHES if b <= 8192),
    *(triplet.batch_hard(b, peer=b <= 8192) for b in BATCHES),
    *(pairs.supcon(b, peer=b <= 8192) for b in BATCHES),
    *(_ntxent(b) for b in BATCHES if b <= 8192),
    *(_for_ours_alone(softmax.step("arcface", c), 2**18) for c in CLASSES),
    *(metrics.neighbors(n) for n in GALLERIES),
    *(metrics.retrieval_metrics(n, 5) for n in GALLERIES if n <= 50_000),
]
