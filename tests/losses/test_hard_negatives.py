"""Mean-negative and closest-negative losses on aligned pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metricjax import losses, reductions
from metricjax.losses import _hard_negatives
from tests import compiled
from tests.oracles import losses_tuples as oracles

# A published example of similarities, with the loss of its semi-hard form.
SIMILARITY = [
    [0.9, -0.8, 0.3, -0.5],
    [-0.4, 0.5, 0.1, -0.1],
    [0.3, 0.1, -0.4, -0.8],
    [-0.5, -0.2, -0.7, 0.5],
]


def on_similarities(semi_hard):
    own, margin = jnp.arange(4), jnp.full(4, 0.25)
    far = ~jnp.eye(4, dtype=bool)
    arguments = jnp.array(SIMILARITY), ~far, far, (own, margin)
    return compiled.call(_hard_negatives._both_row, *arguments, semi_hard=semi_hard)


def test_the_published_example_gives_its_published_values():
    lab, assignment = on_similarities(True), on_similarities(False)
    assert float(jnp.sum(lab.total)) == pytest.approx(0.516667, abs=1e-6)
    assert float(jnp.sum(assignment.total)) == pytest.approx(1.466667, abs=1e-6)
    assert float(jnp.sum(assignment.total)) / 4 == pytest.approx(0.366667, abs=1e-6)
    # The third anchor alone costs anything.
    np.testing.assert_array_equal(lab.active.sum(axis=1) > 0, [0, 0, 1, 0])


@pytest.mark.parametrize("semi_hard", [True, False])
def test_a_batch_of_one_costs_nothing(semi_hard):
    x = jnp.array([[1.0, 2.0]])
    slope = jax.value_and_grad(losses.hard_negatives)
    value, gradient = compiled.call(slope, x, -x, semi_hard=semi_hard)
    assert value == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


def test_rows_of_one_label_are_no_negatives_of_each_other(rng):
    x, p = rng.normal(size=(2, 5, 3))
    x[3], p[3] = x[1], p[1]
    labels = np.array([0, 1, 2, 1, 4])
    for semi_hard in (True, False):
        options = {"semi_hard": semi_hard, "margin": 0.5}
        blind, found = (
            compiled.call(losses.hard_negatives, x, p, **options, labels=labels_given)
            for labels_given in (None, labels)
        )
        expected = oracles.hard_negatives(x, p, labels, semi_hard=semi_hard, margin=0.5)
        assert float(found) == pytest.approx(expected, rel=1e-5)
        assert abs(float(blind) - float(found)) > 0.1


def test_a_copy_of_the_positive_ties_and_so_is_semi_hard(rng):
    x = jnp.asarray(rng.normal(size=(64, 48)), jnp.float32)
    p = jnp.asarray(rng.normal(size=(64, 48)), jnp.float32)
    p = p.at[1::2].set(p[::2])
    each = compiled.call(losses.closest_negative, x, p, reduction=reductions.per_anchor)
    np.testing.assert_allclose(each, 0.25, atol=1e-6)


def test_the_two_parts_are_the_two_losses(rng):
    x, p = rng.normal(size=(2, 6, 3))
    both, first, second = (
        compiled.call(loss, x, p, reduction=reductions.per_anchor)
        for loss in (
            losses.hard_negatives,
            losses.mean_negative,
            losses.closest_negative,
        )
    )
    np.testing.assert_allclose(both, first + second, rtol=1e-6)


def test_sets_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="one positive for each anchor"):
        losses.hard_negatives(jnp.ones((3, 2)), jnp.ones((2, 2)))
