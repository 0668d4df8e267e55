import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from metricjax import gallery
from tests.oracles import gallery as oracles


def unit(rng, *shape):
    x = rng.normal(size=shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def expected(queries, rows, k):
    scores = oracles.cosines(queries, rows)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(scores, order, axis=1)


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("rows", [37, 400])
def test_the_nearest_rows_are_those_of_a_full_comparison(rng, mesh, sharded, rows):
    x, queries = unit(rng, rows, 6), 3.0 * unit(rng, 5, 6)
    search = gallery.exact_search(x, mesh=mesh if sharded else None)
    for k in (1, 9):
        found = search(queries, k)
        indices, scores = expected(queries, x, k)
        np.testing.assert_array_equal(found.indices, indices)
        np.testing.assert_allclose(found.similarities, scores, atol=1e-6)


def test_of_equal_rows_the_first_comes_first_on_all_devices(mesh):
    rows = np.tile(np.eye(2, dtype=np.float32), (10, 1))
    for place in (None, mesh):
        found = gallery.exact_search(rows, mesh=place)(np.array([[1.0, 0.0]]), 6)
        assert found.indices.tolist() == [[0, 2, 4, 6, 8, 10]]


def test_places_that_cannot_be_filled_are_marked(mesh):
    rows = np.eye(3, dtype=np.float32)
    for place in (None, mesh):
        found = gallery.exact_search(rows, mesh=place)(np.ones((1, 3)), 5)
        assert found.indices.tolist() == [[0, 1, 2, -1, -1]]
        assert np.isneginf(found.similarities[0, 3:]).all()


def test_each_device_holds_its_own_rows_only(rng, mesh):
    rows = unit(rng, 64, 4)
    search = gallery.exact_search(rows, mesh=mesh)
    assert search(rows[:3], 1).indices[:, 0].tolist() == [0, 1, 2]
    placed = next(
        cell.cell_contents
        for cell in search.__closure__ or ()
        if isinstance(cell.cell_contents, jax.Array)
    )
    assert {shard.data.shape for shard in placed.addressable_shards} == {(8, 4)}


def test_an_empty_gallery_is_refused():
    with pytest.raises(ValueError, match="got an empty gallery"):
        gallery.exact_search(np.zeros((0, 4), np.float32))


def test_faiss_finds_the_same(rng):
    faiss = pytest.importorskip("faiss")
    rows, queries = unit(rng, 200, 6), unit(rng, 5, 6)
    found = gallery.faiss_search(rows)(queries, 4)
    exact = gallery.exact_search(rows)(queries, 4)
    np.testing.assert_array_equal(found.indices, exact.indices)
    np.testing.assert_allclose(found.similarities, exact.similarities, atol=1e-6)
    few = gallery.faiss_search(rows[:2])(queries[:1], 3)
    assert few.indices[0, 2] == -1
    with pytest.raises(ValueError, match="for inner products"):
        gallery.faiss_search(rows, index=faiss.IndexFlatL2(6))


def test_without_faiss_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(ImportError, match="faiss-cpu"):
        gallery.faiss_search(np.eye(2, dtype=np.float32))
