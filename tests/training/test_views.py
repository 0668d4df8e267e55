"""Views of an image, and the encoder that takes the mean of their embeddings."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metricjax import bundle
from metricjax.data import augment
from metricjax.training import experiment, recipes, views
from metricjax.training.settings import Settings

KEY = jax.random.key(0)
FLAT: dict[str, Any] = {
    "encoder": "mlp",
    "width": 1,
    "dim": 3,
    "symmetries": 1,
    "content": "photos",
}

CHARACTERS: dict[str, Any] = {**FLAT, "content": "characters", "symmetries": 4}


@pytest.fixture
def images(rng):
    return jnp.asarray(rng.random((5, 12, 10, 1)), jnp.float32)


def linear(params, state, images, *, train, key=None):
    return images.reshape(images.shape[0], -1) @ params, state


def test_the_first_view_is_the_image_as_it_is_and_photos_have_mirror_images(images):
    first, second, third, fourth = views.of_content("photos", 4)
    np.testing.assert_array_equal(first(images), images)
    np.testing.assert_array_equal(second(images), images[:, :, ::-1])
    np.testing.assert_array_equal(fourth(images), third(images[:, :, ::-1]))
    assert not np.allclose(third(images), images, atol=0.01)


@pytest.mark.parametrize(("content", "count"), [("characters", 3), ("photos", 4)])
def test_all_images_are_mapped_alike_each_view_by_a_map_of_its_own(
    images, content, count
):
    @jax.jit
    def seen(images):
        return jnp.stack([view(images) for view in views.of_content(content, count)])

    whole, last = seen(images), seen(images.at[:4].set(0.0))
    np.testing.assert_allclose(last[:, 4], whole[:, 4], atol=1e-6)
    np.testing.assert_allclose(
        seen(images[::-1])[:, ::-1], whole, atol=1e-6, err_msg="depends on the place"
    )
    for i in range(count):
        for j in range(i):
            assert not np.allclose(whole[i], whole[j], atol=0.01)


def test_the_views_of_characters_are_those_that_omniglot_was_measured_with(images):
    found = views.of_content("characters", 3, size=8)
    np.testing.assert_allclose(found[0](images), augment.resize(images, 8))
    ranges = {"rotation": 0.14, "scale": 0.12, "shear": 0.15, "shift": 0.035}
    for index in (1, 2):
        key = jax.random.key(index)
        expected = augment.affine(key, images[:1], size=8, **ranges)
        np.testing.assert_allclose(found[index](images)[:1], expected, atol=1e-6)


def test_the_mean_is_that_of_unit_embeddings_of_the_views(images, rng):
    weights = rng.normal(size=(120, 4)).astype(np.float32)
    seen = views.of_content("photos", 4)
    apply = views.averaged(linear, seen)
    expected = np.zeros((5, 4))
    for view in seen:
        x = np.float64(view(images)).reshape(5, 120) @ weights
        expected += x / np.linalg.norm(x, axis=1, keepdims=True)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found, state = jax.jit(apply, static_argnames="train")(
        weights, {"count": 1}, images, train=False
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert int(state["count"]) == 1


def test_in_training_an_image_is_seen_once(images, rng):
    weights = rng.normal(size=(120, 4)).astype(np.float32)
    apply = views.averaged(linear, views.of_content("photos", 4))
    found = apply(weights, {}, images, train=True)[0]
    np.testing.assert_array_equal(found, linear(weights, {}, images, train=True)[0])


def test_a_photo_and_its_mirror_image_have_one_embedding(images):
    settings = Settings(**FLAT, average_views=6)
    model = experiment.encoder(settings, (12, 10, 1))
    params, state = model.init(KEY)
    found = model.apply(params, state, images, train=False)[0]
    mirrored = model.apply(params, state, images[:, :, ::-1], train=False)[0]
    np.testing.assert_allclose(mirrored, found, atol=1e-5)
    single = experiment.encoder(Settings(**FLAT), (12, 10, 1)).apply
    assert not np.allclose(single(params, state, images, train=False)[0], found)


def test_views_have_the_size_that_the_encoder_sees(images):
    settings = Settings(**FLAT, input_size=6, average_views=3)
    model = experiment.encoder(settings, (12, 10, 1))
    params, state = model.init(KEY)
    assert model.apply(params, state, images, train=False)[0].shape == (5, 3)


def bundled(settings, image_shape):
    """A bundle of recipe arcface, untrained."""
    problem = recipes.load("arcface").build(
        recipes.load("arcface").Settings(**settings), image_shape, 5
    )
    state = problem.init(KEY)
    return bundle.make(
        {"recipe": "arcface", "settings": settings, "classes": 5},
        state.params["encoder"],
        state.model_state,
        image_shape=image_shape,
    )


def test_a_bundle_embeds_in_the_views_of_its_run_and_so_does_its_program(rng):
    ready = bundled({**FLAT, "average_views": 4}, (12, 10, 1))
    shown = rng.integers(0, 256, (3, 12, 10, 1), dtype=np.uint8)
    embed = bundle.embedder(ready)
    np.testing.assert_allclose(embed(shown[:, :, ::-1]), embed(shown), atol=1e-5)
    program = bundle.export(ready, platforms=["cpu"])
    np.testing.assert_allclose(program.call(shown), embed(shown), atol=1e-5)


def test_symmetries_side_by_side_are_embedded_each_by_itself(rng):
    images = jnp.asarray(rng.random((3, 5, 5, 1)), jnp.float32)
    weights = rng.normal(size=(25, 4)).astype(np.float32)
    found, state = jax.jit(views.joined(linear, 8), static_argnames="train")(
        weights, {"count": 1}, images, train=False
    )
    turned = [np.rot90(images, turns, axes=(1, 2)) for turns in range(4)]
    turned += [each[:, :, ::-1] for each in turned]
    expected = [each.reshape(3, 25) @ weights for each in turned]
    np.testing.assert_allclose(found, np.concatenate(expected, axis=1), atol=1e-5)
    assert int(state["count"]) == 1
    seen = views.joined(linear, 8)(weights, {}, images, train=True)[0]
    np.testing.assert_array_equal(seen, linear(weights, {}, images, train=True)[0])


@pytest.mark.parametrize("others", [{}, {"average_views": 3}, {"whiten": 0.5}])
def test_a_run_joins_the_symmetries_that_it_trains_on(rng, others):
    settings = {**CHARACTERS, "join_symmetries": True, **others}
    images = jnp.asarray(rng.random((3, 8, 8, 1)), jnp.float32)
    problem = recipes.load("arcface").build(
        recipes.load("arcface").Settings(**settings), (8, 8, 1), 5
    )
    state = problem.init(KEY)
    params, kept = state.params["encoder"], state.model_state
    found = problem.apply(params, kept, images, train=False)[0]
    assert found.shape == (3, 12)
    alone = recipes.load("arcface").Settings(**{**CHARACTERS, **others, "whiten": None})
    single = experiment.encoder(alone, (8, 8, 1)).apply
    own = {name: leaf for name, leaf in kept.items() if name != "whitening"}
    for turns in range(4):
        turned = jnp.rot90(images, turns, axes=(1, 2))
        part = single(params, own, turned, train=False)[0]
        np.testing.assert_allclose(found[:, 3 * turns : 3 * turns + 3], part, atol=1e-5)


def test_a_bundle_joins_the_symmetries_of_its_run_and_so_does_its_program(rng):
    ready = bundled({**CHARACTERS, "join_symmetries": True}, (8, 8, 1))
    shown = rng.integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    embed = bundle.embedder(ready)
    found = embed(shown)
    turned = embed(np.ascontiguousarray(np.rot90(shown, axes=(1, 2))))
    again = np.roll(turned.reshape(3, 4, 3), 1, axis=1).reshape(3, 12)
    np.testing.assert_allclose(again, found, atol=1e-5)
    program = bundle.export(ready, platforms=["cpu"])
    np.testing.assert_allclose(program.call(shown), found, atol=1e-5)


def test_symmetries_are_joined_only_if_there_are_some():
    with pytest.raises(ValueError, match="--symmetries of 4 or 8 with --join-sym"):
        Settings(symmetries=1, join_symmetries=True)
    for count in (0, 9):
        with pytest.raises(ValueError, match=rf"`symmetries` in 1\.\.8, got {count}"):
            views.joined(linear, count)
    with pytest.raises(ValueError, match="Expected square images"):
        views.joined(linear, 4)({}, {}, jnp.zeros((1, 2, 3, 1)), train=False)


def test_what_has_no_views_is_refused():
    with pytest.raises(ValueError, match="--average-views 1 for spectrograms, got 2"):
        Settings(content="spectrograms", symmetries=1, average_views=2)
    with pytest.raises(ValueError, match="--average-views above 0, got 0"):
        Settings(average_views=0)
    with pytest.raises(ValueError, match="Expected 1 view of an image of vectors"):
        views.of_content("vectors", 2)
    center = recipes.load("center")
    settings = center.Settings(
        encoder="mlp", width=1, symmetries=1, test_classes=0, average_views=2
    )
    with pytest.raises(ValueError, match="--average-views 1 where embeddings are not"):
        center.build(settings, (8, 8, 1), 10)
