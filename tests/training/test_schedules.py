"""Layer-wise rates against a loop over weights in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metricjax import heads
from metricjax.training import finetune
from metricjax.training.schedules import Layer, layerwise_sgd
from tests.oracles import training_schedules as oracle

LAYERS = {
    "encoder/conv1": Layer(0.1, 0.9, l2=0.05),
    "encoder/*": Layer(0.03, 0.2),
    "head": Layer(0.01, 0.7, l2=0.3),
}


def params(rng):
    def values():
        return jnp.asarray(rng.normal(size=3), jnp.float32)

    return {
        "encoder": {
            "conv1": {"kernel": values(), "bias": values()},
            "conv2": {"kernel": values()},
        },
        "head": heads.WeightedL1(values(), values()),
    }


def named(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def test_seven_steps_over_four_epochs_are_the_paper_s_rule(rng):
    start = params(rng)
    optimizer = layerwise_sgd(
        LAYERS, start, steps_per_epoch=2, rise_epochs=2, decay=0.9
    )
    gradients = [params(rng) for _ in range(7)]

    @jax.jit
    def step(weights, state, gradient):
        updates, state = optimizer.update(gradient, state, weights)
        return optax.apply_updates(weights, updates), state

    found, weights, state = [], start, optimizer.init(start)
    for gradient in gradients:
        weights, state = step(weights, state, gradient)
        found.append(weights)
    for pick, layer, is_bias in [
        (lambda tree: tree["encoder"]["conv1"]["kernel"], "encoder/conv1", False),
        (lambda tree: tree["encoder"]["conv1"]["bias"], "encoder/conv1", True),
        (lambda tree: tree["encoder"]["conv2"]["kernel"], "encoder/*", False),
        (lambda tree: tree["head"].weights, "head", False),
        (lambda tree: tree["head"].bias, "head", True),
    ]:
        expected = oracle.layerwise_sgd(
            pick(start),
            [pick(gradient) for gradient in gradients],
            LAYERS[layer],
            per_epoch=2,
            rise=2,
            first=0.5,
            decay=0.9,
            is_bias=is_bias,
        )
        np.testing.assert_allclose([pick(w) for w in found], expected, rtol=2e-6)


def test_the_penalty_takes_part_in_the_momentum():
    start = {"kernel": jnp.ones(1)}
    layers = {"*": Layer(0.1, 0.5, l2=0.25)}
    optimizer = layerwise_sgd(layers, start, steps_per_epoch=1)
    state, zero = optimizer.init(start), {"kernel": jnp.zeros(1)}
    first, state = optimizer.update(zero, state, start)
    # With weights at zero there is no penalty: what moves them is momentum alone.
    second, _ = optimizer.update(zero, state, zero)
    assert jax.tree.leaves(first)[0].item() == pytest.approx(-0.05)
    assert jax.tree.leaves(second)[0].item() == pytest.approx(-0.025)


def test_layers_with_rates_can_be_frozen(rng):
    start, gradient = params(rng), params(rng)
    plain = layerwise_sgd(LAYERS, start, steps_per_epoch=1)
    frozen = finetune.freeze(plain, ["encoder/conv1", "head/bias"], start)
    expected, _ = plain.update(gradient, plain.init(start), start)
    found, _ = frozen.update(gradient, frozen.init(start), start)
    frozen_paths = ("encoder/conv1/kernel", "encoder/conv1/bias", "head/bias")
    unchanged = dict(zip(named(found), jax.tree.leaves(expected), strict=True))
    for path, update in named(found).items():
        wanted = 0.0 if path in frozen_paths else unchanged[path]
        np.testing.assert_array_equal(update, wanted)


@pytest.mark.parametrize(
    ("layers", "options", "match"),
    [
        ({"encoder/*": Layer(0.1, 0.9)}, {}, "got none for head/weights"),
        (LAYERS | {"conv9": Layer(0.1, 0.9)}, {}, "'conv9'"),
        (
            {"*": Layer(0.1, 0.9), "head": Layer(0.1, 0.9)},
            {},
            r"got none for \['head'\]",
        ),
        (LAYERS, {"steps_per_epoch": 0}, "`steps_per_epoch` of at least 1, got 0"),
        (LAYERS, {"rise_epochs": 0}, "`rise_epochs` of at least 1, got 0"),
    ],
)
def test_rates_that_do_not_fit_the_parameters_are_refused(rng, layers, options, match):
    with pytest.raises(ValueError, match=match):
        layerwise_sgd(layers, params(rng), **{"steps_per_epoch": 1} | options)
