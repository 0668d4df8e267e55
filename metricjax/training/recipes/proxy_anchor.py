"""Proxy-Anchor: each class has a proxy, which looks at all images of the batch.

Command:

    python train.py --recipe proxy_anchor

Proxies learn faster than the encoder, as in the paper. Its scale of 32 lets the hardest
images decide, and some classes cannot be told apart: a zero that is turned is a zero,
but of another class. On validation classes MAP@R was 0.64 with 32, at ten times or a
hundred times the encoder's rate, and 0.81 with 12.

Measured on digits never seen, mean of 3 splits: Recall@1 0.989 (raw pixels 0.983),
MAP@R 0.793 (raw pixels 0.482), EER 0.151 (raw pixels 0.342) (153,600 images in all,
about 3,000 a second on one core).

References:
    Kim et al., "Proxy Anchor Loss for Deep Metric Learning", CVPR 2020,
    arXiv:2003.13911, eq. 4.
"""

import dataclasses
from typing import Any

from jax import Array

from metricjax import losses
from metricjax.training import experiment, inputs, optimizers, settings

__all__ = ["Settings", "build"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(settings.BatchSettings):
    """Proxy-Anchor: each class has a proxy, which looks at all images of the batch."""

    margin: float = 0.1
    """Margin on either side of a cosine of zero."""

    scale: float = 12.0
    """How sharply the hardest images count."""

    proxy_rate: float = 10.0
    """Learning rate of the proxies, in those of the encoder."""

    def __post_init__(self):
        super().__post_init__()
        settings.check_positive(self, "scale", "proxy_rate")


def build(
    settings: Settings, image_shape: tuple[int, ...], classes: int
) -> experiment.Experiment:
    """The training problem; arguments as in `metricjax.training.recipes`."""

    def loss(x: Array, params: Any, labels: Array) -> Any:
        return losses.proxy_anchor(
            x,
            params["proxies"],
            labels,
            margin=settings.margin,
            scale=settings.scale,
            reduction=None,
        )

    return experiment.supervised(
        settings,
        image_shape,
        loss,
        batches=inputs.shuffled_batches(settings, batch=settings.batch),
        init_head=experiment.class_weights(settings, classes, name="proxies"),
        optimizer=optimizers.adamw(settings, rates={"proxies": settings.proxy_rate}),
    )
