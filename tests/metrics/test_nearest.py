import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metricjax.metrics import _nearest, retrieval
from tests.oracles import metrics as oracle


def dot(x, y):
    return x @ y.T


@pytest.fixture(params=["whole", "grouped", "grouped chunks"])
def way(request, monkeypatch):
    """Rows searched as they are, in groups of columns, and in several chunks of them.

    A chunk of 50 has columns left over in its last group.
    """
    width, grouped_from = {
        "whole": (2**15, 10**6),
        "grouped": (2**15, 4),
        "grouped chunks": (50, 4),
    }[request.param]
    monkeypatch.setattr(_nearest, "GALLERY_BLOCK", width)
    monkeypatch.setattr(_nearest, "GROUPED_FROM", grouped_from)


def assert_nearest(found, scores, k, excluded=()):
    """The indices and similarities of a full sort, -1 and minus infinity after them."""
    for i, want in enumerate(oracle.nearest(scores, k, excluded)):
        missing = k - len(want)
        assert found.indices[i].tolist() == want + [-1] * missing
        similar = [scores[i][j] for j in want] + [-np.inf] * missing
        np.testing.assert_array_equal(found.similarities[i], similar)


@pytest.mark.parametrize("k", [1, 2, 5, 330])
def test_equals_a_full_sort_with_ties(way, rng, k):
    queries = rng.integers(-2, 3, (7, 3)).astype(np.float32)
    gallery = rng.integers(-2, 3, (303, 3)).astype(np.float32)
    found = retrieval.nearest(queries, gallery, k=k, similarity=dot, block_size=3)
    assert_nearest(found, queries @ gallery.T, k)


def test_of_equal_rows_the_first_are_found(way):
    x = np.ones((303, 2), np.float32)
    found = retrieval.nearest(x[:2], x, k=6, similarity=dot)
    assert found.indices.tolist() == [list(range(6))] * 2


def test_rows_that_are_not_to_be_found(way, rng):
    x = rng.integers(-2, 3, (303, 3)).astype(np.float32)
    where = np.arange(303) % 60 == 7
    found = retrieval.nearest(
        x, x, k=6, gallery_where=where, exclude_self=True, similarity=dot
    )
    hidden = {(i, j) for i in range(303) for j in range(303) if i == j or not where[j]}
    assert_nearest(found, x @ x.T, 6, hidden)
    assert (np.asarray(found.indices)[:, -1] < 0).any()


def test_nan_is_least_similar(way, rng):
    gallery = rng.integers(-2, 3, (303, 3)).astype(np.float32)
    gallery[5:] = np.nan
    found = retrieval.nearest(np.ones((2, 3), np.float32), gallery, k=8, similarity=dot)
    scores = np.ones((2, 3), np.float32) @ gallery.T
    scores[:, 5:] = np.finfo(np.float32).min
    assert_nearest(found, scores, 8)


def test_inside_jit_and_vmap(way, rng):
    queries = rng.standard_normal((2, 5, 3)).astype(np.float32)
    gallery = rng.standard_normal((303, 3)).astype(np.float32)
    search = functools.partial(retrieval.nearest, k=4)
    mapped = jax.jit(jax.vmap(search, in_axes=(0, None)))(queries, gallery)
    for i in range(2):
        found = search(queries[i], gallery)
        np.testing.assert_array_equal(mapped.indices[i], found.indices)


@pytest.mark.parametrize("values", [1, 2, 3, 10**6])
@pytest.mark.parametrize("size", [1, 4, 64])
def test_grouped_top_k_equals_the_plain_one(rng, values, size):
    scores = jnp.asarray(rng.integers(0, values, (5, 1024)), jnp.float32)
    scores = scores.at[0, 4:].set(-jnp.inf)
    for got, want in zip(
        _nearest.top_k(scores, 7, size), jax.lax.top_k(scores, 7), strict=True
    ):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(("width", "k"), [(30_000, 10), (30_000, 1), (63, 1), (9, 20)])
def test_there_are_more_groups_than_are_searched(width, k):
    size = _nearest.group_size(width, k)
    assert size == 1 or width // size > k


def test_more_than_the_gallery_has():
    found = retrieval.nearest(jnp.ones((1, 2)), jnp.ones((2, 2)), k=3)
    assert found.indices.tolist() == [[0, 1, -1]]
