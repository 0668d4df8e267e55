"""AdaFace: the margin of each image by its quality, the length of its embedding.

Command:

    python train.py --recipe adaface

Long embeddings, of good images, get a margin on the cosine, short ones a margin on the
angle, which pulls less where an image is hopeless. Running statistics of the lengths
say what is long.

Measured on digits never seen, mean of 3 splits: Recall@1 0.991 (raw pixels 0.983),
MAP@R 0.787 (raw pixels 0.482), EER 0.155 (raw pixels 0.342) (50 s in all, on two cores
with other work beside it).

References:
    Kim, Jain and Liu, "AdaFace: Quality Adaptive Margin for Face Recognition", CVPR
    2022, arXiv:2204.00964, eqs. 7 to 11.
"""

import dataclasses
from typing import Any

from jax import Array

from metricjax import losses, memory
from metricjax.training import experiment, settings

__all__ = ["Settings", "build"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(settings.BatchSettings):
    """AdaFace: the margin of each image by its quality, the length of its embedding."""

    scale: float = 16.0
    """Scale of the cosines in the softmax."""

    margin: float = 0.3
    """Margin of an image of average quality, on the cosine."""

    concentration: float = 0.333
    """How much of the spread of lengths makes the difference between margins."""

    def __post_init__(self):
        super().__post_init__()
        settings.check_positive(self, "scale", "concentration")


def build(
    settings: Settings, image_shape: tuple[int, ...], classes: int
) -> experiment.Experiment:
    """The training problem; arguments as in `metricjax.training.recipes`."""

    def loss(
        x: Array, class_weights: Array, labels: Array, statistics: Any, **options: Any
    ) -> Any:
        return losses.adaface(
            x,
            class_weights,
            statistics,
            labels,
            margin=settings.margin,
            concentration=settings.concentration,
            scale=settings.scale,
            reduction=None,
            **options,
        )

    def advance(statistics: Any, x: Array) -> tuple[Any, Any]:
        statistics = memory.update_norm_statistics(statistics, x)
        return statistics, statistics

    return experiment.classifier(
        settings,
        image_shape,
        classes,
        loss,
        memory=memory.init_norm_statistics(),
        advance=advance,
    )
