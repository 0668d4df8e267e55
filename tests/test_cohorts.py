"""Cohorts and scores that are judged by them, against every member in turn.

`similarities.s_norm` itself is among the similarities of `test_similarities`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metricjax import cohorts, similarities


@pytest.fixture
def members(rng):
    return rng.normal(size=(9, 5)) + 0.5


@pytest.fixture
def x(rng):
    return jnp.float32(3.0 * rng.normal(size=(4, 5)))


def test_a_cohort_is_the_mean_and_covariance_of_its_unit_vectors(members):
    rows = np.concatenate([members, np.full((2, 5), np.nan)])
    found = jax.jit(cohorts.of)(jnp.float32(rows), where=np.arange(11) < 9)
    unit = members / np.linalg.norm(members, axis=1, keepdims=True)
    np.testing.assert_allclose(found.mean, unit.mean(axis=0), rtol=1e-5)
    expected = np.cov(unit.T, bias=True)
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-4, atol=1e-6)


def test_an_item_has_the_mean_and_spread_of_its_cosines_with_the_members(members, x):
    means, spreads = cohorts.with_each(cohorts.of(jnp.float32(members)), x)
    cosines = similarities.cosine(x, jnp.float32(members))
    np.testing.assert_allclose(means, cosines.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(spreads, cosines.std(axis=1), rtol=1e-5)


@pytest.mark.parametrize("size", [1, 3])
def test_of_a_cohort_that_does_not_vary_the_mean_alone_is_taken_off(size, x):
    same = cohorts.of(jnp.ones((size, 5)))
    value, gradient = jax.value_and_grad(
        lambda x: similarities.s_norm(x, cohort=same).sum()
    )(x)
    means = similarities.cosine(x, jnp.ones((1, 5)))
    expected = similarities.cosine(x) - (means + means.T) / 2
    assert float(value) == pytest.approx(float(expected.sum()), rel=1e-4)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("size", [0, 2])
def test_a_cohort_of_padding_leaves_cosines(size, x):
    none = cohorts.of(jnp.ones((size, 5)), where=np.zeros(size, bool))
    found = similarities.s_norm(x, cohort=none)
    np.testing.assert_allclose(found, similarities.cosine(x), rtol=1e-6)


def test_half_precision_is_computed_in_float32(members, x):
    half = jnp.bfloat16(members)
    found = cohorts.of(half)
    assert found.covariance.dtype == jnp.float32
    exact = cohorts.of(jnp.float32(half))
    np.testing.assert_allclose(found.covariance, exact.covariance, rtol=1e-6)


def test_what_does_not_fit_is_refused(x):
    with pytest.raises(ValueError, match=r"`cohort` of dim 5, got one of \[4\]"):
        similarities.s_norm(x, cohort=cohorts.of(jnp.eye(4)))
    with pytest.raises(ValueError, match="where"):
        cohorts.of(jnp.eye(4), where=np.ones(3, bool))
    with pytest.raises(TypeError, match="floating"):
        cohorts.of(jnp.ones((3, 4), int))
