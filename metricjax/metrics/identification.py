"""Identification: who is this, and is it someone we know?

A probe is compared with a gallery that holds one or several items of each identity.
Its similarity to an identity is that to the identity's nearest item. A probe is mated
if its identity is in the gallery; others should be rejected.

- CMC(k), closed set: the share of mated probes whose identity is among the first k.
- FPIR(t), false positive identification rate: the share of unmated probes whose best
  similarity is at least t. TPIR(t): the share of mated probes whose own identity is
  first, with a similarity of at least t. FNIR = 1 - TPIR.
- OSCR: correct classification rate against false positive rate, over all thresholds,
  and the area under it.
- AUROC: the chance that a mated probe's best similarity beats an unmated one's.

Identities that tie with the probe's own share the place evenly: of n tied identities
one is right 1 / n of the time. An encoder that maps all to one point scores chance.

    found = identification.search(probes, probe_labels, gallery, gallery_labels)
    identification.cmc(found, max_rank=10)
    identification.tpir_at_fpir(found, fpirs=(0.01,))

The functions on probes run on the host, in NumPy; `class_means` and
`open_set_accuracy` in JAX.

References:
    Phillips, Grother & Micheals, "Evaluation Methods in Face Recognition", Handbook of
    Face Recognition, 2011. Dhamija, Guenther & Boult, "Reducing Network Agnostophobia",
    NeurIPS 2018, arXiv:1811.04110 (OSCR).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import _checks, numerics, similarities
from metricjax.metrics._open_set import (
    OpenSetAccuracy,
    class_means,
    class_similarities,
    open_set_accuracy,
)
from metricjax.metrics._ranking import Similarity

__all__ = [
    "Found",
    "OpenSetAccuracy",
    "Oscr",
    "TpirAtFpir",
    "auroc",
    "class_means",
    "class_similarities",
    "cmc",
    "open_set_accuracy",
    "oscr",
    "search",
    "tpir_at_fpir",
]

BLOCK = 2**21


class Found(NamedTuple):
    """What a search found for each probe; NumPy, each `[probes]`."""

    best: np.ndarray  # similarity to the nearest identity
    identity: np.ndarray  # the label of that identity, of equal ones the lowest
    correct: np.ndarray  # chance that it is the right one: 1, 0, or 1/n of n tied
    above: np.ndarray  # identities nearer than the probe's own (mated probes)
    tied: np.ndarray  # identities as near as its own, itself included
    mated: np.ndarray  # bool: the probe's identity is in the gallery


class TpirAtFpir(NamedTuple):
    """True positive identification rates at given false ones; each `[fpirs]`."""

    fpirs: np.ndarray  # as asked
    tpir: np.ndarray  # NaN where not supported
    thresholds: np.ndarray  # NaN where not supported
    observed_fpir: np.ndarray  # at that threshold, at most as asked
    supported: np.ndarray  # bool: there are as many unmated probes as needed
    needed: np.ndarray  # unmated probes needed, 1 / FPIR


class Oscr(NamedTuple):
    """Open-set classification rate at each threshold, and the area under it."""

    thresholds: np.ndarray  # [points], falling from infinity
    ccr: np.ndarray  # [points]
    fpr: np.ndarray  # [points]
    area: float


def search(
    embeddings: ArrayLike,
    labels: ArrayLike,
    gallery: ArrayLike,
    gallery_labels: ArrayLike,
    *,
    similarity: Similarity = similarities.cosine,
    block_size: int | None = None,
) -> Found:
    """Compare probes with all identities of a gallery; on the host, in blocks.

    Args:
        embeddings: `[probes, dim]`.
        labels: `[probes]` int; an identity that is not in the gallery is unmated.
        gallery: `[rows, dim]`, one or several items of each identity.
        gallery_labels: `[rows]` int.
        similarity: `(x [n, dim], y [m, dim]) -> [n, m]`, larger is closer.
        block_size: probes compared at once; by default such that a block of
            similarities has about two million entries.

    Returns:
        A `Found`.

    Raises:
        ValueError: if shapes disagree, the gallery is empty, or a similarity is NaN.
        TypeError: if a dtype is wrong.

    Example:
        >>> gallery = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> probes = jnp.array([[0.9, 0.1], [0.1, 0.9], [-1.0, 0.0]])
        >>> found = search(probes, jnp.array([3, 3, 8]), gallery, jnp.array([3, 5]))
        >>> found.correct.tolist(), found.mated.tolist()
        ([1.0, 0.0, 0.0], [True, True, False])
    """
    _check_search(embeddings, labels, gallery, gallery_labels)
    names, members = np.unique(np.asarray(gallery_labels), return_inverse=True)
    order = np.argsort(members, kind="stable")
    starts = np.searchsorted(members[order], np.arange(len(names)))
    rows = jnp.asarray(gallery)[order]
    labels = np.asarray(labels)
    own = np.minimum(np.searchsorted(names, labels), len(names) - 1)
    mated = names[own] == labels
    blocks = []
    for part, scores in _blocks(embeddings, rows, similarity, block_size):
        of_identity = np.maximum.reduceat(scores, starts, axis=1)
        blocks.append(_rank(of_identity, own[part], mated[part]))
    best, place, correct, above, tied = map(np.concatenate, zip(*blocks, strict=True))
    return Found(best, names[place], correct, above, tied, mated)


def _check_search(
    embeddings: ArrayLike, labels: ArrayLike, gallery: ArrayLike, rows: ArrayLike
) -> None:
    _checks.check_embeddings("embeddings", embeddings)
    _checks.check_embeddings("gallery", gallery)
    _checks.check_same_dim("embeddings", embeddings, "gallery", gallery)
    _checks.check_labels("labels", labels, jnp.shape(embeddings)[0])
    _checks.check_labels("gallery_labels", rows, jnp.shape(gallery)[0])
    if not (jnp.shape(gallery)[0] and jnp.shape(embeddings)[0]):
        raise ValueError(
            f"Expected probes and a gallery, got {_checks.describe(embeddings)} and "
            f"{_checks.describe(gallery)}; enroll at least one item."
        )


def _blocks(
    embeddings: ArrayLike,
    gallery: Array,
    similarity: Similarity,
    block_size: int | None,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks of probes and their similarities to all gallery rows."""
    x, gallery = numerics.promote(embeddings), numerics.promote(gallery)
    block = block_size or max(1, min(BLOCK // len(gallery), len(x)))
    for start in range(0, len(x), block):
        part = slice(start, min(start + block, len(x)))
        # Filled up to a whole block, so that it is compiled once.
        rows = jnp.asarray(np.minimum(np.arange(start, start + block), len(x) - 1))
        scores = np.asarray(_similar(Partial(similarity), x[rows], gallery))
        scores = scores[: part.stop - start]
        if np.isnan(scores).any():
            raise ValueError(
                "Expected similarities without NaN, got some; check the embeddings."
            )
        yield part, scores


@jax.jit
def _similar(similarity: Similarity, x: Array, y: Array) -> Array:
    return numerics.promote(similarity(x, y))


def _rank(
    scores: np.ndarray, own: np.ndarray, mated: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Where the own identity of each probe stands among all."""
    best = scores.max(axis=1)
    mine = np.where(mated, scores[np.arange(len(own)), own], np.nan)
    above = np.count_nonzero(scores > mine[:, None], axis=1)
    tied = np.count_nonzero(scores == mine[:, None], axis=1)
    correct = np.where(mine == best, 1 / np.maximum(tied, 1), 0.0)
    return best, scores.argmax(axis=1), correct, above, tied


def cmc(found: Found, *, max_rank: int = 20) -> np.ndarray:
    """Cumulative match characteristic over identities, closed set; on the host.

    Args:
        found: from `search`; only its mated probes count.
        max_rank: the last rank.

    Returns:
        `[max_rank]`: the share of mated probes whose identity is among the first k.
        The first entry is the rank-1 identification rate.

    Raises:
        ValueError: if no probe is mated.

    Example:
        >>> gallery = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> probes = jnp.array([[0.9, 0.1], [0.1, 0.9], [-1.0, 0.0]])
        >>> found = search(probes, jnp.array([3, 3, 8]), gallery, jnp.array([3, 5]))
        >>> cmc(found, max_rank=2).tolist()
        [0.5, 1.0]
    """
    _checks.check_positive_int("max_rank", max_rank, "ranks start at 1")
    _need(found, mated=True, unmated=False)
    above, tied = found.above[found.mated, None], found.tied[found.mated, None]
    inside = np.clip(np.arange(1, max_rank + 1) - above, 0, tied)
    return np.mean(inside / tied, axis=0)


def _need(found: Found, *, mated: bool, unmated: bool) -> None:
    known = int(np.count_nonzero(found.mated))
    others = len(found.mated) - known
    if (mated and not known) or (unmated and not others):
        raise ValueError(
            f"Expected {'mated' if mated else ''}{' and ' if mated and unmated else ''}"
            f"{'unmated' if unmated else ''} probes, got {known} mated and {others} "
            "unmated; leave some identities out of the gallery, not all."
        )


def tpir_at_fpir(found: Found, *, fpirs: Sequence[float]) -> TpirAtFpir:
    """True positive identification rate at given false positive rates; on the host.

    At the smallest threshold whose FPIR, over unmated probes, is at most the one asked.
    A rate below one unmated probe was not measured: such entries are NaN.

    Args:
        found: from `search`, with mated and unmated probes.
        fpirs: false positive identification rates, each in (0, 1].

    Returns:
        A `TpirAtFpir` with one entry for each rate.

    Raises:
        ValueError: if mated or unmated probes are missing, or a rate is not in (0, 1].

    Example:
        >>> gallery = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> probes = jnp.array([[0.9, 0.1], [0.1, 0.9], [-1.0, 0.0]])
        >>> found = search(probes, jnp.array([3, 3, 8]), gallery, jnp.array([3, 5]))
        >>> tpir_at_fpir(found, fpirs=(1.0, 0.1)).tpir.tolist()
        [0.5, nan]

    References:
        Grother, Ngan & Hanaoka, "Face Recognition Vendor Test Part 2: Identification",
        NIST IR 8271, 2019.
    """
    curve = oscr(found)
    asked = np.asarray(fpirs, np.float64)
    if not ((asked > 0) & (asked <= 1)).all():
        raise ValueError(
            f"Expected `fpirs` in (0, 1], got {list(fpirs)}; 0.01 is one in a hundred."
        )
    unmated = np.count_nonzero(~found.mated)
    allowed = np.floor(asked * unmated * (1 + 1e-12))
    last = np.searchsorted(np.rint(curve.fpr * unmated), allowed, side="right") - 1
    supported = allowed >= 1
    return TpirAtFpir(
        fpirs=asked,
        tpir=np.where(supported, curve.ccr[last], np.nan),
        thresholds=np.where(supported, curve.thresholds[last], np.nan),
        observed_fpir=np.where(supported, curve.fpr[last], np.nan),
        supported=supported,
        needed=np.ceil(1 / asked * (1 - 1e-12)).astype(np.int64),
    )


def oscr(found: Found) -> Oscr:
    """Open-set classification rate: correct and accepted against falsely accepted.

    `CCR(t)`: share of mated probes that are right and at least t similar; `FPR(t)`:
    share of unmated probes at least t similar. The area is by the trapezoid rule, and
    never larger than the rank-1 rate.

    Args:
        found: from `search`, with mated and unmated probes.

    Returns:
        An `Oscr`, one point for each distinct best similarity and one at infinity.

    Raises:
        ValueError: if mated or unmated probes are missing.

    Example:
        >>> gallery = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> probes = jnp.array([[0.9, 0.1], [0.1, 0.9], [-1.0, 0.0]])
        >>> found = search(probes, jnp.array([3, 3, 8]), gallery, jnp.array([3, 5]))
        >>> oscr(found).area
        0.5

    References:
        Dhamija, Guenther & Boult, NeurIPS 2018, arXiv:1811.04110, section 4.
    """
    _need(found, mated=True, unmated=True)
    values = np.unique(found.best)[::-1]
    right = _at_least(found.best[found.mated], found.correct[found.mated], values)
    wrong = _at_least(found.best[~found.mated], np.ones(sum(~found.mated)), values)
    thresholds = np.concatenate([[np.inf], values])
    return Oscr(thresholds, right, wrong, float(np.trapezoid(right, wrong)))


def _at_least(
    scores: np.ndarray, weights: np.ndarray, falling: np.ndarray
) -> np.ndarray:
    """The mean weight of scores that reach each threshold, after one for infinity."""
    order = np.argsort(-scores)
    sums = np.concatenate([[0.0], np.cumsum(weights[order], dtype=np.float64)])
    counts = np.searchsorted(-scores[order], -falling, side="right")
    return np.concatenate([[0.0], sums[counts] / len(scores)])


def auroc(found: Found) -> float:
    """The chance that a mated probe is more similar to the gallery than an unmated one.

    By the best similarity alone, right or wrong; ties count one half.

    Args:
        found: from `search`, with mated and unmated probes.

    Returns:
        The area under the ROC of known against unknown, in [0, 1].

    Raises:
        ValueError: if mated or unmated probes are missing.

    Example:
        >>> gallery = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> probes = jnp.array([[0.9, 0.1], [0.1, 0.9], [-1.0, 0.0]])
        >>> auroc(search(probes, jnp.array([3, 3, 8]), gallery, jnp.array([3, 5])))
        1.0
    """
    known = found._replace(correct=np.ones_like(found.correct))
    return oscr(known).area
