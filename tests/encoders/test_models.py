import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from metricjax import encoders
from metricjax.encoders import _resnet


def parameters(build):
    params, _ = jax.eval_shape(encoders.deferred(build).init, jax.random.key(0))
    return sum(x.size for x in jax.tree.leaves(params))


def shape(build, images):
    return jax.eval_shape(lambda: build(nnx.Rngs(0))(jnp.zeros(images))).shape


def test_the_mlp_is_784_128_128_64():
    assert parameters(lambda rngs: encoders.MLP(rngs=rngs)) == 125_248
    assert shape(lambda rngs: encoders.MLP(rngs=rngs), (5, 28, 28, 1)) == (5, 64)


def test_the_mlp_takes_other_sizes(rng):
    model = encoders.MLP(image_shape=(3, 2, 1), hidden=(5,), dim=2, rngs=nnx.Rngs(0))
    apply, params, state = encoders.functional(model)
    x = rng.random((4, 3, 2, 1))
    hidden, last = params["hidden"][0], params["embedding"]
    y = np.maximum(x.reshape(4, 6) @ hidden["kernel"] + hidden["bias"], 0.0)
    expected = y @ last["kernel"] + last["bias"]
    embeddings, _ = apply(params, state, jnp.float32(x), train=False)
    np.testing.assert_allclose(embeddings, expected, rtol=1e-5, atol=1e-6)


def test_the_convolutional_net_has_the_parameters_of_its_source():
    channels = ((1, 32), (32, 64), (64, 128), (128, 128))
    convolutions = [(9 * inputs + 1) * outputs for inputs, outputs in channels]
    dense = [(3 * 3 * 128 + 1) * 256, (256 + 1) * 2]
    found = parameters(lambda rngs: encoders.ConvNet(dim=2, rngs=rngs))
    assert found == sum(convolutions + dense) == 535_938


def test_the_convolutional_net_takes_other_widths_and_sizes():
    def build(rngs):
        return encoders.ConvNet(image_shape=(35, 20, 3), width=4, dim=7, rngs=rngs)

    assert shape(build, (2, 35, 20, 3)) == (2, 7)


def test_images_too_small_for_the_convolutional_net_are_refused():
    with pytest.raises(ValueError, match="at least 9 pixels a side, got 8"):
        encoders.ConvNet(image_shape=(28, 8, 1), rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("width", "dim", "expected"), [(8, 128, 207_480), (16, 256, 827_632)]
)
def test_the_residual_net_has_a_pinned_number_of_parameters(width, dim, expected):
    found = parameters(lambda rngs: encoders.ResNet(width=width, dim=dim, rngs=rngs))
    assert found == expected


def test_the_residual_net_takes_other_sizes():
    def build(rngs):
        return encoders.ResNet(image_shape=(35, 26, 3), width=4, dim=6, rngs=rngs)

    assert shape(build, (2, 35, 26, 3)) == (2, 6)


def test_pooling_over_time_keeps_the_mean_and_the_maximum_of_each_row(rng):
    model = encoders.ResNet(
        image_shape=(20, 30, 1), width=2, dim=5, pool_time=True, rngs=nnx.Rngs(0)
    )
    model.eval()
    images = jnp.asarray(rng.random((2, 20, 30, 1)), jnp.float32)
    x = nnx.relu(model.stem_norm(model.stem(images)))
    features = np.asarray(model.block3(model.block2(model.block1(x))), np.float64)
    assert features.shape == (2, 3, 4, 16)
    rows = [
        [pool(row[:, c]) for pool in (np.mean, np.max) for c in range(16)]
        for image in features
        for row in image
    ]
    flat = np.reshape(rows, (2, 3 * 2 * 16))
    expected = flat @ np.asarray(model.embedding.kernel[...], np.float64)
    # Batch norm before any training: mean 0, variance 1 and a small constant.
    expected /= np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(model(images), expected, atol=1e-5)


def test_pooling_over_time_gives_parameters_that_fit_any_number_of_frames():
    def build(frames):
        return lambda rngs: encoders.ResNet(
            image_shape=(28, frames, 1), width=8, pool_time=True, rngs=rngs
        )

    # Half of the columns: 4 x 2 instead of 4 x 4 places of 64 channels.
    assert parameters(build(32)) == parameters(build(9)) == 207_480 - 128 * 64 * 8
    assert shape(build(32), (2, 28, 32, 1)) == (2, 128)


def test_every_parameter_of_the_residual_net_gets_a_gradient(rng):
    apply, init = encoders.deferred(
        lambda rngs: encoders.ResNet(image_shape=(9, 9, 1), width=2, dim=3, rngs=rngs)
    )
    params, state = init(jax.random.key(0, impl="rbg"))
    images = jnp.asarray(rng.random((8, 9, 9, 1)), jnp.float32)

    def loss(params):
        embeddings, changed = apply(params, state, images, train=True)
        return jnp.sum(embeddings**3), changed

    gradients, changed = jax.jit(jax.grad(loss, has_aux=True))(params)
    for gradient in jax.tree.leaves(gradients):
        assert np.abs(np.asarray(gradient)).max() > 0
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), state, changed)
    assert all(jax.tree.leaves(moved))


def test_a_shortcut_averages_only_pixels_that_exist(rng):
    block = _resnet.Residual(1, 1, stride=2, rngs=nnx.Rngs(0))
    x = rng.random((1, 3, 3, 1)).astype(np.float32)
    pooled = np.asarray(block._pool(jnp.asarray(x)))[0, :, :, 0]
    image = x[0, :, :, 0]
    expected = [[image[i : i + 2, j : j + 2].mean() for j in (0, 2)] for i in (0, 2)]
    np.testing.assert_allclose(pooled, expected, rtol=1e-6)
