from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metricjax import losses
from metricjax.training import experiment, inputs, optimizers
from metricjax.training.settings import BatchSettings, ClassSettings, Settings
from metricjax.training.splits import Examples

KEY = jax.random.key(0)
FLAT: dict[str, Any] = {
    "encoder": "mlp",
    "width": 1,
    "dim": 3,
    "symmetries": 1,
    "augmentation": 0.0,
}


@pytest.fixture
def examples(rng):
    images = rng.integers(0, 256, (20, 4, 4, 1), dtype=np.uint8)
    return Examples(images, np.arange(20, dtype=np.int32) % 4)


def test_memory_starts_anew_in_each_split(examples):
    settings = BatchSettings(**FLAT)

    def loss(x, params, labels, count):
        return losses.supcon(x, labels, reduction=None), count + 1

    problem = experiment.supervised(
        settings,
        (4, 4, 1),
        loss,
        batches=inputs.shuffled_batches(settings, batch=8),
        # An array of JAX, which a step that is given it would delete.
        memory=jnp.zeros(()),
    )
    draw = problem.batches(examples, 0)
    for _ in range(2):
        state = problem.init(KEY)
        for t in range(3):
            state, _ = problem.step(state, draw(t))
        assert float(state.loss_state) == 3.0


def test_the_margin_grows_during_the_warm_up(examples):
    settings = ClassSettings(**FLAT, steps=8, warm_up=0.5, batch=8)
    shares = []

    def loss(x, class_weights, labels, share):
        jax.debug.callback(lambda value: shares.append(float(value)), share)
        return losses.normface(x, class_weights, labels, reduction=None)

    problem = experiment.classifier(settings, (4, 4, 1), 4, loss)
    draw, state = problem.batches(examples, 0), problem.init(KEY)
    for t in range(6):
        state, _ = problem.step(state, draw(t))
    jax.effects_barrier()
    assert shares == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


def test_parts_may_learn_at_rates_of_their_own():
    settings = Settings(steps=10, weight_decay=0.0)
    params = {"encoder": jnp.ones(2), "proxies": jnp.ones(2)}
    optimizer = optimizers.adamw(settings, rates={"proxies": 10.0})
    gradient = jax.tree.map(jnp.ones_like, params)
    updates: Any = optimizer.update(gradient, optimizer.init(params), params)[0]
    ratio = updates["proxies"] / updates["encoder"]
    np.testing.assert_allclose(ratio, 10.0, rtol=1e-6)


def test_an_update_of_several_batches_is_that_of_one_large_batch(rng):
    def loss(x, params, labels):
        return losses.normface(x, params["head"], labels, reduction=None)

    images = rng.integers(0, 256, (16, 16, 16, 1), dtype=np.uint8)
    labels, found = np.arange(16, dtype=np.int32) % 4, []
    for batch, steps, accumulate in ((8, 4, 2), (16, 2, 1)):
        # A net without dropout, of which each batch would draw its own.
        flat = {**FLAT, "encoder": "convnet"}
        settings = Settings(**flat, steps=steps, accumulate=accumulate)
        problem = experiment.supervised(
            settings,
            (16, 16, 1),
            loss,
            batches=inputs.shuffled_batches(settings, batch=batch),
            init_head=experiment.class_weights(settings, 4),
            optimizer=optax.sgd(0.1),
        )
        state = problem.init(KEY)
        for t in range(steps):
            rows = slice(t * batch % 16, t * batch % 16 + batch)
            before = jax.tree.map(np.array, state.params)
            state, _ = problem.step(state, (images[rows], labels[rows]))
            if accumulate == 2 and t % 2 == 0:
                jax.tree.map(np.testing.assert_array_equal, state.params, before)
        found.append(state.params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *found
    )


def test_the_linear_encoder_maps_counts_of_unit_length_linearly(rng):
    settings = Settings(
        encoder="linear", content="vectors", dim=3, symmetries=1, augmentation=0.0
    )
    model = experiment.encoder(settings, (6,))
    params, state = model.init(KEY)
    counts = rng.integers(0, 9, (5, 6), dtype=np.uint8)
    found = model.apply(params, state, counts, train=False)[0]
    logs = np.log1p(np.float64(counts))
    unit = logs / np.linalg.norm(logs, axis=1, keepdims=True)
    layer = params["embedding"]
    expected = 6**0.5 * unit @ layer["kernel"] + layer["bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_rates_count_updates():
    settings = Settings(steps=80, accumulate=4, weight_decay=0.0)
    plain = Settings(steps=20, weight_decay=0.0)
    results = []
    for chosen in (settings, plain):
        optimizer = optimizers.adamw(chosen)
        params: Any = {"w": jnp.zeros(())}
        state = optimizer.init(params)
        for _ in range(20):
            updates, state = optimizer.update({"w": jnp.ones(())}, state, params)
            params = optax.apply_updates(params, updates)
        results.append(float(params["w"]))
    assert results[0] == results[1]


def test_batches_that_no_update_would_take_are_refused():
    with pytest.raises(ValueError, match="multiple of --accumulate 3, got 400.* 402"):
        Settings(accumulate=3)
    with pytest.raises(ValueError, match="--accumulate above 0"):
        Settings(accumulate=0)


def test_frozen_layers_stay_to_the_bit_and_the_rest_learns(examples):
    settings = Settings(**FLAT, freeze=("*", "!embedding"), weight_decay=0.1)

    def loss(x, params, labels):
        return losses.supcon(x, labels, reduction=None)

    batches = inputs.pk_batches(settings, classes=4, examples=2)
    problem = experiment.supervised(settings, (4, 4, 1), loss, batches=batches)
    draw, state = problem.batches(examples, 0), problem.init(KEY)
    before = jax.tree.map(np.asarray, state.params["encoder"])
    for t in range(3):
        state, _ = problem.step(state, draw(t))
    after = state.params["encoder"]
    jax.tree.map(np.testing.assert_array_equal, after["hidden"], before["hidden"])
    assert (
        np.asarray(after["embedding"]["kernel"]) != before["embedding"]["kernel"]
    ).any()


def test_images_of_another_size_are_resampled_to_that_of_the_input():
    settings = Settings(**{**FLAT, "augmentation": 1.0, "input_size": 6})
    model = experiment.encoder(settings, (9, 9, 1))
    params, state = model.init(KEY)
    images = jnp.ones((2, 9, 9, 1))
    assert model.apply(params, state, images, train=False)[0].shape == (2, 3)
    changed, _ = inputs.preparation(settings)(KEY, images, jnp.zeros(2, jnp.int32))
    assert changed.shape == (2, 6, 6, 1)


@pytest.mark.parametrize("content", ["photos", "spectrograms"])
def test_what_the_images_show_decides_how_they_are_changed(content, rng):
    settings = Settings(content=content, symmetries=1, augmentation=1.0)
    images = jnp.asarray(rng.random((4, 16, 16, 1)), jnp.float32)
    labels = jnp.arange(4)
    changed, same = inputs.preparation(settings)(KEY, images, labels)
    assert changed.shape == images.shape
    assert not np.allclose(changed, images)
    assert same is labels


def test_the_residual_net_pools_spectrograms_over_time_and_nothing_else():
    def sizes(content, frames):
        settings = Settings(content=content, symmetries=1, width=2, dim=3)
        model = experiment.encoder(settings, (28, frames, 1))
        params, _ = jax.eval_shape(model.init, KEY)
        return params["embedding"]["kernel"].shape

    # 16 channels at 4 heights, the mean and the maximum of each.
    assert sizes("spectrograms", 32) == sizes("spectrograms", 64) == (128, 3)
    assert (sizes("photos", 32), sizes("photos", 64)) == ((256, 3), (512, 3))


def test_only_characters_become_new_classes_when_they_are_mirrored():
    with pytest.raises(ValueError, match="--symmetries 1 or 4 for photos, got 8"):
        Settings(content="photos")
    assert Settings(content="photos", symmetries=4).symmetries == 4
    with pytest.raises(ValueError, match="--symmetries 1 for spectrograms, got 4"):
        Settings(content="spectrograms", symmetries=4)


def test_counts_are_compared_by_their_profile():
    settings = Settings(**FLAT, content="vectors")
    model = experiment.encoder(settings, (8,))
    params, state = model.init(KEY)
    counts = jnp.array([[1, 0, 2, 0, 0, 0, 3, 0]], jnp.uint8)
    found = model.apply(params, state, counts, train=False)[0]
    profile = np.log1p(np.float64(counts))
    profile *= np.sqrt(8) / np.linalg.norm(profile)
    plain = experiment.encoder(Settings(**FLAT), (8,))
    expected = plain.apply(
        params, state, jnp.asarray(profile, jnp.float32), train=False
    )
    np.testing.assert_allclose(found, expected[0], rtol=1e-5)
