import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metricjax.training import augment


@pytest.fixture
def key():
    """Of XLA's own generator, whose programs compile fast."""
    return jax.random.key(0, impl="rbg")


affine = jax.jit(augment.affine)


@pytest.fixture
def images(rng):
    return jnp.asarray(rng.random((5, 7, 6, 2)), jnp.float32)


def bilinear(image, y, x):
    """The value at a real position, from the definition; 0 outside."""
    height, width = image.shape[:2]
    total = np.zeros(image.shape[2])
    for row in range(height):
        for column in range(width):
            weight = max(0.0, 1.0 - abs(y - row)) * max(0.0, 1.0 - abs(x - column))
            total += weight * image[row, column]
    return total


def test_strength_zero_changes_nothing(images, key):
    np.testing.assert_allclose(affine(key, images, strength=0.0), images, atol=1e-6)


def test_affine_maps_agree_with_a_loop_over_pixels(images, key):
    ranges = {"rotation": 0.5, "scale": 0.3, "shear": 0.4, "shift": 0.2}
    out = affine(key, images, **ranges)
    u = np.asarray(jax.random.uniform(key, (6, 5), minval=-1.0, maxval=1.0), np.float64)
    for i in range(5):
        angle, shear = 0.5 * u[0, i], 0.4 * u[1, i]
        turn = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        matrix = np.diag(np.exp(0.3 * u[2:4, i])) @ turn @ [[1.0, shear], [0.0, 1.0]]
        center = np.array([3.0, 2.5])
        for row in range(7):
            for column in range(6):
                y, x = matrix @ ([row, column] - center) + center
                y, x = y + 0.2 * 7 * u[4, i], x + 0.2 * 6 * u[5, i]
                expected = bilinear(np.float64(images[i]), y, x)
                np.testing.assert_allclose(out[i, row, column], expected, atol=2e-5)


def test_images_of_a_batch_get_different_maps(key):
    images = jnp.tile(jnp.arange(64.0).reshape(1, 8, 8, 1), (3, 1, 1, 1))
    out = np.asarray(affine(key, images))
    assert np.abs(out[0] - out[1]).max() > 0.1
    assert np.abs(out[1] - out[2]).max() > 0.1


def test_the_same_key_gives_the_same_images_under_jit(images, key):
    eager = augment.affine(key, images)
    np.testing.assert_allclose(affine(key, images), eager, atol=1e-5)


def test_symmetries_are_the_turns_and_flips_of_numpy(rng):
    images = rng.random((8, 5, 5, 3)).astype(np.float32)
    out = jax.jit(augment.symmetry)(images, np.arange(8))
    for i in range(8):
        expected = np.rot90(images[i], i % 4)
        expected = np.fliplr(expected) if i >= 4 else expected
        np.testing.assert_array_equal(out[i], expected)


def test_symmetries_of_oblong_images_are_refused(images):
    with pytest.raises(ValueError, match="Expected square images"):
        augment.symmetry(images, jnp.zeros(5, int))
