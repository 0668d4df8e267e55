"""A small untrained encoder of 28x28 digits, and digits as image files."""

import jax
import numpy as np
import pytest
from PIL import Image

from metricjax import bundle, data, encoders


@pytest.fixture(scope="session")
def ready():
    """A bundle without calibration and gallery; it embeds in 8 dimensions."""
    arguments = {"image_shape": [28, 28, 1], "hidden": [16], "dim": 8, "dropout": 0.1}
    encoder = encoders.deferred(lambda rngs: encoders.MLP(**arguments, rngs=rngs))
    params, state = encoder.init(jax.random.key(0))
    return bundle.make(
        {"encoder": "MLP", "arguments": arguments},
        params,
        state,
        image_shape=(28, 28, 1),
        trained_on=["trained"],
    )


@pytest.fixture(scope="session")
def digits():
    """Images `[10, 6, 28, 28]`: six of each digit."""
    found = data.load("digits")
    return np.stack(
        [found.images[found.labels == digit][:6, ..., 0] for digit in range(10)]
    )


@pytest.fixture(scope="session")
def picture():
    """`(path, pixels)` writes an image file, and its folder."""

    def write(path, pixels, **options):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, **options)
        return path

    return write


@pytest.fixture
def folder(tmp_path, digits, picture):
    """A folder of five identities of six images."""
    root = tmp_path / "people"
    for digit in range(5):
        for i, pixels in enumerate(digits[digit]):
            picture(root / f"d{digit}" / f"{i}.png", pixels)
    return root
