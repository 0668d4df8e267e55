"""How pictures of sounds are changed in training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metricjax.data import augment
from metricjax.training import inputs
from metricjax.training.settings import Settings

KEY = jax.random.key(0, impl="rbg")
LABELS = jnp.zeros(12, jnp.int32)


def changed(key, images, strength):
    settings = Settings(content="spectrograms", symmetries=1, augmentation=strength)
    return inputs.preparation(settings)(key, images, LABELS)[0]


@pytest.fixture
def images(rng):
    return jnp.asarray(rng.uniform(0.1, 0.9, (12, 16, 24, 1)), jnp.float32)


def test_without_strength_they_are_masked_and_nothing_else(images):
    out = np.asarray(changed(KEY, images, 0.0))
    masked = out == 0
    np.testing.assert_allclose(out[~masked], np.asarray(images)[~masked], atol=1e-6)
    # Whole rows and whole columns: at most two masks of an eighth along each.
    rows, columns = masked.all(axis=(2, 3)), masked.all(axis=(1, 3))
    assert (masked[..., 0] == rows[:, :, None] | columns[:, None]).all()
    assert 0 < rows.sum(axis=1).max() <= 4
    assert 0 < columns.sum(axis=1).max() <= 6


def test_the_changes_come_in_order_each_by_a_key_of_its_own(images):
    keys = jax.random.split(KEY, 5)
    expected = augment.affine(
        keys[0],
        images,
        rotation=0.0,
        shear=0.0,
        scale=(0.05, 0.5),
        shift=(0.02, 0.15),
        elastic=(0.05, 0.1),
        strength=1.5,
    )
    expected = augment.equalize(keys[1], expected, deviation=0.075)
    expected = augment.noise(keys[2], expected, level=0.6, tilt=0.15, deviation=0.075)
    expected = augment.time_mask(keys[3], expected, width=3)
    expected = augment.frequency_mask(keys[4], expected, width=2)
    out = changed(KEY, images, 1.5)
    np.testing.assert_allclose(out, expected, atol=1e-6)
    np.testing.assert_array_equal(out, changed(KEY, images, 1.5))
    assert not np.allclose(out, changed(jax.random.fold_in(KEY, 1), images, 1.5))
