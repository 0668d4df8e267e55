"""Changes of images on the device, against loops over pixels."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metricjax.data import augment
from metricjax.training import parallel
from tests.oracles import augment as oracle

RANGES = {"rotation": 0.5, "scale": 0.3, "shear": 0.4, "shift": 0.2}
RANDOM = {
    "affine": functools.partial(augment.affine, elastic=0.1, size=(5, 4)),
    "thickness": augment.thickness,
    "crop": functools.partial(augment.crop, pad=2),
    "crop_reflect": functools.partial(augment.crop, pad=2, reflect=True),
    "flip": augment.flip,
    "color": augment.color,
    "time_mask": functools.partial(augment.time_mask, width=3),
    "frequency_mask": functools.partial(augment.frequency_mask, width=3),
    "equalize": augment.equalize,
    "noise": augment.noise,
}


@pytest.fixture
def key():
    """Of XLA's own generator, whose programs compile fast."""
    return jax.random.key(0, impl="rbg")


@pytest.fixture
def images(rng):
    return jnp.asarray(rng.random((5, 7, 6, 3)), jnp.float32)


# One program each; that each is the same without jit, a test of its own says.
affine = jax.jit(augment.affine, static_argnames=("elastic", "size"))
color = jax.jit(augment.color)
crop = jax.jit(augment.crop, static_argnames=("pad", "reflect"))
equalize = jax.jit(augment.equalize, static_argnames="knots")
masks = {
    name: jax.jit(getattr(augment, name), static_argnames=("width", "masks"))
    for name in ("time_mask", "frequency_mask")
}
noise = jax.jit(augment.noise, static_argnames="knots")
resize = jax.jit(augment.resize, static_argnames="size")
thickness = jax.jit(augment.thickness)


def drawn(key, count):
    """The six numbers of each map."""
    shape = (6, count)
    return np.asarray(jax.random.uniform(key, shape, minval=-1.0, maxval=1.0), float)


def test_strength_zero_changes_nothing(images, key):
    out = affine(key, images, strength=0.0, elastic=0.1)
    np.testing.assert_allclose(out, images, atol=1e-6)


def test_affine_maps_agree_with_a_loop_over_pixels(images, key):
    out, u = affine(key, images, **RANGES), drawn(key, 5)
    for i, image in enumerate(np.asarray(images, float)):
        field = np.zeros((7, 6, 2))
        expected = oracle.affine(image, u[:, i], field, **RANGES, size=(7, 6))
        np.testing.assert_allclose(out[i], expected, atol=2e-5)


def test_elastic_maps_to_another_size_agree_with_a_loop_over_pixels(images, key):
    size = (9, 5)
    out = affine(key, images, **RANGES, elastic=0.2, strength=0.5, size=size)
    u = 0.5 * drawn(key, 5)
    noise = jax.random.normal(jax.random.fold_in(key, 1), (5, 5, 5, 2))
    noise = np.asarray(noise, np.float64)
    for i, image in enumerate(np.asarray(images, float)):
        parts = [oracle.cubic(noise[i, :, :, part], size) for part in range(2)]
        field = 0.5 * 0.2 * np.stack(parts, axis=-1)
        expected = oracle.affine(image, u[:, i], field, **RANGES, size=size)
        np.testing.assert_allclose(out[i], expected, atol=2e-5)


def test_height_and_width_have_ranges_of_their_own(images, key):
    ranges = RANGES | {"scale": (0.1, 0.5), "shift": (0.05, 0.3)}
    elastic = (0.05, 0.2)
    out, u = affine(key, images, **ranges, elastic=elastic), drawn(key, 5)
    noise = jax.random.normal(jax.random.fold_in(key, 1), (5, 5, 5, 2))
    for i, image in enumerate(np.asarray(images, float)):
        parts = [oracle.cubic(np.asarray(noise)[i, ..., p], (7, 6)) for p in range(2)]
        field = np.stack(parts, axis=-1) * elastic
        expected = oracle.affine(image, u[:, i], field, **ranges, size=(7, 6))
        np.testing.assert_allclose(out[i], expected, atol=2e-5)


@pytest.mark.parametrize("name", ["scale", "shift", "elastic"])
def test_a_range_of_neither_one_nor_two_numbers_is_refused(images, key, name):
    with pytest.raises(ValueError, match=f"`{name}` to be one number or"):
        functools.partial(augment.affine, **{name: (0.1, 0.1, 0.1)})(key, images)


def test_elastic_leaves_the_affine_part_as_it_was(images, key):
    still = affine(key, images, **RANGES)
    moved = affine(key, images, **RANGES, elastic=1e-6)
    np.testing.assert_allclose(moved, still, atol=1e-4)


def test_resizing_is_the_affine_map_that_moves_nothing(images, key):
    for size in (4, (14, 6)):
        out = resize(images, size)
        expected = affine(key, images, strength=0.0, size=size)
        np.testing.assert_allclose(out, expected, atol=1e-6)


def test_halving_the_size_is_the_mean_of_blocks(rng):
    images = jnp.asarray(rng.random((2, 8, 6, 1)), jnp.float32)
    blocks = np.asarray(images).reshape(2, 4, 2, 3, 2, 1).mean(axis=(2, 4))
    np.testing.assert_allclose(resize(images, (4, 3)), blocks, atol=1e-6)


@pytest.mark.parametrize("size", [0, (3,), (0, 3), (1, 2, 3)])
def test_a_bad_size_is_refused(images, size):
    with pytest.raises(ValueError, match="size"):
        augment.resize(images, size)


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


def test_strokes_are_blended_with_their_dilation_or_faded(images, key):
    low, high = -0.6, 0.8
    out = thickness(key, images, low=low, high=high)
    t = jax.random.uniform(key, (5, 1, 1, 1), minval=low, maxval=high).reshape(-1)
    assert min(t) < 0 < max(t)
    for i, image in enumerate(np.asarray(images, float)):
        expected = oracle.thickness(image, float(t[i]))
        np.testing.assert_allclose(out[i], expected, atol=1e-6)


def test_each_device_changes_its_own_images_and_needs_no_others(rng, key):
    images = jnp.asarray(rng.random((16, 6, 6, 3)), jnp.float32)

    def every(key, images):
        turned = augment.symmetry(images, jnp.arange(16) % 8)
        return [turned, *(change(key, images) for change in RANDOM.values())]

    mesh = parallel.make_mesh(8)
    whole, rows = (jax.NamedSharding(mesh, spec) for spec in (jax.P(), jax.P("data")))
    many = jax.jit(every, in_shardings=(whole, rows), out_shardings=rows)
    text = many.lower(key, images).compile().as_text() or ""
    assert not re.search("all-gather|all-reduce|all-to-all|collective-permute", text)
    for found, expected in zip(many(key, images), every(key, images), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("reflect", [False, True])
def test_crops_are_windows_of_the_padded_image(rng, key, reflect):
    images = np.tile(rng.random((1, 7, 6, 2)).astype(np.float32), (200, 1, 1, 1))
    out = np.asarray(crop(key, jnp.asarray(images), pad=2, reflect=reflect))
    margins = ((2, 2), (2, 2), (0, 0))
    padded = np.pad(images[0], margins, "reflect" if reflect else "constant")
    windows = {
        padded[y : y + 7, x : x + 6].tobytes() for y in range(5) for x in range(5)
    }
    assert {image.tobytes() for image in out} == windows


@pytest.mark.parametrize("pad", [-1, 6])
def test_padding_beyond_the_image_is_refused(images, key, pad):
    with pytest.raises(ValueError, match=r"`pad` in \[0, 6\)"):
        augment.crop(key, images, pad=pad)


def test_half_of_the_images_are_mirrored(rng, key):
    images = jnp.asarray(rng.random((400, 3, 4, 1)), jnp.float32)
    out = np.asarray(jax.jit(augment.flip)(key, images))
    same = (out == images).all(axis=(1, 2, 3))
    mirrored = (out == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 150 < mirrored.sum() < 250


@pytest.mark.parametrize("part", ["brightness", "contrast", "saturation"])
def test_each_change_of_color_is_one_of_its_range(rng, key, part):
    image = rng.uniform(0.4, 0.6, (4, 3, 3))
    images = jnp.asarray(np.tile(image, (100, 1, 1, 1)), jnp.float32)
    nothing = dict.fromkeys(["brightness", "contrast", "saturation"], 0.0)
    out = np.asarray(color(key, images, **{**nothing, part: 0.5}), float)
    plain = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0}
    low = oracle.color(image, **{**plain, part: 0.5})
    high = oracle.color(image, **{**plain, part: 1.5})
    # Linear in the factor, so that each result shows its own.
    factors = (
        0.5 + ((out - low) * (high - low)).sum((1, 2, 3)) / ((high - low) ** 2).sum()
    )
    assert 0.5 <= factors.min() < 0.6
    assert 1.4 < factors.max() <= 1.5
    for changed, factor in zip(out[:5], factors[:5], strict=True):
        expected = oracle.color(image, **{**plain, part: factor})
        np.testing.assert_allclose(changed, expected, atol=1e-6)


def test_changes_of_color_come_in_order_and_stay_in_range(rng, key):
    image = rng.random((4, 3, 3))
    images = jnp.asarray(np.tile(image, (300, 1, 1, 1)), jnp.float32)
    out = color(key, images, brightness=0.9, contrast=3.0, saturation=3.0)
    assert float(out.min()) == 0.0
    assert float(out.max()) == 1.0
    keys = jax.random.split(key, 3)
    bounds = zip(keys, (0.1, 0.0, 0.0), (1.9, 4.0, 4.0), strict=True)
    factors = [
        np.asarray(jax.random.uniform(k, (300, 1, 1, 1), minval=a, maxval=b)).reshape(
            -1
        )
        for k, a, b in bounds
    ]
    for i in range(5):
        expected = oracle.color(image, *(float(factor[i]) for factor in factors))
        np.testing.assert_allclose(out[i], expected, atol=2e-5)


def test_grey_images_have_no_saturation(rng, key):
    images = jnp.asarray(rng.random((3, 4, 4, 1)), jnp.float32)
    out = color(key, images, brightness=0.0, contrast=0.0, saturation=0.9)
    np.testing.assert_allclose(out, images, atol=1e-6)


def test_images_of_other_channels_have_no_colors(key):
    with pytest.raises(ValueError, match="1 or 3 channels"):
        augment.color(key, jnp.zeros((2, 4, 4, 2)))


@pytest.mark.parametrize(("mask", "axis"), [("time_mask", 2), ("frequency_mask", 1)])
def test_a_mask_is_one_stretch_of_each_length_at_every_place(key, mask, axis):
    images = jnp.ones((600, 5, 5, 2))
    out = np.asarray(masks[mask](key, images, width=3, masks=1))
    rows = np.moveaxis(out, axis, 1)
    # The same for every channel and along the other axis.
    assert (rows == rows[:, :, :1, :1]).all()
    found = [oracle.runs(row == 0) for row in rows[:, :, 0, 0]]
    assert max(map(len, found)) == 1
    seen = {run for runs in found for run in runs}
    every = {(s, n) for n in (1, 2, 3) for s in range(5 - n + 1)}
    assert seen == every
    # Lengths 0 to 3 are equally frequent: 150 each, with a deviation of 11.
    counts = np.bincount([runs[0][1] if runs else 0 for runs in found])
    assert np.abs(counts - 150).max() < 50


def test_several_masks_are_at_most_so_many_and_leave_the_rest(rng, key):
    images = jnp.asarray(rng.uniform(0.5, 1, (200, 4, 20, 1)), jnp.float32)
    out = np.asarray(masks["time_mask"](key, images, width=4, masks=3))
    assert ((out == images) | (out == 0)).all()
    found = [oracle.runs(row == 0) for row in out[:, 0, :, 0]]
    assert max(len(runs) for runs in found) == 3
    assert max(sum(length for _, length in runs) for runs in found) <= 12
    none = masks["time_mask"](key, images, width=4, masks=0)
    np.testing.assert_array_equal(none, images)


def test_a_mask_wider_than_the_picture_is_refused(key, images):
    with pytest.raises(ValueError, match=r"`width` in \[0, 6\]"):
        augment.time_mask(key, images, width=7)


def test_a_gain_is_a_smooth_curve_over_frequency_and_spares_silence(key):
    images = jnp.asarray(np.random.default_rng(1).random((3, 9, 4, 1)), jnp.float32)
    images = images.at[:, 2:4].set(0.0)
    out = equalize(key, images, deviation=0.3, knots=5)
    points = np.asarray(jax.random.normal(key, (3, 5)), float)
    weights = oracle.cubic_weights(5, 9)
    for image, changed, own in zip(np.asarray(images), out, points, strict=True):
        for row in range(9):
            gain = 0.3 * sum(w * p for w, p in zip(weights[row], own, strict=True))
            expected = [min(1, max(0, x + gain)) if x else 0 for x in image[row, :, 0]]
            np.testing.assert_allclose(changed[row, :, 0], expected, atol=1e-5)


def test_noise_is_heard_where_it_is_louder(key):
    images = jnp.asarray(np.random.default_rng(1).random((4, 9, 5, 2)), jnp.float32)
    images = images.at[0].set(0.0)
    out = noise(key, images, level=0.8, tilt=0.2, deviation=0.1, knots=3)
    level_key, tilt_key, pixel_key = jax.random.split(key, 3)
    levels = jax.random.uniform(level_key, (4, 1, 1, 1), minval=-0.24, maxval=0.8)
    points = np.asarray(jax.random.normal(tilt_key, (4, 3)), float)
    pixels = np.asarray(jax.random.normal(pixel_key, (4, 9, 5, 2)), float)
    weights = oracle.cubic_weights(3, 9)
    for i in range(4):
        for row in range(9):
            color = sum(w * p for w, p in zip(weights[row], points[i], strict=True))
            heard = float(levels[i, 0, 0, 0]) + 0.2 * color + 0.1 * pixels[i, row]
            expected = np.maximum(images[i, row], np.clip(heard, 0, 1))
            np.testing.assert_allclose(out[i, row], expected, atol=1e-5)


@pytest.mark.parametrize("name", RANDOM)
def test_each_is_pure_random_by_image_and_the_same_under_jit_and_vmap(name):
    change = RANDOM[name]
    keys = jax.random.split(jax.random.key(3), 2)
    image = np.random.default_rng(0).random((7, 6, 3)).astype(np.float32)
    images = jnp.asarray(np.tile(image, (8, 1, 1, 1)))
    eager = [change(key, images) for key in keys]
    assert len({np.asarray(image).tobytes() for image in eager[0]}) > 1
    assert np.abs(eager[0] - eager[1]).max() > 0.01
    mapped = jax.jit(jax.vmap(change, (0, None)))(keys, images)
    np.testing.assert_allclose(mapped, np.stack(eager), atol=1e-5)


@pytest.mark.parametrize("name", RANDOM)
def test_each_keeps_the_dtype_without_silent_promotion(name, strict, key):
    for dtype in (jnp.float32, jnp.bfloat16):
        images = jax.ShapeDtypeStruct((2, 7, 6, 3), dtype)
        assert jax.eval_shape(RANDOM[name], key, images).dtype == dtype


@pytest.mark.parametrize("name", RANDOM)
def test_integers_and_single_images_are_refused(name, key):
    with pytest.raises(TypeError, match="floating"):
        RANDOM[name](key, jnp.ones((2, 7, 6, 3), jnp.uint8))
    with pytest.raises(ValueError, match=r"\[batch, height, width, channels\]"):
        RANDOM[name](key, jnp.ones((7, 6, 3)))


def test_positions_in_half_precision_are_not_rounded(rng, key):
    images = jnp.asarray(rng.random((2, 60, 60, 1)), jnp.bfloat16)
    exact = affine(key, images.astype(jnp.float32))
    np.testing.assert_allclose(
        affine(key, images).astype(jnp.float32), exact, atol=2**-8
    )
