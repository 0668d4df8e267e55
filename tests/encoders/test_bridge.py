import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from metricjax import encoders


class Tiny(nnx.Module):
    """A layer, batch norm and dropout: all kinds of state."""

    def __init__(self, *, dropout=0.5, rngs):
        self.layers = nnx.List([nnx.Linear(4, 3, rngs=rngs)])
        self.norm = nnx.BatchNorm(3, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.dropout(self.norm(x))


@pytest.fixture
def images(rng):
    return jnp.asarray(rng.normal(size=(6, 4)), jnp.float32)


def test_pixels_are_scaled_in_one_place_only(rng):
    pixels = rng.integers(0, 256, (3, 2, 2, 1), dtype=np.uint8)
    scaled = encoders.as_float(pixels)
    np.testing.assert_allclose(scaled, pixels / 255.0, rtol=1e-6)
    assert encoders.as_float(scaled) is scaled
    model = encoders.functional(encoders.MLP(image_shape=(2, 2, 1), rngs=nnx.Rngs(0)))
    from_pixels, _ = model.apply(model.params, model.state, pixels, train=False)
    from_scaled, _ = model.apply(model.params, model.state, scaled, train=False)
    np.testing.assert_array_equal(from_pixels, from_scaled)


def test_integer_images_other_than_uint8_are_refused():
    with pytest.raises(TypeError, match="Expected `images` in uint8"):
        encoders.as_float(jnp.zeros((1, 2, 2, 1), jnp.int32))


def test_params_and_state_are_plain_dicts_of_arrays():
    model = encoders.functional(Tiny(rngs=nnx.Rngs(0)))
    assert type(model.params) is dict
    assert type(model.state) is dict
    assert sorted(model.params) == ["layers", "norm"]
    assert sorted(model.state["norm"]) == ["mean", "var"]
    for leaf in jax.tree.leaves((model.params, model.state)):
        assert isinstance(leaf, jax.Array)


def test_evaluation_equals_the_module_itself_and_keeps_the_state(images):
    module = Tiny(rngs=nnx.Rngs(0))
    model = encoders.functional(module)
    embeddings, state = model.apply(model.params, model.state, images, train=False)
    module.eval()
    np.testing.assert_allclose(embeddings, module(images), rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, state, model.state)


def test_training_updates_the_running_statistics_of_batch_norm(images, key):
    model = encoders.functional(Tiny(rngs=nnx.Rngs(0)))
    _, state = model.apply(model.params, model.state, images, train=True, key=key)
    layer = model.params["layers"][0]
    kernel, bias = (np.asarray(layer[name], float) for name in ("kernel", "bias"))
    x = np.asarray(images, float) @ kernel + bias
    np.testing.assert_allclose(state["norm"]["mean"], 0.1 * x.mean(0), atol=1e-6)
    np.testing.assert_allclose(state["norm"]["var"], 0.9 + 0.1 * x.var(0), rtol=1e-5)
    # What came in is left alone, and evaluation uses what came out.
    np.testing.assert_array_equal(model.state["norm"]["mean"], np.zeros(3))
    old, _ = model.apply(model.params, model.state, images, train=False)
    new, _ = model.apply(model.params, state, images, train=False)
    assert np.abs(np.asarray(old - new)).max() > 1e-3


def test_random_streams_are_a_function_of_the_key_alone(images):
    model = encoders.functional(Tiny(rngs=nnx.Rngs(0)))

    def embed(seed, state=model.state):
        key = jax.random.key(seed)
        return model.apply(model.params, state, images, train=True, key=key)

    first, state = embed(1)
    np.testing.assert_array_equal(first, embed(1)[0])
    np.testing.assert_array_equal(first, embed(1, state)[0])
    assert np.any(np.asarray(first) != np.asarray(embed(2)[0]))


def test_two_random_layers_draw_different_numbers(key):
    class Two(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Dropout(0.5, rngs=rngs)
            self.second = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return jnp.stack([self.first(x), self.second(x)])

    model = encoders.functional(Two(nnx.Rngs(0)))
    out, _ = model.apply({}, {}, jnp.ones((8, 8)), train=True, key=key)
    assert np.any(np.asarray(out[0] != out[1]))


def test_training_without_a_key_is_refused_where_numbers_are_drawn(images):
    model = encoders.functional(Tiny(rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="Expected `key`"):
        model.apply(model.params, model.state, images, train=True)


def test_apply_jits_differentiates_and_vmaps(images, key):
    model = encoders.functional(Tiny(dropout=0.0, rngs=nnx.Rngs(0)))

    def loss(params, x):
        embeddings, _ = model.apply(params, model.state, x, train=True, key=key)
        return jnp.sum(embeddings**3)

    eager = jax.grad(loss)(model.params, images)
    jitted = jax.jit(jax.grad(loss))(model.params, images)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), eager, jitted
    )
    both = jax.vmap(lambda x: loss(model.params, x))(jnp.stack([images, images]))
    np.testing.assert_allclose(both, loss(model.params, images), rtol=1e-5)


def test_deferred_gives_what_building_the_module_gives(images, key):
    apply, init = encoders.deferred(lambda rngs: Tiny(rngs=rngs))
    params, state = init(key)
    eager = encoders.functional(Tiny(rngs=nnx.Rngs(key)))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        (params, state),
        (eager.params, eager.state),
    )
    np.testing.assert_allclose(
        apply(params, state, images, train=False)[0],
        eager.apply(params, state, images, train=False)[0],
        rtol=1e-6,
    )


class LinenTiny(linen.Module):
    @linen.compact
    def __call__(self, x, train):
        x = linen.Dense(3)(x)
        x = linen.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return linen.Dropout(0.5, deterministic=not train)(x)


def test_a_linen_module_gives_the_same_triple(images, key):
    module = LinenTiny()
    variables = module.init(key, images, train=False)
    apply, params, state = encoders.from_linen(module, variables)
    embeddings, kept = apply(params, state, images, train=False)
    expected = module.apply(variables, images, train=False)
    np.testing.assert_allclose(embeddings, np.asarray(expected), rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, kept, state)
    first, changed = apply(params, state, images, train=True, key=key)
    again, _ = apply(params, state, images, train=True, key=key)
    np.testing.assert_array_equal(first, again)
    assert jax.tree.structure(changed) == jax.tree.structure(state)
    assert np.abs(changed["batch_stats"]["BatchNorm_0"]["mean"]).max() > 1e-4


def test_variables_without_params_are_refused():
    with pytest.raises(ValueError, match="collection 'params'"):
        encoders.from_linen(LinenTiny(), {"batch_stats": {}})


def test_arrays_of_numpy_are_not_written_to():
    model = nnx.BatchNorm(3, momentum=0.5, rngs=nnx.Rngs(0))
    apply, params, state = encoders.functional(model)
    state = jax.tree.map(np.array, state)
    kept = jax.tree.map(np.copy, state)
    x = jnp.arange(12.0).reshape(4, 3)
    _, new = apply(params, state, x, train=True)
    jax.tree.map(np.testing.assert_array_equal, state, kept)
    assert not np.allclose(new["mean"], state["mean"])
    # Closed over, under jit.
    jax.jit(lambda x: apply(params, state, x, train=True))(x)
    jax.tree.map(np.testing.assert_array_equal, state, kept)
