"""Class weights and the cosines to them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metricjax import heads
from tests.oracles import distances as oracles


def test_class_weights_have_rows_of_length_about_one():
    weights = heads.init_class_weights(jax.random.key(0), 500, 64)
    assert weights.shape == (500, 64)
    lengths = np.linalg.norm(weights, axis=1)
    assert np.mean(lengths) == pytest.approx(1.0, abs=0.01)
    assert np.mean(weights) == pytest.approx(0.0, abs=0.005)
    np.testing.assert_array_equal(
        weights, heads.init_class_weights(jax.random.key(0), 500, 64)
    )
    other = heads.init_class_weights(jax.random.key(1), 500, 64)
    assert not np.any(weights == other)


def test_class_weights_are_of_the_dtype_asked_for():
    weights = heads.init_class_weights(jax.random.key(0), 3, 4, dtype=jnp.bfloat16)
    assert weights.dtype == jnp.bfloat16


@pytest.mark.parametrize(("classes", "dim"), [(0, 4), (4, 0), (2.0, 4), (True, 4)])
def test_sizes_must_be_positive_integers(classes, dim):
    with pytest.raises(ValueError, match="at least 1"):
        heads.init_class_weights(jax.random.key(0), classes, dim)


@pytest.mark.usefixtures("x64")
def test_cosine_logits_equal_loops_and_ignore_lengths():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(4, 5)), rng.normal(size=(3, 5))
    logits = jax.jit(heads.cosine_logits)
    expected = oracles.matrix(oracles.cosine_similarity, x, w)
    np.testing.assert_allclose(logits(x, w, scale=30.0), 30 * expected, rtol=1e-12)
    np.testing.assert_allclose(logits(7 * x, 0.1 * w), expected, rtol=1e-12)


def test_the_scale_is_differentiable_and_bfloat16_gives_float32():
    x, w = jnp.ones((2, 3), jnp.bfloat16), jnp.eye(3, dtype=jnp.bfloat16)
    assert heads.cosine_logits(x, w).dtype == jnp.float32
    slope = jax.grad(lambda s: heads.cosine_logits(x, w, scale=s).sum())(2.0)
    assert float(slope) == pytest.approx(6 / 3**0.5, rel=1e-6)


def test_bad_shapes_and_dtypes_are_refused():
    x = jnp.zeros((4, 5))
    with pytest.raises(ValueError, match=r"\[rows, dim\]"):
        heads.cosine_logits(x[0], x)
    with pytest.raises(ValueError, match="last axis"):
        heads.cosine_logits(x, x[:, :3])
    with pytest.raises(TypeError, match="floating"):
        heads.cosine_logits(x.astype(int), x)
