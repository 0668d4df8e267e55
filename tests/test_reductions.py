"""Reductions against what they say they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from metricjax import reductions
from metricjax.reductions import Terms

TOTAL = np.array([3.0, 5.0, 0.0, 1.5])
COUNT = np.array([2.0, 4.0, 0.0, 3.0])
ACTIVE = np.array([1.0, 2.0, 0.0, 1.0])


def terms(parts=False):
    """Terms of four anchors, the third of which has none."""
    fields = (TOTAL, COUNT, ACTIVE)
    if parts:
        fields = [np.stack([x, x[::-1] + 1], axis=1) for x in fields]
    return Terms(*(jnp.asarray(x, jnp.float32) for x in fields))


def test_each_reduction_of_plain_terms():
    assert float(reductions.sum(terms())) == 9.5
    assert float(reductions.mean(terms())) == pytest.approx(9.5 / 9)
    assert float(reductions.mean_active(terms())) == pytest.approx(9.5 / 4)
    np.testing.assert_allclose(
        reductions.per_anchor(terms()), [1.5, 1.25, 0.0, 0.5], rtol=1e-6
    )


def test_parts_are_reduced_apart_and_then_added():
    both = terms(parts=True)
    assert float(reductions.sum(both)) == 9.5 + 13.5
    assert float(reductions.mean(both)) == pytest.approx(9.5 / 9 + 13.5 / 13)
    assert float(reductions.mean_active(both)) == pytest.approx(9.5 / 4 + 13.5 / 8)
    np.testing.assert_allclose(
        reductions.per_anchor(both),
        [1.5 + 2.5 / 4, 1.25 + 1 / 1, 0.0 + 6 / 5, 0.5 + 4 / 3],
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    "reduction",
    [
        reductions.sum,
        reductions.mean,
        reductions.mean_active,
        reductions.per_anchor,
    ],
)
def test_nothing_gives_zero_with_a_finite_gradient(reduction):
    empty = Terms(*(jnp.zeros(3) for _ in range(3)))
    value, pullback = jax.vjp(reduction, empty)
    np.testing.assert_array_equal(value, jnp.zeros_like(value))
    for x in jax.tree.leaves(pullback(jnp.ones_like(value))):
        assert np.all(np.isfinite(x))


def test_marked_reductions_read_only_the_sums():
    for reduction in (reductions.sum, reductions.mean, reductions.mean_active):
        assert getattr(reduction, "reads_sums", False)
        for parts in (False, True):
            whole = terms(parts)
            summed = Terms(*(jnp.sum(x, axis=0, keepdims=True) for x in whole))
            np.testing.assert_allclose(reduction(summed), reduction(whole), rtol=1e-6)
    assert not hasattr(reductions.per_anchor, "reads_sums")


def test_a_reduction_of_ones_own_is_marked_and_returned():
    def mean_of_totals(terms):
        return jnp.sum(terms.total)

    assert reductions.reads_sums(mean_of_totals) is mean_of_totals
    assert getattr(Partial(mean_of_totals).func, "reads_sums", False)


def test_the_gradient_of_a_mean_is_one_over_the_count():
    gradient = jax.grad(lambda t: reductions.mean(terms()._replace(total=t)))(
        jnp.asarray(TOTAL, jnp.float32)
    )
    np.testing.assert_allclose(gradient, 1 / 9, rtol=1e-6)
