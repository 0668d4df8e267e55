"""Random changes of images, on the device and under `jax.jit`.

Every random function takes a key first and floating images `[batch, height, width,
channels]` whose background is 0, changes each image in its own way, and is pure: the
same key gives the same images. Characters: `affine`, `symmetry`, `thickness`; photos:
`crop`, `flip`, `color`; sounds, as `metricjax.data.audio` pictures them: `equalize`,
`noise`, `time_mask`, `frequency_mask`.
"""

from metricjax.data.augment._photos import color, crop, flip
from metricjax.data.augment._spectrograms import (
    equalize,
    frequency_mask,
    noise,
    time_mask,
)
from metricjax.data.augment._strokes import thickness
from metricjax.data.augment._warp import affine, resize, symmetry

__all__ = [
    "affine",
    "color",
    "crop",
    "equalize",
    "flip",
    "frequency_mask",
    "noise",
    "resize",
    "symmetry",
    "thickness",
    "time_mask",
]
