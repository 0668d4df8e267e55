"""The siamese encoder of Koch et al. is the paper's, and has a form that is small."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from metricjax import bundle, encoders, heads

LIGHT = {
    "image_shape": (28, 28, 1),
    "width": 2,
    "units": 16,
    "kernels": (5, 5, 3, 3),
    "padding": "SAME",
}


def abstract(**settings):
    """Parameters and outputs without a single number computed."""
    encoder = encoders.deferred(lambda rngs: encoders.Koch(**settings, rngs=rngs))
    return encoder.apply, *jax.eval_shape(encoder.init, jax.random.key(0))


def total(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_encoder_and_head_have_the_paper_s_38_951_745_parameters():
    _, params, state = abstract()
    head = jax.eval_shape(lambda key: heads.init_weighted_l1(key, 4096), keys())
    assert (total(params), state) == (38_947_648, {})
    assert total(params) + total(head) == 38_951_745


def keys():
    return jax.eval_shape(lambda: jax.random.key(0))


def test_every_kernel_has_the_paper_s_shape():
    _, params, _ = abstract()
    found = [params["convolutions"][i]["kernel"].shape for i in range(4)]
    assert found == [
        (10, 10, 1, 64),
        (7, 7, 64, 128),
        (4, 4, 128, 128),
        (4, 4, 128, 256),
    ]
    assert params["embedding"]["kernel"].shape == (9216, 4096)


def test_feature_maps_have_the_sizes_of_figure_4():
    table = encoders.summary(lambda rngs: encoders.Koch(rngs=rngs), (105, 105, 1))
    outputs = [line.split(" | ")[2] for line in table.splitlines()[2:7]]
    # Before pooling: 48, 21 and 9 remain of the first three.
    assert outputs == [
        *("96 x 96 x 64", "42 x 42 x 128", "18 x 18 x 128", "6 x 6 x 256"),
        "4096",
    ]


def test_the_light_form_is_the_network_written_out(rng):
    def build(rngs):
        return encoders.Koch(**LIGHT, paper_init=False, rngs=rngs)

    apply, params, state = encoders.functional(build(nnx.Rngs(0)))
    images = rng.random((2, 28, 28, 1)).astype(np.float32)
    embeddings, _ = apply(params, state, jnp.asarray(images), train=True)
    x = images.astype(np.float64)
    for index in range(4):
        layer = params["convolutions"][index]
        x = np.maximum(convolve(x, np.float64(layer["kernel"])) + layer["bias"], 0.0)
        if index < 3:
            half = x.shape[1] // 2
            x = x[:, : 2 * half, : 2 * half].reshape(2, half, 2, half, 2, -1)
            x = x.max(axis=(2, 4))
    last = params["embedding"]
    logits = x.reshape(2, -1) @ np.float64(last["kernel"]) + last["bias"]
    np.testing.assert_allclose(embeddings, 1 / (1 + np.exp(-logits)), rtol=1e-5)


def convolve(x, kernel):
    """Convolution with zero padding, summed over the places of the kernel."""
    side = kernel.shape[0] // 2
    padded = np.pad(x, ((0, 0), (side, side), (side, side), (0, 0)))
    height, breadth = x.shape[1:3]
    return sum(
        padded[:, i : i + height, j : j + breadth] @ kernel[i, j]
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    )


def test_initial_values_have_the_paper_s_means_and_deviations():
    model = encoders.Koch(
        image_shape=(40, 40, 1),
        width=16,
        units=512,
        kernels=(5, 3, 3, 2),
        rngs=nnx.Rngs(0),
    )
    _, params, _ = encoders.functional(model)
    convolutions = [params["convolutions"][i] for i in range(4)]
    biases = [layer["bias"] for layer in (*convolutions, params["embedding"])]
    for values, mean, deviation in [
        (np.concatenate([np.ravel(c["kernel"]) for c in convolutions]), 0.0, 0.01),
        (np.ravel(params["embedding"]["kernel"]), 0.0, 0.2),
        (np.concatenate(biases), 0.5, 0.01),
    ]:
        assert values.std() == pytest.approx(deviation, rel=0.1)
        error = 4 * deviation / np.sqrt(len(values))
        assert values.mean() == pytest.approx(mean, abs=error)


@pytest.mark.parametrize(
    "settings",
    [
        LIGHT,
        LIGHT | {"image_shape": (35, 30, 3)},
        {"image_shape": (35, 35, 1), "kernels": (5, 4, 3, 2), "units": 8},
    ],
)
def test_small_images_fit_with_small_kernels_or_padding(settings):
    apply, params, state = abstract(**settings)
    images = jax.ShapeDtypeStruct((2, *settings["image_shape"]), "float32")
    shape = jax.eval_shape(
        lambda p, s, x: apply(p, s, x, train=False)[0], params, state, images
    ).shape
    assert shape == (2, settings["units"])


def test_a_bundle_of_the_light_form_is_rebuilt_from_its_description(tmp_path):
    model = encoders.Koch(**LIGHT, paper_init=False, rngs=nnx.Rngs(0))
    _, params, state = encoders.functional(model)
    ready = bundle.make(
        {"encoder": "Koch", "arguments": LIGHT}, params, state, image_shape=(28, 28, 1)
    )
    bundle.save(tmp_path, ready)
    images = np.arange(3 * 784, dtype=np.uint8).reshape(3, 28, 28, 1)
    found = bundle.embedder(bundle.load(tmp_path))(images)
    expected = np.asarray(model(encoders.as_float(images)))
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"image_shape": (28, 28, 1)}, "got a side of 28 pixels"),
        ({"image_shape": (105, 40, 1)}, "got a side of 40 pixels"),
        (LIGHT | {"image_shape": (7, 7, 1)}, "padding SAME, got a side of 7"),
        ({"kernels": (10, 7, 4)}, "four convolutions"),
    ],
)
def test_images_that_are_too_small_and_missing_kernels_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        abstract(**settings)
