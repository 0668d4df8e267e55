r"""Combined margin: the angle multiplied and shifted, the cosine lowered.

Command:

    python train.py --recipe combined

Faces of people never seen, with a threshold calibrated on others (images of the AT&T
set, 40 people, as an .npz file of arrays `images` and `labels`):

    python train.py --recipe combined --data npz:FACES.npz --image-size 64 \
        --content photos --symmetries 4 --join-symmetries --batch 64 --held-out 0 \
        --test-classes 10 --calibration-classes 5 --splits 5 --steps 400 \
        --average-views 8 --whiten 0.2 --whiten-total 0.1

Of this, mean and standard deviation of 5 splits, fifth look: EER 4.1 ± 2.3 % (raw
pixels 15.1 ± 2.7), and one enrolled image of each person names 96.7 ± 1.6 % of the
others. With upright faces alone, 200 steps and whitening at 0.05 and 0.2 it was 5.0 ±
2.3 and 96.3 ± 1.5 %, without whitening 6.8 ± 2.8 and 92.5 ± 2.4 %.

All was chosen on training people, 15 of them left to train on. Validation EER with
upright faces: 6.9 % without whitening, 5.0 at a shrinkage of 0.05, with a total share
of 0.2 besides 4.65; 400 steps 4.9. With turned faces as further people, 400 steps, one
embedding: 4.3 at 0.05 and 0.2, 3.8 or 3.9 at a shrinkage of 0.1 to 0.3 and a total
share of 0.1; the four turns side by side, whitened each by itself, 3.3 to 3.5 there,
and 4.4 or more if whitened as one. 800 steps are too many.

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
