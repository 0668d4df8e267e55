"""The table of an encoder says what is there, in order, and allocates nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from metricjax import encoders


class Custom(nnx.Module):
    """A parameter of its own, a layer that is never called, and a block of layers."""

    def __init__(self, rngs):
        self.scale = nnx.Param(jnp.ones(3))
        self.last = nnx.Linear(16, 3, rngs=rngs)
        self.block = nnx.Sequential(
            nnx.Linear(3, 5, rngs=rngs), nnx.relu, nnx.Dropout(0.5, rngs=rngs)
        )
        self.idle = nnx.Linear(2, 2, rngs=rngs)

    def __call__(self, images):
        return self.block(self.last(images.reshape(images.shape[0], -1)) * self.scale)


def cells(table):
    lines = table.splitlines()
    return [tuple(line.strip("| ").split(" | ")) for line in [lines[0], *lines[2:]]]


def test_layers_come_in_the_order_of_their_definition_with_all_parameters():
    assert cells(encoders.summary(lambda rngs: Custom(rngs), (4, 4, 1))) == [
        ("layer", "kind", "output", "parameters"),
        ("(itself)", "Custom", "5", "3"),
        ("last", "Linear", "3", "51"),
        ("block/layers/0", "Linear", "5", "20"),
        ("block/layers/2", "Dropout", "5", "0"),
        ("idle", "Linear", "\N{EN DASH}", "6"),
        ("total", "Custom", "5", "80"),
    ]


def test_the_residual_net_sums_to_its_pinned_count_and_shows_its_state():
    def build(rngs):
        return encoders.ResNet(width=8, rngs=rngs)

    rows = cells(encoders.summary(build, (28, 28, 1)))
    counts = [int(row[-1].replace(",", "")) for row in rows[1:-2]]
    assert rows[-2] == ("total", "ResNet", "128", "207,480")
    assert sum(counts) == 207_480
    _, state = jax.eval_shape(encoders.deferred(build).init, jax.random.key(0))
    kept = sum(leaf.size for leaf in jax.tree.leaves(state))
    assert (rows[-1][0], rows[-1][-1]) == ("state, not trained", str(kept))
    assert ("block3/conv2", "Conv", "4 x 4 x 64", "36,864") in rows


def test_the_full_encoder_of_koch_is_shown_without_allocating_it():
    def refuse(*_):
        raise AssertionError("a parameter was computed")

    class Refusing(encoders.Koch):
        def __init__(self, rngs):
            super().__init__(rngs=rngs)
            jax.debug.callback(refuse, self.embedding.kernel[0, 0])

    rows = cells(encoders.summary(lambda rngs: Refusing(rngs), (105, 105, 1)))
    jax.effects_barrier()
    assert rows[-1] == ("total", "Refusing", "4096", "38,947,648")


def test_parameters_of_a_pure_function_are_listed_by_path():
    encoder = encoders.deferred(
        lambda rngs: encoders.MLP(image_shape=(2, 2, 1), hidden=(3,), dim=2, rngs=rngs)
    )
    expected = [
        ("parameter", "shape", "parameters"),
        ("embedding/bias", "2", "2"),
        ("embedding/kernel", "3 x 2", "6"),
        ("hidden/0/bias", "3", "3"),
        ("hidden/0/kernel", "4 x 3", "12"),
        ("total", "output 2", "23"),
    ]
    assert cells(encoders.summary(encoder, (2, 2, 1))) == expected
    ready = encoders.Functional(encoder.apply, *encoder.init(jax.random.key(0)))
    assert cells(encoders.summary(ready, (2, 2, 1))) == expected


def test_a_linen_module_is_listed_with_its_state():
    class Net(linen.Module):
        @linen.compact
        def __call__(self, x, train):
            x = linen.Dense(2)(x.reshape(x.shape[0], -1))
            return linen.BatchNorm(use_running_average=not train)(x)

    variables = jax.eval_shape(
        lambda: Net().init(jax.random.key(0), np.ones((1, 4, 4, 1)), False)
    )
    model = encoders.from_linen(Net(), variables)
    rows = cells(encoders.summary(model, (4, 4, 1)))
    assert rows[-2:] == [
        ("total", "output 2", "38"),
        ("state, not trained", "\N{EN DASH}", "4"),
    ]


def test_a_shape_with_a_batch_is_refused():
    with pytest.raises(ValueError, match="height, width, channels"):
        encoders.summary(lambda rngs: Custom(rngs), (1, 4, 4, 1))
