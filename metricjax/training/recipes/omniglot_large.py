"""Recipe omniglot with a net 1.5 times as wide, and a few more images.

Command, with the files of Omniglot in DIR/omniglot:

    python train.py --recipe omniglot-large --data-dir DIR

References:
    As for recipe omniglot: Lake, Salakhutdinov and Tenenbaum, Science 350(6266), 2015.
"""

import dataclasses

from metricjax.training.recipes import omniglot
from metricjax.training.recipes.omniglot import build, divide, measure

__all__ = ["Settings", "build", "divide", "measure"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(omniglot.Settings):
    """Recipe omniglot with a net 1.5 times as wide, and a few more images."""

    width: int = 24
    steps: int = 4570
    evaluate_every: int = 457
