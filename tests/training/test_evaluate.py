from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from metricjax.data import deferred
from metricjax.training import evaluate


def affine(params, state, images, *, train, key=None):
    assert not train
    return images.reshape(images.shape[0], -1) @ params + state, state


@pytest.mark.parametrize("count", [1, 4, 11])
def test_embedding_in_padded_batches_equals_embedding_at_once(rng, count):
    images = rng.random((count, 2, 2, 1)).astype(np.float32)
    params = rng.random((4, 3)).astype(np.float32)
    embeddings = evaluate.embedder(affine, batch=4)(params, 1.0, images)
    assert isinstance(embeddings, np.ndarray)
    expected = images.reshape(count, 4) @ params + 1.0
    np.testing.assert_allclose(embeddings, expected, rtol=1e-6)


def test_any_number_of_images_needs_one_program(rng):
    traces = []

    def counted(*arguments, **options):
        traces.append(1)
        return affine(*arguments, **options)

    embed = evaluate.embedder(counted, batch=4)
    for count in (11, 3, 4):
        embed(jnp.ones((4, 3)), 0.0, rng.random((count, 2, 2, 1)))
    assert len(traces) == 1


def test_images_that_are_not_in_memory_are_embedded_as_those_that_are(rng):
    images = rng.random((11, 2, 2, 1)).astype(np.float32)
    rows = deferred.Rows(lambda rows: images[rows], np.arange(11)[::-1], (2, 2, 1))
    given: Any = rows
    params = rng.random((4, 3)).astype(np.float32)
    found = evaluate.embedder(affine, batch=4)(params, 1.0, given)
    expected = images[::-1].reshape(11, 4) @ params + 1.0
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def oracle(embeddings, labels):
    """Recall@1, R-precision, MAP@R, EER and AUC in loops, for data without ties."""
    x = np.float64(embeddings)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    n = len(x)
    hits, precisions, averages = [], [], []
    for i in range(n):
        order = sorted((j for j in range(n) if j != i), key=lambda j: -x[i] @ x[j])
        right = [labels[j] == labels[i] for j in order]
        relevant = sum(right)
        hits.append(right[0])
        precisions.append(sum(right[:relevant]) / relevant)
        at = [sum(right[: k + 1]) / (k + 1) for k in range(relevant) if right[k]]
        averages.append(sum(at) / relevant)
    pairs = [(i, j) for i in range(n) for j in range(i)]
    same = np.array([x[i] @ x[j] for i, j in pairs if labels[i] == labels[j]])
    other = np.array([x[i] @ x[j] for i, j in pairs if labels[i] != labels[j]])
    auc = np.mean([[s > o for o in other] for s in same])
    return np.mean(hits), np.mean(precisions), np.mean(averages), auc


def test_scores_agree_with_loops_over_all_pairs(rng):
    labels = np.repeat(np.arange(4), 5)
    embeddings = (rng.normal(size=(20, 6)) + 0.9 * np.eye(6)[labels]).astype(np.float32)
    scores = evaluate.scores(embeddings, labels)
    assert list(scores) == list(evaluate.METRICS)
    names = ("recall_at_1", "r_precision", "map_at_r", "auc")
    found = [scores[name] for name in names]
    np.testing.assert_allclose(found, oracle(embeddings, labels), rtol=1e-6)
    assert 0.0 < scores["eer"] < 0.5


def test_raw_pixels_are_the_scaled_pixels(rng):
    images = rng.integers(0, 256, (3, 2, 2, 1), dtype=np.uint8)
    raw = evaluate.raw_pixels(images)
    np.testing.assert_allclose(raw, images.reshape(3, 4) / 255.0, rtol=1e-6)
