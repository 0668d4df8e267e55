"""Several views of each item: multi_view and VICReg."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from jax.tree_util import Partial

from metricjax import losses, pairs
from tests import compiled
from tests.oracles import losses_contrastive as contrastive


def random(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def test_views_equal_stacked_rows_with_view_labels(rng):
    views = random(rng, 3, 5, 4)
    stacked = views.reshape(15, 4)
    labels = pairs.view_labels(5, 3)

    @jax.jit
    def three(views):
        hard = losses.multi_view(views, loss=losses.triplet_hard)
        return losses.multi_view(views), hard, losses.triplet_hard(stacked, labels)

    simclr, hard, expected = three(views)
    np.testing.assert_allclose(simclr, contrastive.ntxent(stacked, labels), rtol=1e-5)
    np.testing.assert_allclose(hard, expected, rtol=1e-6)


def test_labels_weights_and_padding_of_items_hold_for_all_views(rng):
    views = random(rng, 2, 5, 4)
    labels = np.array([0, 0, 1, 2, 1], np.int32)
    where = np.array([True, True, True, True, False])
    weights = np.array([1.0, 2.0, 0.5, 3.0, 9.0], np.float32)
    found = compiled.call(
        losses.multi_view,
        views,
        loss=losses.supcon,
        labels=labels,
        where=where,
        weights=weights,
    )
    real = views[:, :4].reshape(8, 4)
    expected = compiled.call(
        losses.supcon, real, np.tile(labels[:4], 2), weights=np.tile(weights[:4], 2)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_views_of_items_on_several_devices_are_no_positives_of_each_other(rng):
    views = jnp.asarray(random(rng, 2, 8, 4))
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    sharded = jax.shard_map(
        lambda x: losses.multi_view(x, axis_name="data"),
        mesh=mesh,
        in_specs=PartitionSpec(None, "data"),
        out_specs=PartitionSpec(),
    )
    np.testing.assert_allclose(
        jax.jit(sharded)(views), compiled.call(losses.multi_view, views), rtol=1e-6
    )


def test_one_view_and_flat_input_are_refused_or_zero(rng):
    assert compiled.call(losses.multi_view, random(rng, 1, 5, 4)) == 0.0
    with pytest.raises(ValueError, match=r"\[views, items, dim\]"):
        losses.multi_view(random(rng, 5, 4))
    with pytest.raises(ValueError, match="one weight for each item"):
        losses.multi_view(random(rng, 2, 5, 4), weights=jnp.ones(10))
    with pytest.raises(ValueError, match="at least 1"):
        pairs.view_labels(3, 0)


def test_vicreg_has_the_whole_variance_term_where_the_code_has_half(rng):
    x, y = random(rng, 6, 3) / 2, random(rng, 6, 3) / 2
    # The authors' code, with the unbiased variance of torch.
    short = [
        np.mean(np.maximum(0, 1 - np.sqrt(z.var(axis=0, ddof=1) + 1e-4)))
        for z in (x, y)
    ]
    together = []
    for z in (x, y):
        squares = np.cov(z.T) ** 2
        together.append((squares.sum() - np.trace(squares)) / 3)
    authors = 25 * np.mean((x - y) ** 2) + 25 * sum(short) / 2 + sum(together)
    loss = jax.jit(losses.vicreg)
    np.testing.assert_allclose(loss(x, y, variance=12.5), authors, rtol=1e-5)
    np.testing.assert_allclose(loss(x, y) - authors, 25 * sum(short) / 2, rtol=1e-4)


def test_parts_of_vicreg_can_be_watched_one_by_one(rng):
    x = random(rng, 6, 3)
    terms_of = jax.jit(Partial(losses.vicreg, reduction=None))
    terms = terms_of(x, x + 1.0)
    assert terms.total.shape == (6, 3)
    parts = terms.total.sum(axis=0) / terms.count.sum(axis=0)
    # A shift costs invariance alone.
    np.testing.assert_allclose(parts[0], 25.0, rtol=1e-5)
    unmoved = terms_of(x, x).total[0]
    np.testing.assert_allclose(parts[1:], unmoved[1:], rtol=1e-4)


def test_vicreg_of_one_row_or_of_equal_rows_is_finite(rng):
    x = random(rng, 1, 3)
    both = jax.jit(jax.value_and_grad(losses.vicreg))
    value, gradient = both(x, x + 1.0)
    np.testing.assert_allclose(value, 25.0, rtol=1e-6)
    np.testing.assert_allclose(gradient, -50.0 / 3, rtol=1e-5)
    same = np.repeat(x, 4, axis=0)
    value, gradient = both(same, same)
    # A standard deviation of sqrt(1e-4) in each dimension.
    np.testing.assert_allclose(value, 2 * 25 * (1 - 0.01), rtol=1e-5)
    assert np.all(np.isfinite(gradient))


def test_weights_of_vicreg_move_the_first_term_only(rng):
    x, y = random(rng, 4, 3), random(rng, 4, 3)
    weights = np.array([0.0, 0.0, 2.0, 0.0], np.float32)

    @jax.jit
    def each(x, y):
        terms = losses.vicreg(x, y, weights=weights, reduction=None)
        rest = losses.vicreg(x, y, weights=weights, invariance=0.0)
        return terms, losses.vicreg(x, y, weights=weights) - rest

    terms, first = each(x, y)
    np.testing.assert_allclose(first, 25 * np.mean((x - y)[2] ** 2), rtol=1e-4)
    np.testing.assert_array_equal(terms.count[:, 0], weights)
    with pytest.raises(ValueError, match="two views"):
        losses.vicreg(x, y[:3])
