"""What a case is, and where the cases are."""

import importlib
from collections.abc import Callable
from typing import NamedTuple

AREAS = ["distances", "triplet", "pairs", "softmax"]

Call = Callable[[], float]


class Case(NamedTuple):
    """One piece of work at one size.

    Attributes:
        name: of the work, for instance "triplet_all".
        size: of the batch, the gallery or the classes.
        contestants: library -> function that prepares the inputs (from a fixed seed)
            and returns a call; the call does the work and returns a number, the same
            one for every library.
        quick: whether it is part of `--quick`.
        tolerance: relative, between the numbers that the contestants return.
        flops: of the matrix products that the work needs, for the roofline; 0 if the
            work is not made of products.
    """

    name: str
    size: int
    contestants: dict[str, Callable[[], Call]]
    quick: bool = False
    tolerance: float = 1e-4
    flops: float = 0.0

    @property
    def key(self) -> str:
        """Name and size, as results are filed."""
        return f"{self.name}/{self.size}"


def cases(area: str) -> list[Case]:
    """The cases of one area."""
    return importlib.import_module(f"benchmarks.{area}").CASES
