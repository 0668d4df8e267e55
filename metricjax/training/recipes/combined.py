r"""Combined margin: the angle multiplied and shifted, the cosine lowered.

Command:

    python train.py --recipe combined

Faces of people never seen, with a threshold calibrated on others (images of the AT&T
set, 40 people, as an .npz file of arrays `images` and `labels`):

    python train.py --recipe combined --data npz:FACES.npz --image-size 64 \
        --content photos --symmetries 1 --batch 64 --held-out 0 --test-classes 10 \
        --calibration-classes 5 --splits 5 --steps 200 --average-views 8 \
        --whiten 0.05 --whiten-total 0.2

Of this, mean and standard deviation of 5 splits, fourth look: EER 5.0 ± 2.3 % (raw
pixels 15.1 ± 2.7), and one enrolled image of each person names 96.3 ± 1.5 % of the
others; 6.8 ± 2.8 and 92.5 ± 2.4 % without whitening, 5.4 ± 2.1 and 95.6 ± 2.2 % without
the share of the total covariance. Both were chosen on training people: validation EER
6.9 % without whitening, 5.7 at a shrinkage of 0.3, 5.3 at 0.1, 5.0 at 0.05, 5.2 at
0.01; with 0.05 and a total share of 0.1, 0.2, 0.3 or 0.4, 4.6, 4.65, 4.65 or 4.8 (with
a net of 16 channels 4.85, 4.6, 4.8 or 4.7). Twice the steps gave 4.9.

Measured on digits never seen, mean of 3 splits: Recall@1 0.989 (raw pixels 0.983),
MAP@R 0.792 (raw pixels 0.482), EER 0.153 (raw pixels 0.342) (94 s in all, on two cores
with other work beside it).

References:
    Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR
    2019, arXiv:1801.07698, eq. 4.
"""

import dataclasses
from typing import Any

from jax import Array

from metricjax import losses
from metricjax.training import experiment, settings

__all__ = ["Settings", "build"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(settings.ClassSettings):
    """Combined margin: the angle multiplied and shifted, the cosine lowered."""

    angle_factor: float = 1.0
    """Multiplies the angle to the true class."""

    angle_shift: float = 0.2
    """Added to that angle, in radians."""

    shift: float = 0.1
    """Taken off its cosine."""


def build(
    settings: Settings, image_shape: tuple[int, ...], classes: int
) -> experiment.Experiment:
    """The training problem; arguments as in `metricjax.training.recipes`."""

    def loss(
        x: Array, class_weights: Array, labels: Array, share: Any, **options: Any
    ) -> Any:
        return losses.combined(
            x,
            class_weights,
            labels,
            angle_factor=1.0 + share * (settings.angle_factor - 1.0),
            angle_shift=share * settings.angle_shift,
            shift=share * settings.shift,
            scale=settings.scale,
            reduction=None,
            **options,
        )

    return experiment.classifier(settings, image_shape, classes, loss)
