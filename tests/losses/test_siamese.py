"""Cross-entropy of pair heads: right in their parameters, and without a cube."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from metricjax import heads, losses, pairs
from tests import compiled
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
@pytest.mark.usefixtures("x64")
def test_parameters_of_the_head_get_the_right_gradient(make, oracle, key, rng):
    logits, params = make(key)
    params = jax.tree.map(lambda v: np.asarray(v, np.float64), params)
    x = rng.normal(size=(len(LABELS), DIM))

    def loss(params):
        return losses.siamese(x, LABELS, head=Partial(logits, params=params))

    def reference(params):
        return oracles.siamese(x, LABELS, head=lambda a, b: oracle(a, b, *params))

    value, slopes = jax.jit(jax.value_and_grad(loss))(params)
    assert float(value) == pytest.approx(reference(params), rel=1e-12)
    step = jax.tree.map(lambda v: rng.normal(size=np.shape(v)), params)
    ends = [
        reference(jax.tree.map(lambda v, s, h=h: v + h * s, params, step))
        for h in (1e-6, -1e-6)
    ]
    slope = sum(jnp.vdot(g, s) for g, s in zip(slopes, step, strict=True))
    assert float(slope) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6)


def test_all_pairs_given_one_by_one_are_the_batch(key, sides):
    logits, params = of_l1(key)
    head, x = Partial(logits, params=params), sides[0]
    masks = pairs.from_labels(LABELS)
    total = 0.0
    for mask, same in ((masks.positive, 1), (masks.negative, 0)):
        a, b = np.nonzero(np.asarray(mask))
        labels = np.full(len(a), same, np.int32)
        total += compiled.call(losses.siamese_pairs, x[a], x[b], labels, head=head)
    np.testing.assert_allclose(
        compiled.call(losses.siamese, x, LABELS, head=head), total, rtol=1e-6
    )


def test_active_over_count_is_the_error_rate():
    head = Partial(
        heads.weighted_l1_logits,
        params=heads.WeightedL1(jnp.array([-1.0]), jnp.array(1.0)),
    )
    x, y = jnp.zeros((4, 1)), jnp.array([[0.5], [3.0], [0.5], [3.0]])
    terms: Any = compiled.call(
        losses.siamese_pairs, x, y, jnp.array([1, 1, 0, 7]), head=head, reduction=None
    )
    np.testing.assert_array_equal(terms.count, [1, 1, 1, 0])
    np.testing.assert_array_equal(terms.active, [0, 1, 1, 0])
    assert float(terms.total[3]) == 0.0


def test_sure_mistakes_cost_much_and_stay_finite():
    params = heads.WeightedL1(jnp.array([-1e4]), jnp.array(0.0))
    head = Partial(heads.weighted_l1_logits, params=params)

    def loss(x):
        return losses.siamese(x, jnp.array([0, 0, 1]), head=head)

    value, slope = jax.jit(jax.value_and_grad(loss))(jnp.array([[0.0], [1.0], [1.0]]))
    # A positive at logit -1e4, a negative at logit 0.
    assert float(value) == pytest.approx(1e4 + np.log(2) / 2, rel=1e-6)
    assert np.all(np.isfinite(slope))


def test_no_array_of_pairs_times_features_exists():
    n, dim, hidden = 256, 64, 100
    shape = jax.ShapeDtypeStruct((n, dim), jnp.float32)
    params = jax.eval_shape(
        lambda: heads.init_pair_network(jax.random.key(0), dim, hidden=hidden)
    )

    def loss(x, params):
        head = Partial(heads.pair_network_logits, params=params)
        return losses.siamese(x, jnp.arange(n) // 4, head=head)

    compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(shape, params)
    memory = compiled.compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < n * n * hidden * 4 / 4
