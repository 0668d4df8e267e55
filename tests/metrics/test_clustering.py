import sys

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from metricjax.metrics import clustering


def test_agreement_is_that_of_scikit_learn(rng):
    a, b = rng.integers(0, 4, 60), rng.integers(0, 3, 60)
    got = clustering.agreement(a, b)
    assert got.nmi == sklearn_metrics.normalized_mutual_info_score(b, a)
    assert got.ami == sklearn_metrics.adjusted_mutual_info_score(b, a)
    assert got.ari == sklearn_metrics.adjusted_rand_score(b, a)
    assert got.ami < got.nmi


def test_normalised_mutual_information_equals_the_formula(rng):
    a, b = rng.integers(0, 4, 60), rng.integers(0, 3, 60)
    joint = np.array(
        [[np.mean((a == i) & (b == j)) for j in range(3)] for i in range(4)]
    )
    outer = joint.sum(1, keepdims=True) * joint.sum(0)
    information = np.sum(joint * np.log(joint / outer))
    entropies = [-np.sum(p * np.log(p)) for p in (joint.sum(0), joint.sum(1))]
    want = 2 * information / sum(entropies)
    assert clustering.agreement(a, b).nmi == pytest.approx(want)


def test_separate_classes_are_found_whatever_the_length_of_the_vectors(rng):
    labels = rng.permutation(np.repeat([-1, 3, 50, 9], [4, 10, 5, 20]))
    x = np.eye(60)[labels] * rng.uniform(0.01, 100, (39, 1)) + 1e-4
    assert clustering.evaluate(x, labels, seed=0) == (1.0, 1.0, 1.0)


def test_the_same_seed_gives_the_same_clusters(rng):
    x = rng.standard_normal((80, 3))
    a, b = (clustering.kmeans(x, clusters=5, seed=7, restarts=1) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    assert set(a) == set(range(5))


def test_random_embeddings_agree_by_chance(rng):
    got = clustering.evaluate(
        rng.standard_normal((300, 8)), np.arange(300) % 30, seed=0
    )
    assert abs(got.ami) < 0.1
    assert abs(got.ari) < 0.05
    assert got.nmi > 0.3


def test_a_collapsed_encoder_finds_nothing():
    with pytest.warns(match="distinct clusters"):
        got = clustering.evaluate(np.ones((20, 3)), np.arange(20) % 4, seed=0)
    assert got.ami == pytest.approx(0, abs=1e-9)
    assert got.ari == 0


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="at least 4 items for 4 clusters"):
        clustering.kmeans(np.ones((3, 2)), clusters=4, seed=0)
    with pytest.raises(ValueError, match="labelled items"):
        clustering.evaluate(np.ones((3, 2)), np.full(3, -1), seed=0)


def test_without_scikit_learn_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(ImportError, match="pip install"):
        clustering.agreement(np.array([0, 1]), np.array([0, 1]))
