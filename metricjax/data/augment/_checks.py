"""What every augmentation expects of its images."""

import jax.numpy as jnp
from jax.typing import ArrayLike

from metricjax import _checks


def check_images(images: ArrayLike) -> None:
    """Raise unless `images` are floating `[batch, height, width, channels]`."""
    if jnp.ndim(images) != 4:
        raise ValueError(
            "Expected `images` of shape [batch, height, width, channels], got "
            f"{_checks.describe(images)}; give a single grey image as "
            "image[None, :, :, None]."
        )
    _checks.check_float("images", images)
