"""What a case is, and where the cases are."""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

AREAS = ["distances", "triplet", "pairs", "lists", "softmax", "metrics", "encoder"]

# The work, done once: what it computes, the value first and then the gradients. Arrays
# of any library, ready when the call returns.
Call = Callable[[], tuple[Any, ...]]


class Case(NamedTuple):
    """One piece of work at one size.

    Attributes:
        name: of the work, for instance "triplet_all".
        size: of the batch, the gallery or the classes.
        contestants: library -> function that prepares the inputs (from a fixed seed)
            and returns a call, whose results are the same for every library.
        quick: whether it is part of `--quick`.
        tolerance: between values, relative.
        gradient_tolerance: between all other results, relative to the largest entry.
        flops: of the matrix products that the work needs, for the roofline; 0 if the
            work is not made of products.
        bytes: that the work must read and write, likewise.
        unit: what the size counts.
        may_fail: contestants that may run out of memory, which is then recorded.
    """

    name: str
    size: int
    contestants: dict[str, Callable[[], Call]]
    quick: bool = False
    tolerance: float = 1e-4
    gradient_tolerance: float = 1e-4
    flops: float = 0.0
    bytes: float = 0.0
    unit: str = "batch"
    may_fail: frozenset[str] = frozenset()

    @property
    def key(self) -> str:
        """Name and size, as results are filed."""
        return f"{self.name}/{self.size}"


def cases(area: str) -> list[Case]:
    """The cases of one area."""
    return importlib.import_module(f"benchmarks.{area}").CASES
