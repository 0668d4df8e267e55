"""Proxy losses: what their peers get wrong, and what they reduce to."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from metricjax import losses, reductions
from tests import compiled
from tests.oracles import losses_proxies as oracles

BATCH, CLASSES, DIM = 12, 5, 6
LABELS = np.array([0, 0, 1, 1, 2, 2, 2, 0, 1, 4, 4, 0], np.int32)  # class 3 is absent


@pytest.fixture
def inputs(rng) -> tuple[Any, Any]:
    """Embeddings and proxies, float32."""
    x = rng.normal(size=(BATCH, DIM)).astype(np.float32)
    return x, rng.normal(size=(CLASSES, DIM)).astype(np.float32)


# --- Proxy-NCA and Proxy-NCA++ --------------------------------------------------------


def test_proxy_nca_leaves_the_true_proxy_out_and_can_be_negative():
    proxies = jnp.eye(3)
    x, y = proxies[:1], jnp.array([0])
    # Squared distances 0, 2, 2.
    assert float(compiled.call(losses.proxy_nca, x, proxies, y)) == pytest.approx(
        np.log(2) - 2 * 9
    )
    value = compiled.call(losses.proxy_nca_pp, x, proxies, y, temperature=1.0)
    assert float(value) == pytest.approx(np.log(1 + 2 * np.exp(-2)))


def test_proxy_nca_pp_is_normface_of_scale_two_over_temperature(inputs):
    x, proxies = inputs
    value = compiled.call(losses.proxy_nca_pp, x, proxies, LABELS, temperature=0.25)
    np.testing.assert_allclose(
        value, compiled.call(losses.normface, x, proxies, LABELS, scale=8.0)
    )


@pytest.mark.parametrize("loss", [losses.proxy_nca, losses.proxy_nca_pp])
def test_examples_whose_probability_underflows_are_kept(loss):
    # The first example sits on the wrong proxy: its probability is exp(-400).
    proxies = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
    x, y = jnp.array([[-1.0, 1e-3], [1.0, 0.0]]), jnp.array([0, 0])

    def one(x, y):
        return loss(x[None], proxies, y[None], temperature=0.01)

    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(one)))(x, y)
    assert float(values[0]) == pytest.approx(400.0, rel=1e-4)
    assert float(jnp.linalg.norm(slopes[0])) > 0.1
    mean = loss(x, proxies, y, temperature=0.01)
    np.testing.assert_allclose(mean, values.mean(), rtol=1e-5)


def test_one_class_alone_has_no_proxy_nca():
    value = compiled.call(
        losses.proxy_nca, jnp.ones((2, 3)), jnp.ones((1, 3)), jnp.zeros(2, int)
    )
    assert float(value) == 0.0


# --- Proxy-Anchor ---------------------------------------------------------------------


def test_positives_are_averaged_over_present_classes_and_negatives_over_all():
    # One example on its proxy; two other classes, absent, at right angles.
    value = compiled.call(
        losses.proxy_anchor, jnp.eye(3)[:1], jnp.eye(3), jnp.array([0])
    )
    near, far = np.log1p(np.exp(-32 * 0.9)), np.log1p(np.exp(32 * 0.1))
    assert float(value) == pytest.approx(near / 1 + 2 * far / 3, rel=1e-6)


def test_rows_of_proxy_anchor_are_the_classes(inputs):
    x, proxies = inputs
    terms: Any = compiled.call(losses.proxy_anchor, x, proxies, LABELS, reduction=None)
    assert terms.total.shape == (CLASSES, 2)
    np.testing.assert_array_equal(terms.count[:, 0], [1, 1, 1, 0, 1])
    np.testing.assert_array_equal(terms.count[:, 1], 1)
    each = compiled.call(
        losses.proxy_anchor, x, proxies, LABELS, reduction=reductions.per_anchor
    )
    np.testing.assert_allclose(each, terms.total.sum(axis=1), rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_proxy_anchor_of_half_precision_is_finite_and_right(dtype):
    # exp(32 * 1.1) is beyond float16, and bfloat16 keeps two digits of it.
    proxies = jnp.array([[1.0, 0.0], [-1.0, 0.0]], dtype)
    x, y = jnp.array([[-1.0, 0.0], [1.0, 0.25]], dtype), jnp.array([0, 1])
    value, slope = jax.jit(jax.value_and_grad(losses.proxy_anchor))(x, proxies, y)
    exact_x, exact_p = (np.asarray(v, np.float64) for v in (x, proxies))
    expected = oracles.proxy_anchor(exact_x, exact_p, y)
    assert value.dtype == jnp.float32
    assert float(value) == pytest.approx(expected, rel=1e-5)
    assert bool(jnp.all(jnp.isfinite(slope.astype(jnp.float32))))


def test_proxy_anchor_survives_a_huge_scale(inputs):
    x, proxies = inputs
    loss = functools.partial(losses.proxy_anchor, scale=1e4)
    value, slopes = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(
        x, proxies, LABELS
    )
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(slope)) for slope in slopes)


def test_an_example_of_weight_two_counts_twice_and_of_weight_zero_not(inputs):
    x, proxies = inputs
    weights = np.ones(BATCH, np.float32)
    weights[3], weights[9], weights[10] = 2.0, 0.0, 0.0  # class 4 goes
    rows = [*range(9), 3, 11]
    expected = compiled.call(losses.proxy_anchor, x[rows], proxies, LABELS[rows])
    value = compiled.call(losses.proxy_anchor, x, proxies, LABELS, weights=weights)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("label", [-1, CLASSES])
def test_a_label_that_is_no_class_is_no_negative_either(inputs, label):
    x, proxies = inputs
    labels = np.append(LABELS[:-1], np.int32(label))
    value, slope = jax.jit(jax.value_and_grad(losses.proxy_anchor))(x, proxies, labels)
    expected = compiled.call(losses.proxy_anchor, x[:-1], proxies, LABELS[:-1])
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_array_equal(slope[-1], 0.0)


def test_classes_that_do_not_divide_among_devices_give_the_same_loss(inputs):
    x, proxies = inputs
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    rows, whole = PartitionSpec("data"), PartitionSpec()
    shard = functools.partial(
        jax.shard_map, mesh=mesh, in_specs=(rows, whole, rows), out_specs=whole
    )
    sharded = shard(functools.partial(losses.proxy_anchor, axis_name="data"))
    both = [
        jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(x, proxies, LABELS)
        for loss in (losses.proxy_anchor, sharded)
    ]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), *both)


def test_proxy_anchor_holds_no_array_of_classes_times_batch():
    size = 2048
    x = jax.ShapeDtypeStruct((size, 8), jnp.float32)
    y = jax.ShapeDtypeStruct((size,), jnp.int32)
    loss = functools.partial(losses.proxy_anchor, block_size=16)
    program = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(x, x, y)
    memory = program.compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < size * size * 4 / 4


# --- SoftTriple -----------------------------------------------------------------------


def test_soft_triple_of_one_center_is_normface(inputs):
    x, proxies = inputs
    value = compiled.call(
        losses.soft_triple, x, proxies[:, None], LABELS, margin=0.0, scale=20.0
    )
    np.testing.assert_allclose(
        value, compiled.call(losses.normface, x, proxies, LABELS), rtol=1e-5
    )


def test_the_share_of_the_center_regulariser_does_not_depend_on_the_reduction(rng):
    x = rng.normal(size=(BATCH, DIM)).astype(np.float32)
    centers = rng.normal(size=(CLASSES, 3, DIM)).astype(np.float32)
    loss = functools.partial(compiled.call, losses.soft_triple, x, centers, LABELS)
    penalty = 0.2 * float(compiled.call(losses.sparse_centers, centers))
    plain = float(loss(regularization=0.0))
    assert penalty > 0.05
    assert float(loss()) == pytest.approx(plain + penalty, rel=1e-5)
    assert float(loss(weights=np.arange(BATCH) + 1.0)) == pytest.approx(
        float(loss(weights=np.arange(BATCH) + 1.0, regularization=0.0)) + penalty,
        rel=1e-5,
    )
    total = loss(reduction=reductions.sum)
    assert float(total) == pytest.approx(BATCH * (plain + penalty), rel=1e-5)


def test_centers_without_an_axis_of_their_own_are_refused(inputs):
    x, proxies = inputs
    with pytest.raises(ValueError, match=r"`centers` of shape \[classes, k, dim\]"):
        losses.soft_triple(x, proxies, LABELS)


# --- hyperparameters ------------------------------------------------------------------

LEARNED = {
    "proxy_nca": {"temperature": 0.3},
    "proxy_nca_pp": {"temperature": 0.3},
    "proxy_anchor": {"margin": 0.2, "scale": 4.0},
    "soft_triple": {
        "margin": 0.1,
        "scale": 5.0,
        "temperature": 0.3,
        "regularization": 0.2,
    },
}


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.usefixtures("x64")
def test_hyperparameters_can_be_learned(name, rng):
    x = rng.normal(size=(BATCH, DIM))
    shape = (CLASSES, 3, DIM) if name == "soft_triple" else (CLASSES, DIM)
    vectors, values = rng.normal(size=shape), LEARNED[name]
    loss, oracle = getattr(losses, name), getattr(oracles, name)
    slopes = jax.jit(jax.grad(lambda v: loss(x, vectors, LABELS, **v)))(values)
    for key, value in values.items():
        ends = [
            oracle(x, vectors, LABELS, **values | {key: value + sign * 1e-6})
            for sign in (1, -1)
        ]
        slope = (ends[0] - ends[1]) / 2e-6
        assert float(slopes[key]) == pytest.approx(slope, rel=1e-6), key


@pytest.mark.usefixtures("strict")
def test_no_silent_promotion(inputs):
    x, proxies = map(jnp.asarray, inputs)
    labels = jnp.asarray(LABELS)

    @jax.jit
    def total(x, proxies, labels):
        against = (losses.proxy_nca, losses.proxy_nca_pp, losses.proxy_anchor)
        out = losses.soft_triple(x, jnp.stack([proxies] * 2, 1), labels)
        return sum((loss(x, proxies, labels) for loss in against), start=out)

    assert np.isfinite(total(x, proxies, labels))
