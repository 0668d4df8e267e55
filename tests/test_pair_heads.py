"""Pair heads: symmetric, finite at identical items, right."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from metricjax import heads
from tests.oracles import losses_siamese as oracles

DIM = 5
LABELS = np.array([0, 0, 1, 1, 1, 2, 0, 3], np.int32)


def of_l1(key):
    return heads.weighted_l1_logits, heads.init_weighted_l1(key, DIM)


def of_network(key):
    params = heads.init_pair_network(key, DIM, hidden=7)
    return heads.pair_network_logits, params._replace(bias=jnp.float32(0.3))


either_head = pytest.mark.parametrize(
    ("make", "oracle"),
    [(of_l1, oracles.weighted_l1), (of_network, oracles.pair_network)],
    ids=["weighted_l1", "network"],
)


@pytest.fixture
def sides(rng) -> tuple[Any, Any]:
    """Two sides of eight pairs, float32."""
    x = rng.normal(size=(2, len(LABELS), DIM)).astype(np.float32)
    return x[0], x[1]


@either_head
def test_a_score_does_not_depend_on_the_order_of_the_pair(make, oracle, key, sides):
    logits, params = make(key)
    x, y = sides
    np.testing.assert_array_equal(logits(x, y, params), logits(y, x, params))


@either_head
@pytest.mark.usefixtures("x64")
def test_a_head_equals_its_definition_in_float64(make, oracle, key, sides):
    logits, params = make(key)
    params = jax.tree.map(lambda v: np.asarray(v, np.float64), params)
    x, y = (np.asarray(side, np.float64) for side in sides)
    expected = [oracle(a, b, *params) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(logits(x, y, params), expected, rtol=1e-12)


def test_the_network_is_the_mean_of_two_orders_that_differ(key, sides):
    _, params = of_network(key)
    x, y = (side[0].astype(np.float64) for side in sides)
    plain = [oracles.one_order(*pair, *params) for pair in ((x, y), (y, x))]
    assert abs(plain[0] - plain[1]) > 0.01
    value = heads.pair_network_logits(sides[0][:1], sides[1][:1], params)
    assert float(value[0]) == pytest.approx(np.mean(plain), rel=1e-5)


@either_head
def test_identical_items_have_finite_slopes(make, oracle, key, sides):
    logits, params = make(key)
    x = jnp.asarray(sides[0]).at[0].set(0.0)
    slopes = jax.jit(
        jax.grad(lambda x, y, p: jnp.sum(logits(x, y, p)), argnums=(0, 1, 2))
    )(x, x, params)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slopes))


@either_head
def test_pairwise_scores_every_pair(make, oracle, key, sides):
    logits, params = make(key)
    head = Partial(logits, params=params)
    x, y = sides
    found = heads.pairwise(x, y[:3], head=head)
    assert found.shape == (len(x), 3)
    expected = [[float(head(a[None], b[None])[0]) for b in y[:3]] for a in x]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@either_head
def test_parameters_of_another_size_are_refused(make, oracle, key):
    logits, params = make(key)
    with pytest.raises(ValueError, match="params"):
        logits(jnp.ones((2, DIM + 1)), jnp.ones((2, DIM + 1)), params)


def test_initial_parameters_are_those_of_the_paper(key):
    many = jax.vmap(lambda k: heads.init_weighted_l1(k, 1000))(jax.random.split(key, 9))
    assert float(jnp.std(many.weights)) == pytest.approx(0.2, rel=0.05)
    assert float(jnp.mean(many.weights)) == pytest.approx(0.0, abs=0.01)
    assert float(jnp.mean(many.bias)) == pytest.approx(0.5, abs=0.02)


def test_dropped_units_keep_the_expectation_and_the_symmetry(key, sides):
    _, params = of_network(key)
    x, y = sides
    keys = jax.random.split(key, 4000)  # standard error up to 0.07
    score = Partial(heads.pair_network_logits, x, y)
    drops = jax.vmap(lambda k: heads.drop_units(k, params, 0.3))(keys)
    scores = jax.vmap(lambda output: score(params._replace(output=output)))(
        drops.output
    )
    np.testing.assert_allclose(scores.mean(axis=0), score(params), atol=0.15)
    assert float(jnp.mean(drops.output == 0)) == pytest.approx(0.3, abs=0.02)
    dropped = heads.drop_units(key, params, 0.3)
    np.testing.assert_array_equal(score(dropped), Partial(score.func, y, x)(dropped))
    same = heads.drop_units(key, params, 0.0)
    np.testing.assert_array_equal(same.output, params.output)
