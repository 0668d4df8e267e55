"""Few-shot classification: N classes, K examples of each, which class is the query?

    episodes = fewshot.sample_episodes(labels, ways=5, shots=1, episodes=600, seed=0)
    fewshot.evaluate(embeddings, episodes).accuracy
    fewshot.evaluate(embeddings, episodes, classify=fewshot.cosine_prototype)

A classifier is a function `(queries [q, ...], support [ways, shots, ...]) -> scores
[q, ways]`, larger is closer; the query gets the class of the largest score. Classes
that tie share it: of n tied classes one is right 1 / n of the time, so that an encoder
that maps everything to one point scores chance, wherever the true class stands.

`read_omniglot_runs` reads the twenty official one-shot runs of Omniglot (20-way, within
an alphabet, support and queries drawn by two people), `one_shot_error` scores them, and
`pixel_distances` and `modified_hausdorff` are the two classical baselines for them.

References:
    Lake, Salakhutdinov & Tenenbaum, "Human-level concept learning through probabilistic
    program induction", Science 2015. Snell, Swersky & Zemel, "Prototypical Networks for
    Few-shot Learning", NeurIPS 2017, arXiv:1703.05175.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import _checks, numerics, similarities
from metricjax.metrics._episodes import Episodes, context_episodes, sample_episodes
from metricjax.metrics._omniglot import (
    OneShotRuns,
    modified_hausdorff,
    pixel_distances,
    read_omniglot_runs,
)
from metricjax.metrics._ranking import Similarity

__all__ = [
    "Episodes",
    "FewShot",
    "OneShotRuns",
    "context_episodes",
    "cosine_prototype",
    "euclidean_prototype",
    "evaluate",
    "modified_hausdorff",
    "nearest_neighbor",
    "one_shot_error",
    "pair_scorer",
    "pixel_distances",
    "read_omniglot_runs",
    "sample_episodes",
]

Classifier = Callable[[Array, Array], Array]


class FewShot(NamedTuple):
    """Accuracy over episodes."""

    accuracy: Array  # scalar, mean over episodes
    half_width: Array  # of its 95 % confidence interval, 1.96 sd / sqrt(episodes)
    per_episode: Array  # [episodes]


def nearest_neighbor(
    queries: Array, support: Array, *, similarity: Similarity = similarities.cosine
) -> Array:
    """Score of a class: the similarity to its nearest support item.

    Args:
        queries: `[queries, dim]`.
        support: `[ways, shots, dim]`.
        similarity: `(x [n, dim], y [m, dim]) -> [n, m]`, larger is closer.

    Returns:
        `[queries, ways]`.

    Example:
        >>> support = jnp.array([[[1.0, 0.0]], [[0.0, 1.0]]])
        >>> nearest_neighbor(jnp.array([[0.0, 2.0]]), support).tolist()
        [[0.0, 1.0]]
    """
    ways, shots, dim = support.shape
    scores = similarity(queries, support.reshape(ways * shots, dim))
    return jnp.max(scores.reshape(-1, ways, shots), axis=2)


def cosine_prototype(queries: Array, support: Array) -> Array:
    """Score of a class: cosine to the mean of its support items' unit vectors.

    Args:
        queries: `[queries, dim]`.
        support: `[ways, shots, dim]`.

    Returns:
        `[queries, ways]`.

    Example:
        >>> support = jnp.array([[[1.0, 0.0], [9.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]])
        >>> cosine_prototype(jnp.array([[1.0, 0.0]]), support).round(3).tolist()
        [[1.0, 0.7070000171661377]]
    """
    return similarities.cosine(queries, jnp.mean(numerics.l2_normalize(support), 1))


def euclidean_prototype(queries: Array, support: Array) -> Array:
    """Score of a class: minus the squared distance to the mean of its support items.

    Nothing is normalised. Differences are squared and summed, so that near duplicates
    stay apart.

    Args:
        queries: `[queries, dim]`.
        support: `[ways, shots, dim]`.

    Returns:
        `[queries, ways]`.

    Example:
        >>> support = jnp.array([[[1.0, 0.0], [3.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]])
        >>> euclidean_prototype(jnp.array([[1.0, 0.0]]), support).tolist()
        [[-1.0, -2.0]]

    References:
        Snell, Swersky & Zemel, NeurIPS 2017, arXiv:1703.05175, eq. 1 and 2.
    """
    means = jnp.mean(numerics.promote(support), axis=1)
    return -jnp.sum(jnp.square(queries[:, None] - means[None]), axis=-1)


def pair_scorer(
    queries: Array, support: Array, *, score: Callable[[Array, Array], Array]
) -> Array:
    """Score of a class: that of its best support item, by a function of pairs.

    For Siamese networks that end in a probability. A head that is not symmetric gives
    another answer when a pair is turned round: the mean of both orders is taken.

    Args:
        queries: `[queries, ...]`.
        support: `[ways, shots, ...]`.
        score: `(a [n, ...], b [n, ...]) -> [n]`, larger is closer.

    Returns:
        `[queries, ways]`. Bind `score` with `jax.tree_util.Partial`.

    Example:
        >>> closeness = lambda a, b: -jnp.abs(a - b).sum(axis=-1)
        >>> support = jnp.array([[[1.0, 0.0]], [[0.0, 1.0]]])
        >>> pair_scorer(jnp.array([[0.0, 1.0]]), support, score=closeness).tolist()
        [[-2.0, -0.0]]

    References:
        Koch, Zemel & Salakhutdinov, "Siamese Neural Networks for One-shot Image
        Recognition", ICML Deep Learning Workshop 2015.
    """
    ways, shots, *shape = support.shape
    count = len(queries)
    left = jnp.repeat(queries, ways * shots, axis=0)
    right = jnp.tile(support.reshape(-1, *shape), (count, *[1] * len(shape)))
    scores = (score(left, right) + score(right, left)) / 2
    return jnp.max(scores.reshape(count, ways, shots), axis=2)


def evaluate(
    embeddings: ArrayLike,
    episodes: Episodes,
    *,
    classify: Classifier = nearest_neighbor,
    block_size: int = 32,
) -> FewShot:
    """Accuracy over episodes, with a confidence interval over episodes.

    Args:
        embeddings: `[batch, dim]` (or `[batch, ...]` if `classify` takes it).
        episodes: rows of `embeddings`, from `sample_episodes`.
        classify: `(queries [q, ...], support [ways, shots, ...]) -> [q, ways]`, larger
            is closer; ties share the query evenly.
        block_size: episodes computed at once.

    Returns:
        A `FewShot`.

    Raises:
        TypeError: if `embeddings` is not floating.

    Example:
        >>> labels = jnp.repeat(jnp.arange(6), 4)
        >>> drawn = sample_episodes(labels, ways=5, shots=1, episodes=10, seed=0)
        >>> float(evaluate(jnp.eye(6)[labels], drawn).accuracy)
        1.0
        >>> round(float(evaluate(jnp.ones((24, 6)), drawn).accuracy), 3)
        0.2
    """
    _checks.check_float("embeddings", embeddings)
    ways = episodes.queries.shape[1]
    truth = jnp.repeat(jnp.arange(ways), episodes.queries.shape[2])
    rows = jax.tree.map(jnp.asarray, episodes)
    x = numerics.promote(embeddings)
    values = _evaluate(x, rows, truth, Partial(classify), block_size=block_size)
    spread = jnp.std(values, ddof=1) if len(values) > 1 else jnp.nan
    return FewShot(jnp.mean(values), 1.96 * spread / len(values) ** 0.5, values)


def _accuracies(
    x: Array,
    episodes: Episodes,
    truth: Array,
    classify: Classifier,
    *,
    block_size: int,
) -> Array:
    def one(episode: Episodes) -> Array:
        queries = x[jnp.ravel(episode.queries)]
        return jnp.mean(_correct(classify(queries, x[episode.support]), truth))

    return jax.lax.map(one, episodes, batch_size=block_size)


_evaluate = jax.jit(_accuracies, static_argnames="block_size")


def _correct(scores: Array, truth: Array) -> Array:
    """Chance that the class of the largest score is the true one; `[queries]`."""
    scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
    best = scores == jnp.max(scores, axis=-1, keepdims=True)
    best = best.astype(numerics.promote(scores).dtype)
    right = jnp.take_along_axis(best, truth[..., None], axis=-1)[..., 0]
    return right / jnp.sum(best, axis=-1)


def one_shot_error(similarities: ArrayLike, answers: ArrayLike) -> Array:
    """Share of wrong answers in each one-shot run; ties share the answer evenly.

    Args:
        similarities: `[runs, queries, support]`, larger is closer (negate distances).
        answers: `[runs, queries]` int, the right support item of each query.

    Returns:
        `[runs]`; its mean is the error rate that papers report.

    Raises:
        ValueError: if shapes disagree.

    Example:
        >>> scores = jnp.array([[[0.9, 0.1], [0.5, 0.5]]])
        >>> one_shot_error(scores, jnp.array([[0, 1]])).tolist()
        [0.25]
    """
    scores, answers = jnp.asarray(similarities), jnp.asarray(answers)
    hint = "similarities are [runs, queries, support]"
    _checks.check_shape("answers", answers, scores.shape[:-1], hint)
    return 1 - jnp.mean(_correct(scores, answers), axis=-1)
