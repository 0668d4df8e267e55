"""Sums of exponentials made in parts, against loops over the whole row."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metricjax import _running

COLUMNS = 9
PARTS = (slice(0, 2), slice(2, 3), slice(3, COLUMNS))


def rows(rng):
    """Rows of all sizes of exponents, masks with empty rows and empty parts, values."""
    scales = np.array([1e-3, 1.0, 30.0, 1e3, 1e4, 1.0])
    x = scales[:, None] * rng.normal(size=(6, COLUMNS)).astype(np.float32)
    where = rng.random(x.shape) < 0.6
    where[5] = False
    where[1, :3] = False
    where[2, 1:] = False
    where[2, 0] = True
    return x.astype(np.float32), where, rng.normal(size=x.shape).astype(np.float32)


def in_parts(x, where, values, order):
    """Merged in the given order of parts, which need not be that of the columns."""
    parts = [
        _running.exponentials(x[:, s], where[:, s], (values[:, s],))
        for s in (PARTS[i] for i in order)
    ]
    return _running.merge(_running.merge(parts[0], parts[1]), parts[2])


def oracle(x, where, values):
    """Logarithm, softplus and weighted mean of one row, in float64."""
    columns = zip(x, where, values, strict=True)
    chosen = [(float(a), float(v)) for a, w, v in columns if w]
    if not chosen:
        return 0.0, 0.0, 0.0
    top = max(a for a, _ in chosen)
    weights = [math.exp(a - top) for a, _ in chosen]
    log = math.log(sum(weights)) + top
    mean = sum(w * v for w, (_, v) in zip(weights, chosen, strict=True)) / sum(weights)
    return log, max(log, 0.0) + math.log1p(math.exp(-abs(log))), mean


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_parts_in_any_order_give_the_sums_of_the_row(order, rng):
    x, where, values = rows(rng)
    found = in_parts(x, where, values, order)
    log, some = _running.log(found)
    mean = found.moments[0] / jnp.where(some, found.total, 1.0)
    expected = np.array([oracle(*row) for row in zip(x, where, values, strict=True)])
    np.testing.assert_array_equal(some, where.any(axis=1))
    np.testing.assert_allclose(log, expected[:, 0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(_running.softplus(found), expected[:, 1], rtol=1e-6)
    np.testing.assert_allclose(mean, expected[:, 2], rtol=2e-6, atol=1e-6)


def test_gradient_of_parts_is_the_softmax_at_any_scale(rng):
    x, where, values = rows(rng)

    def total(x):
        return jnp.sum(_running.log(in_parts(x, where, values, (2, 0, 1)))[0])

    masked = np.where(where, x.astype(np.float64), -np.inf)
    top = np.where(where.any(axis=1), masked.max(axis=1), 0.0)
    weights = np.exp(masked - top[:, None])
    expected = weights / np.maximum(weights.sum(axis=1), 1.0)[:, None]
    np.testing.assert_allclose(jax.grad(total)(x), expected, rtol=1e-5, atol=1e-7)


def test_what_is_not_a_number_stays_so():
    x, where = jnp.array([[jnp.nan, 1.0]]), jnp.ones((1, 2), bool)
    sums = _running.exponentials(x, where)
    assert np.isnan(_running.log(sums)[0][0])
    assert np.isnan(_running.softplus(sums)[0])


def test_plain_sums_add_and_bools_are_any():
    plain = (jnp.array([1.0]), jnp.array([False]))
    other = (jnp.array([2.0]), jnp.array([True]))
    total, some = _running.merge(plain, other)
    assert (float(total[0]), bool(some[0]), some.dtype) == (3.0, True, jnp.bool_)
    sums = _running.exponentials(jnp.zeros((1, 1)), jnp.ones((1, 1), bool))
    assert _running.is_plain(plain)
    assert not _running.is_plain((plain, sums))
