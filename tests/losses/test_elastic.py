"""ElasticFace: which margin each example draws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from metricjax import losses
from tests.oracles import losses_classes as oracles

KEY = jax.random.key(7)
LABELS = jnp.array([0, 1, 2, 3, 0, 1, 2, 3], jnp.int32)


@pytest.fixture
def batch(rng):
    x = jnp.asarray(rng.normal(size=(8, 5)), jnp.float32)
    return x, jnp.asarray(rng.normal(size=(4, 5)), jnp.float32)


def totals(loss, *arguments, **options) -> np.ndarray:
    return np.asarray(loss(*arguments, reduction=None, **options).total)


def draws(count: int) -> np.ndarray:
    """One for each place in the batch, from the key alone."""
    keys = [jax.random.fold_in(KEY, index) for index in range(count)]
    return np.array([float(jax.random.normal(key)) for key in keys])


def cosines(x, w) -> np.ndarray:
    x, w = np.asarray(x, np.float64), np.asarray(w, np.float64)
    return np.array([oracles.cosine(a, w[y]) for a, y in zip(x, LABELS, strict=True)])


def test_each_example_draws_its_own_margin(batch):
    margin = 0.5 + 0.05 * draws(8)
    assert np.ptp(margin) > 0.05
    found = totals(losses.elastic_arcface, KEY, *batch, LABELS)
    expected = totals(losses.arcface, *batch, LABELS, margin=margin)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    other = totals(losses.elastic_arcface, jax.random.key(8), *batch, LABELS)
    assert np.all(np.abs(other / found - 1) > 1e-6)


def test_plus_deals_the_largest_margin_to_the_farthest_example(batch):
    margin = np.empty(8)
    # Farthest first, largest first: a permutation by rank.
    margin[np.argsort(cosines(*batch))] = 0.35 + 0.02 * np.sort(draws(8))[::-1]
    found = totals(losses.elastic_cosface, KEY, *batch, LABELS, std=0.02, plus=True)
    expected = totals(losses.cosface, *batch, LABELS, margin=margin)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_padding_takes_none_of_the_margins_that_are_dealt(batch):
    where = jnp.arange(8) < 5
    margin = np.zeros(8)
    margin[np.argsort(cosines(*batch)[:5])] = np.sort(draws(5))[::-1]
    options = {"plus": True, "std": 0.02, "where": where}
    found = totals(losses.elastic_cosface, KEY, *batch, LABELS, **options)
    margin = 0.35 + 0.02 * margin
    expected = totals(losses.cosface, *batch, LABELS, margin=margin, where=where)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_margins_do_not_depend_on_the_number_of_devices(batch):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))

    def value(x, w, margin, labels, **options):
        loss = functools.partial(losses.elastic_arcface, KEY, x, w, labels)
        return sum(loss(margin=margin, plus=plus, **options) for plus in (False, True))

    gradient = jax.value_and_grad(value, argnums=(0, 1, 2))
    split, whole = PartitionSpec("data"), PartitionSpec()
    sharded = jax.shard_map(
        functools.partial(gradient, axis_name="data"),
        mesh=mesh,
        in_specs=(split, whole, whole, split),
        out_specs=(whole, (split, whole, whole)),
    )
    arguments = (*batch, jnp.float32(0.5), LABELS)
    found, expected = jax.jit(lambda *a: (sharded(*a), gradient(*a)))(*arguments)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    for a, b in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
