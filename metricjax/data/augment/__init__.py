"""Random changes of images, on the device and under `jax.jit`.

Every random function takes a key first and floating images `[batch, height, width,
channels]` whose background is 0, changes each image in its own way, and is pure: the
same key gives the same images. Characters: `affine`, `symmetry`, `thickness`; photos:
`crop`, `flip`, `color`; sounds, as `metricjax.data.audio` pictures them: `time_mask`,
`frequency_mask`.
"""

from metricjax.data.augment._photos import color, crop, flip
from metricjax.data.augment._spectrograms import frequency_mask, time_mask
from metricjax.data.augment._strokes import thickness
from metricjax.data.augment._warp import affine, resize, symmetry

__all__ = [
    "affine",
    "color",
    "crop",
    "flip",
    "frequency_mask",
    "resize",
    "symmetry",
    "thickness",
    "time_mask",
]
