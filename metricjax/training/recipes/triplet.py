"""Semi-hard triplets on a small residual net, in batches of P classes x K images.

Command:

    python train.py --recipe triplet

The margin and the fallback are those of TensorFlow's loss. Public examples train it on
the 784-128-128-64 net, which `--encoder mlp --dim 64` gives. On validation classes that
net stayed below raw pixels (MAP@R 0.43 against 0.49), the plain convolutional net
reached 0.59 and the residual net 0.73: so the latter is the default.

Measured on digits never seen, mean of 3 splits: Recall@1 0.985 (raw pixels 0.983),
MAP@R 0.788 (raw pixels 0.482), EER 0.157 (raw pixels 0.342) (45 s in all, on two
cores).

References:
    Schroff et al., "FaceNet", CVPR 2015, arXiv:1503.03832. Hermans et al., "In Defense
    of the Triplet Loss for Person Re-Identification", 2017, arXiv:1703.07737.
"""

import dataclasses
from typing import Any

from jax import Array

from metricjax import losses
from metricjax.training import contrast, experiment, settings

__all__ = ["EXAMPLES", "Settings", "build"]

EXAMPLES = "triplets"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(settings.PairSettings):
    """Semi-hard triplets on a small residual net: the same before the different."""

    margin: float = 1.0
    """Margin between squared distances of unit vectors, which are 4 at most."""

    def __post_init__(self):
        super().__post_init__()
        settings.check_positive(self, "margin")


def build(
    settings: Settings, image_shape: tuple[int, ...], classes: int
) -> experiment.Experiment:
    """The training problem; arguments as in `metricjax.training.recipes`."""

    def loss(x: Array, labels: Array, **references: Any) -> Any:
        return losses.triplet_semihard(
            x,
            labels,
            margin=settings.margin,
            fallback=True,
            reduction=None,
            **references,
        )

    return contrast.pairwise(settings, image_shape, loss)
