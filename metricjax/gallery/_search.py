"""The nearest templates of a query: exactly, on several devices, or by faiss."""

import functools
import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from metricjax import _checks, numerics, similarities
from metricjax.metrics import retrieval
from metricjax.metrics.retrieval import Neighbors

Search = Callable[[ArrayLike, int], Neighbors]
"""`(queries [n, dim], k) -> Neighbors [n, k]`, by cosine similarity, nearest first."""


def exact_search(embeddings: ArrayLike, *, mesh: Mesh | None = None) -> Search:
    """Exact search among unit vectors, in blocks; the rows are put on devices once.

    Each block of queries meets each block of rows and a running list of the best is
    kept: memory is the rows and a few MiB. Of equal rows the first comes first.

    Args:
        embeddings: `[rows, dim]` unit vectors, as `Gallery.embeddings` are.
        mesh: shard the rows over all its devices. Each device searches its own rows;
            the lists of the best are then merged. One device by default.

    Returns:
        A `Search`. Where there are fewer than k rows, the last indices are -1.

    Raises:
        ValueError: if there are no rows.
        TypeError: if the embeddings are not floating.

    Example:
        >>> nearest = exact_search(np.eye(3, dtype=np.float32))
        >>> found = nearest(np.array([[0.0, 3.0, 4.0]], np.float32), 2)
        >>> found.indices.tolist(), [round(float(x), 4) for x in found[0][0]]
        ([[2, 1]], [0.8, 0.6])
    """
    rows = _checked(embeddings)
    if mesh is not None:
        return _sharded(rows, mesh)
    placed = jnp.asarray(rows)

    def search(queries: ArrayLike, k: int) -> Neighbors:
        x = numerics.l2_normalize(queries)
        return retrieval.nearest(x, placed, k=k, similarity=similarities.dot)

    return search


def _checked(embeddings: ArrayLike) -> ArrayLike:
    _checks.check_embeddings("embeddings", embeddings)
    if not jnp.shape(embeddings)[0]:
        raise ValueError(
            "Expected templates to search among, got an empty gallery; enroll some."
        )
    return embeddings


def _sharded(rows: ArrayLike, mesh: Mesh) -> Search:
    size, devices = jnp.shape(rows)[0], mesh.devices.size
    share = -(-size // devices)
    # Filled up on the host, so that no device ever holds the whole.
    filled = np.pad(np.asarray(rows), ((0, share * devices - size), (0, 0)))
    axes = mesh.axis_names
    by_row = PartitionSpec(axes)
    placed = jax.device_put(filled, NamedSharding(mesh, by_row))

    def local(queries: Array, own: Array, *, k: int) -> Neighbors:
        first = jax.lax.axis_index(axes) * share
        found = retrieval.nearest(
            queries,
            own,
            k=k,
            gallery_where=first + jnp.arange(share) < size,
            similarity=similarities.dot,
        )
        indices = jnp.where(found.indices < 0, -1, found.indices + first)
        mine = Neighbors(found.similarities, indices)
        # [n, devices * k]: in the order of the rows, so that the first wins ties.
        every = jax.tree.map(
            lambda x: jax.lax.all_gather(x, axes, axis=1, tiled=True), mine
        )
        best, place = jax.lax.top_k(every.similarities, k)
        return Neighbors(best, jnp.take_along_axis(every.indices, place, axis=1))

    @functools.cache
    def compiled(k: int) -> Callable[[Array, Array], Neighbors]:
        # Not differentiated, so that nothing rests on the check of varying axes, which
        # the loop over blocks (its carry starts from constants) would fail.
        mapped = jax.shard_map(
            functools.partial(local, k=k),
            mesh=mesh,
            in_specs=(PartitionSpec(), by_row),
            out_specs=PartitionSpec(),
            check_vma=False,
        )
        return jax.jit(mapped)

    def search(queries: ArrayLike, k: int) -> Neighbors:
        return compiled(k)(numerics.l2_normalize(queries), placed)

    return search


def faiss_search(embeddings: ArrayLike, *, index: Any = None) -> Search:
    """Search by faiss, for galleries where an approximate answer is wanted.

    Args:
        embeddings: `[rows, dim]` unit vectors, as `Gallery.embeddings` are.
        index: an empty faiss index for inner products, trained if it needs to be, for
            instance `faiss.IndexHNSWFlat(dim, 32, faiss.METRIC_INNER_PRODUCT)`; the
            rows are added to it. By default `faiss.IndexFlatIP`, which is exact.

    Returns:
        A `Search`, on the host.

    Raises:
        ValueError: if there are no rows, or the index is of another dimension, for
            distances, or not trained.
        ImportError: if faiss is missing.
    """
    rows = np.ascontiguousarray(_checked(embeddings), np.float32)
    faiss = _import_faiss()
    index = faiss.IndexFlatIP(rows.shape[1]) if index is None else index
    wanted = (rows.shape[1], faiss.METRIC_INNER_PRODUCT, True, 0)
    if (index.d, index.metric_type, index.is_trained, index.ntotal) != wanted:
        raise ValueError(
            f"Expected an empty, trained faiss index for inner products of dimension "
            f"{rows.shape[1]}, got dimension {index.d}, metric {index.metric_type}, "
            f"trained: {index.is_trained}, {index.ntotal} rows."
        )
    index.add(rows)

    def search(queries: ArrayLike, k: int) -> Neighbors:
        x = np.ascontiguousarray(numerics.l2_normalize(queries), np.float32)
        similarity, indices = index.search(x, k)
        missing = indices < 0
        similarity = np.where(missing, -np.inf, similarity)
        return Neighbors(jnp.asarray(similarity), jnp.asarray(indices, jnp.int32))

    return search


def _import_faiss() -> Any:
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise ImportError(
            "Expected the package faiss-cpu for `faiss_search`; install it with: "
            'pip install "metricjax[faiss]", or use `exact_search`.'
        ) from error
