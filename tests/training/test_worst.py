import numpy as np
import pytest

from metricjax import distances, similarities
from metricjax.training import _worst
from tests.oracles import worst as oracle


@pytest.mark.parametrize("block", [7, 256])
@pytest.mark.parametrize("name", ["cosine", "negative"])
def test_worst_pairs_are_those_of_the_definition(rng, monkeypatch, block, name):
    monkeypatch.setattr(_worst, "_BLOCK", block)
    similarity = similarities.cosine
    if name == "negative":

        def similarity(x, y):
            return similarities.negative(x, y, distance=distances.manhattan)

    x = rng.normal(size=(40, 3)).astype(np.float32)
    labels = rng.integers(0, 6, 40)
    found = _worst.worst_pairs(x, labels, similarity=similarity, count=5)
    values = np.asarray(similarity(x, x), np.float64)
    expected = oracle.worst_pairs(values, labels, 5)
    for pairs, wanted in zip(found, expected, strict=True):
        got = list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
        assert got == [(a, b) for a, b, _ in wanted]
        np.testing.assert_allclose(
            pairs.similarities, [value for *_, value in wanted], rtol=1e-5, atol=1e-6
        )


def test_classes_of_one_image_have_no_genuine_pair():
    x = np.eye(3, dtype=np.float32)
    impostors, genuine = _worst.worst_pairs(
        x, np.arange(3), similarity=similarities.cosine
    )
    assert len(impostors.first) == 3
    assert len(genuine.first) == 0
