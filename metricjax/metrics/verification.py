"""Verification: are two items the same?

A pair is accepted if its similarity is at least a threshold `t`:

- FAR(t), the false accept rate: the share of impostor pairs with similarity >= t;
- TAR(t), the true accept rate: the share of genuine pairs with similarity >= t;
- FRR(t) = 1 - TAR(t), the false reject rate.

Everything here is a function of one `Roc`, which holds these rates at every threshold
where they change. It is made from the similarities of pairs (`roc`) or from embeddings
and labels (`roc_of_embeddings`, all pairs, in tiles):

    curve = verification.roc_of_embeddings(embeddings, labels)
    verification.auc(curve), verification.eer(curve).rate
    verification.tar_at_far(curve, fars=(1e-2, 1e-3)).tar

Pairs of equal similarity are accepted or rejected together, so that ties count one
half in the area and an encoder that maps everything to one point has AUC and EER 0.5.

These functions run on the host, in NumPy and float64: the number of points depends on
the data, and counts of billions of pairs do not fit float32. `pair_scores` runs in JAX.

References:
    Grother & Ngan, "Face Recognition Vendor Test", NIST IR 8009, 2014 (the rates).
    Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 2006.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array
from jax.sharding import Mesh
from jax.typing import ArrayLike

from metricjax import _checks, numerics, similarities
from metricjax.metrics import _pair_blocks
from metricjax.metrics._folds import (
    FoldAccuracy,
    LfwPairs,
    best_threshold,
    fold_accuracy,
    read_lfw_pairs,
)
from metricjax.metrics._per_query import check_sides, known
from metricjax.metrics._ranking import Similarity
from metricjax.metrics._roc import (
    Det,
    Eer,
    Histogram,
    Roc,
    TarAtFar,
    auc,
    d_prime,
    det,
    eer,
    histogram,
    make_roc,
    roc,
    tar_at_far,
)

__all__ = [
    "Det",
    "Eer",
    "FoldAccuracy",
    "Histogram",
    "LfwPairs",
    "Options",
    "Roc",
    "TarAtFar",
    "Verification",
    "all_pairs",
    "auc",
    "best_threshold",
    "d_prime",
    "det",
    "eer",
    "evaluate",
    "evaluate_pairs",
    "fold_accuracy",
    "histogram",
    "pair_scores",
    "read_lfw_pairs",
    "roc",
    "roc_of_embeddings",
    "tar_at_far",
]

FARS = (1e-1, 1e-2, 1e-3, 1e-4)
EXACT_PAIRS = 2**22
BINS = 2**20


class Options(TypedDict, total=False):
    """The keyword arguments of `all_pairs` that every function of embeddings takes."""

    ref_embeddings: ArrayLike | None
    ref_labels: ArrayLike | None
    where: ArrayLike | None
    ref_where: ArrayLike | None
    similarity: Similarity
    block_size: int | None
    mesh: Mesh | None


class Verification(NamedTuple):
    """How well genuine and impostor pairs are told apart."""

    auc: float
    eer: Eer
    tar_at_far: TarAtFar
    d_prime: float
    genuine: int
    impostors: int
    curve: Roc


def evaluate(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    fars: Sequence[float] = FARS,
    bins: int | None = None,
    **options: Unpack[Options],
) -> Verification:
    """Verification on all pairs of a set of embeddings; on the host.

    Args:
        embeddings: `[batch, dim]`.
        labels: `[batch]` int; a negative label is in no pair.
        fars: the false accept rates at which the true accept rate is asked.
        bins: as in `roc_of_embeddings`.
        **options: as in `all_pairs`.

    Returns:
        A `Verification`.

    Raises:
        ValueError: if shapes disagree, a similarity is not finite, or genuine or
            impostor pairs are missing.
        TypeError: if a dtype is wrong.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> result = evaluate(x, jnp.array([0, 0, 1, 1]))
        >>> result.auc, result.eer.rate, result.genuine, result.impostors
        (1.0, 0.0, 2, 4)
    """
    curve = roc_of_embeddings(embeddings, labels, bins=bins, **options)
    return _summary(curve, fars)


def evaluate_pairs(
    similarities: npt.ArrayLike, is_same: npt.ArrayLike, *, fars: Sequence[float] = FARS
) -> Verification:
    """Verification on the similarities of given pairs; on the host.

    Args:
        similarities: `[pairs]`, larger is closer.
        is_same: bool `[pairs]`, True for genuine pairs.
        fars: the false accept rates at which the true accept rate is asked.

    Returns:
        A `Verification`.

    Raises:
        ValueError: if shapes disagree, a similarity is not finite, or genuine or
            impostor pairs are missing.

    Example:
        >>> evaluate_pairs([0.9, 0.4, 0.6, 0.1], [True, True, False, False]).auc
        0.75
    """
    return _summary(roc(similarities, is_same), fars)


def _summary(curve: Roc, fars: Sequence[float]) -> Verification:
    return Verification(
        auc=auc(curve),
        eer=eer(curve),
        tar_at_far=tar_at_far(curve, fars=fars),
        d_prime=d_prime(curve),
        genuine=curve.genuine,
        impostors=curve.impostors,
        curve=curve,
    )


def roc_of_embeddings(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    bins: int | None = None,
    **options: Unpack[Options],
) -> Roc:
    """The curve of all pairs of a set of embeddings, in tiles; on the host.

    Up to four million pairs, similarities are kept and sorted: the curve is exact.
    More are counted in a million bins from the lowest to the highest similarity. Each
    point of that curve is an exact count too (up to float32 rounding of the bin's
    edge), but thresholds are multiples of the bin's width, `Roc.resolution`, and pairs
    inside one bin are tied. For cosines the width is at most 2e-6, about the rounding
    of a float32 dot product. Memory: the bins and one tile.

    Args:
        embeddings: `[batch, dim]`.
        labels: `[batch]` int; a negative label is in no pair.
        bins: the number of bins, whatever the number of pairs.
        **options: as in `all_pairs`.

    Returns:
        A `Roc`.

    Raises:
        ValueError: if shapes disagree, a similarity is not finite, or genuine or
            impostor pairs are missing.
        TypeError: if a dtype is wrong.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> roc_of_embeddings(x, jnp.array([0, 0, 1, 1])).tar.tolist()
        [0.0, 1.0, 1.0, 1.0, 1.0]
    """
    tiles = _tiles(embeddings, labels, **options)
    if bins is None:
        if _pair_blocks.number(tiles) <= EXACT_PAIRS:
            return roc(*_pair_blocks.gather(tiles))
        bins = BINS
    _checks.check_positive_int("bins", bins, "a million is the default")
    counted = _pair_blocks.count(tiles, bins)
    filled = np.flatnonzero(counted.genuine + counted.impostors)[::-1]
    edges = counted.low + counted.width * filled
    thresholds = np.concatenate([[np.inf], edges])
    genuine, impostors = (
        np.concatenate([[0], np.cumsum(kind[filled])])
        for kind in (counted.genuine, counted.impostors)
    )
    return make_roc(thresholds, genuine, impostors, counted.width)


def all_pairs(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    ref_embeddings: ArrayLike | None = None,
    ref_labels: ArrayLike | None = None,
    where: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    similarity: Similarity = similarities.cosine,
    block_size: int | None = None,
    mesh: Mesh | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Similarities of all pairs of a set, and which are genuine; on the host.

    Memory: one float for each of the n (n - 1) / 2 pairs. `roc_of_embeddings` does
    without.

    Args:
        embeddings: `[batch, dim]`.
        labels: `[batch]` int; a negative label is in no pair.
        ref_embeddings: `[refs, dim]`; if given, pairs are between the two sets.
        ref_labels: `[refs]` int.
        where: bool `[batch]`, False for rows that are padding.
        ref_where: bool `[refs]`, the same for `ref_embeddings`.
        similarity: `(x [n, dim], y [m, dim]) -> [n, m]`, larger is closer.
        block_size: rows and columns of a tile of pairs; 2048 by default.
        mesh: shard `ref_embeddings`, or else the set, over all devices of this mesh,
            which work on a tile each; one device by default.

    Returns:
        `(similarities [pairs], is_same [pairs])`, in no particular order.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> scores, is_same = all_pairs(x, jnp.array([0, 0, 1]))
        >>> scores.tolist(), is_same.tolist()
        ([1.0, 0.0, 0.0], [True, False, False])
    """
    tiles = _tiles(
        embeddings,
        labels,
        ref_embeddings=ref_embeddings,
        ref_labels=ref_labels,
        where=where,
        ref_where=ref_where,
        similarity=similarity,
        block_size=block_size,
        mesh=mesh,
    )
    return _pair_blocks.gather(tiles)


def _tiles(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    ref_embeddings: ArrayLike | None = None,
    ref_labels: ArrayLike | None = None,
    where: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    similarity: Similarity = similarities.cosine,
    block_size: int | None = None,
    mesh: Mesh | None = None,
) -> _pair_blocks.Tiles:
    check_sides(embeddings, labels, ref_embeddings, ref_labels, where, ref_where)
    own = embeddings, np.asarray(known(labels, where))
    others = None
    if ref_embeddings is not None and ref_labels is not None:
        others = ref_embeddings, np.asarray(known(ref_labels, ref_where))
    return _pair_blocks.make_tiles(own, others, similarity, block_size, mesh)


def pair_scores(
    embeddings: ArrayLike,
    pairs: ArrayLike,
    *,
    ref_embeddings: ArrayLike | None = None,
    similarity: Similarity = similarities.cosine,
    block_size: int = 4096,
) -> Array:
    """Similarities of listed pairs.

    Args:
        embeddings: `[batch, dim]`.
        pairs: `[pairs, 2]` int: a row of `embeddings`, and a row of it or of
            `ref_embeddings`.
        ref_embeddings: `[refs, dim]`, where the second of each pair is taken from.
        similarity: `(x [n, dim], y [m, dim]) -> [n, m]`, larger is closer.
        block_size: pairs compared at once.

    Returns:
        `[pairs]`. Rows out of range give NaN.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
        >>> pair_scores(x, jnp.array([[0, 1], [1, 2]])).tolist()
        [1.0, 0.0]
    """
    _checks.check_embeddings("embeddings", embeddings)
    refs = embeddings if ref_embeddings is None else ref_embeddings
    _checks.check_embeddings("ref_embeddings", refs)
    _checks.check_same_dim("embeddings", embeddings, "ref_embeddings", refs)
    rows = len(jnp.asarray(pairs))
    _checks.check_shape("pairs", pairs, (rows, 2), "two rows for each pair")
    _checks.check_labels("pairs", jnp.ravel(jnp.asarray(pairs)), 2 * rows)
    x, y = numerics.promote(embeddings), numerics.promote(refs)
    pairs = jnp.asarray(pairs)
    known_rows = (pairs >= 0) & (pairs < jnp.asarray([[len(x), len(y)]]))

    def one(pair: Array) -> Array:
        left, right = (
            jnp.take(side, row[None], axis=0, mode="clip")
            for side, row in zip((x, y), pair, strict=True)
        )
        return similarity(left, right)[0, 0]

    scores = jax.lax.map(one, pairs, batch_size=block_size)
    return jnp.where(jnp.all(known_rows, axis=1), scores, jnp.nan)
