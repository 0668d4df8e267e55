"""Whitening within classes, against loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metricjax import whitening

SHRINKAGE = 0.2


@pytest.fixture
def x(rng):
    spread = rng.normal(size=(6, 6))
    return rng.normal(size=(40, 6)) @ spread + 3.0


@pytest.fixture
def y(rng):
    return rng.integers(0, 5, size=40) * 7 + 2


def covariance(x, y):
    """Mean over examples of `(x - m_class) (x - m_class)^T`, as loops."""
    total = np.zeros((x.shape[1],) * 2)
    for label in set(y.tolist()):
        members = x[y == label]
        for row in members:
            difference = row - members.mean(axis=0)
            total += np.outer(difference, difference)
    return total / len(x)


def expected(x, y, shrinkage, total=0.0):
    spread = covariance(x, y)
    level = np.trace(spread) / len(spread)
    around = covariance(x, np.zeros(len(x)))
    spread = (1 - total) * spread + total * around * level / np.trace(around) * len(
        around
    )
    shrunk = (1 - shrinkage) * spread + shrinkage * level * np.eye(len(spread))
    values, vectors = np.linalg.eigh(shrunk)
    return x.mean(axis=0), vectors @ np.diag(values**-0.5) @ vectors.T


def check(found, x, y, shrinkage=SHRINKAGE, total=0.0, rtol=1e-4):
    mean, matrix = expected(np.float64(x), np.asarray(y), shrinkage, total)
    np.testing.assert_allclose(found.mean, mean, rtol=rtol, atol=1e-5)
    np.testing.assert_allclose(found.matrix, matrix, rtol=rtol, atol=1e-4)


@pytest.mark.parametrize("shrinkage", [0.01, 0.3, 1.0])
def test_the_map_is_that_of_the_loops(x, y, shrinkage):
    found = whitening.within_class(jnp.float32(x), y, shrinkage=shrinkage)
    check(found, x, y, shrinkage)


@pytest.mark.parametrize("total", [0.2, 1.0])
def test_a_share_of_the_total_covariance_is_that_of_the_loops(x, y, total):
    found = whitening.within_class(jnp.float32(x), y, shrinkage=SHRINKAGE, total=total)
    check(found, x, y, total=total)


def test_all_of_the_total_covariance_whitens_whatever_the_classes_are(x, y):
    found = whitening.within_class(jnp.float32(x), y, shrinkage=1e-6, total=1.0)
    after = np.float64(whitening.apply(found, jnp.float32(x)))
    level = np.trace(covariance(x, y)) / np.trace(covariance(x, np.zeros(len(x))))
    np.testing.assert_allclose(np.cov(after.T, bias=True) * level, np.eye(6), atol=1e-3)


def test_in_float64_and_compiled(x, y):
    with jax.enable_x64(True):
        fit = jax.jit(whitening.within_class, static_argnames=("shrinkage", "total"))
        found = fit(jnp.asarray(x), y, shrinkage=SHRINKAGE, total=0.3)
        assert found.matrix.dtype == jnp.float64
        check(found, x, y, total=0.3, rtol=1e-10)


def test_whitened_classes_vary_alike_in_all_directions(x, y):
    found = whitening.within_class(jnp.float32(x), y, shrinkage=1e-6)
    after = np.float64(whitening.apply(found, jnp.float32(x)))
    np.testing.assert_allclose(covariance(after, y), np.eye(6), atol=1e-3)
    np.testing.assert_allclose(after.mean(axis=0), 0.0, atol=1e-4)


def test_a_direction_of_nuisance_no_longer_hides_new_classes(rng):
    y = np.repeat(np.arange(16), 10)
    marks = 2.0 * rng.normal(size=(16, 3))[y] + 0.1 * rng.normal(size=(160, 3))
    x = np.concatenate([marks, 5.0 * rng.normal(size=(160, 1))], axis=1)
    x = jnp.float32(x)

    def right(x, y):
        apart = np.linalg.norm(x[:, None] - x, axis=-1) + 1e9 * np.eye(len(x))
        return np.mean(y[np.argmin(apart, axis=1)] == y)

    whitener = whitening.within_class(x[:80], y[:80], shrinkage=0.01)
    after = np.asarray(whitening.apply(whitener, x[80:]))
    assert right(np.asarray(x[80:]), y[80:]) < 0.9 < 0.99 <= right(after, y[80:])


@pytest.mark.parametrize("total", [0.0, 0.3])
def test_padding_and_negative_labels_are_left_out(x, y, rng, total):
    rows = np.concatenate([x, 1e3 * rng.normal(size=(4, 6))])
    rows[-1] = np.nan
    labels = np.concatenate([y, [2, 9, -1, 2]])
    where = np.concatenate([np.ones(40, bool), [False, False, True, False]])
    found = whitening.within_class(
        jnp.float32(rows), labels, shrinkage=SHRINKAGE, total=total, where=where
    )
    check(found, x, y, total=total)


@pytest.mark.parametrize("size", [0, 1, 4])
def test_classes_of_one_example_leave_all_directions_as_they_are(x, size):
    rows, labels = jnp.float32(x[:size]), np.arange(size)
    found = whitening.within_class(rows, labels, total=0.3)
    np.testing.assert_array_equal(found.matrix, np.eye(6))
    mean = x[:size].mean(axis=0) if size else np.zeros(6)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-5)


def test_more_dimensions_than_examples(rng):
    x = rng.normal(size=(6, 50))
    y = np.array([0, 0, 0, 1, 1, 1])
    found = whitening.within_class(jnp.float32(x), y, shrinkage=SHRINKAGE)
    check(found, x, y)


def test_half_precision_is_computed_in_float32(x, y):
    half = jnp.bfloat16(x)
    found = whitening.within_class(half, y, shrinkage=SHRINKAGE)
    assert found.matrix.dtype == jnp.float32
    check(found, np.asarray(half, np.float64), y)


def test_many_sets_at_once(x, y):
    sets = jnp.float32(np.stack([x, 2 * x[::-1]]))
    found = jax.vmap(lambda x: whitening.within_class(x, y, shrinkage=SHRINKAGE))(sets)
    check(jax.tree.map(lambda a: a[1], found), np.asarray(sets[1]), y)


def test_apply_takes_any_leading_axes_and_the_identity_changes_nothing(x):
    same = whitening.identity(6)
    rows = jnp.float32(x)
    np.testing.assert_array_equal(whitening.apply(same, rows), rows)
    halved = whitening.Whitening(rows[0], 0.5 * jnp.eye(6))
    found = whitening.apply(halved, rows.reshape(4, 10, 6))
    np.testing.assert_allclose(found.reshape(40, 6), (rows - rows[0]) / 2, rtol=1e-5)


def test_what_does_not_fit_is_refused(x, y):
    rows = jnp.float32(x)
    with pytest.raises(ValueError, match=r"`shrinkage` in \(0, 1\], got 0"):
        whitening.within_class(rows, y, shrinkage=0.0)
    with pytest.raises(ValueError, match=r"`total` in \[0, 1\], got 1.5"):
        whitening.within_class(rows, y, total=1.5)
    with pytest.raises(ValueError, match="labels"):
        whitening.within_class(rows, y[:-1])
    with pytest.raises(ValueError, match="where"):
        whitening.within_class(rows, y, where=np.ones(3, bool))
    with pytest.raises(ValueError, match=r"`embeddings` \[..., 6\], got \[40, 5\]"):
        whitening.apply(whitening.identity(6), rows[:, :5])
    with pytest.raises(ValueError, match="dim"):
        whitening.identity(0)
