import jax
import numpy as np
import pytest

from metricjax.metrics import health
from tests import compiled
from tests.oracles import metrics as oracle


@pytest.fixture
def items(rng):
    labels = rng.permutation(np.repeat([4, 9, 2, 7, -1], [1, 3, 5, 8, 2]))
    return rng.standard_normal((19, 5)).astype(np.float32) + 0.5, labels


def test_alignment_is_the_mean_over_positive_pairs(items):
    x, labels = items
    want = oracle.alignment(x, labels)
    assert float(compiled.call(health.alignment, x, labels)) == pytest.approx(
        want, rel=1e-5
    )
    assert np.isnan(float(health.alignment(x, np.arange(19))))


def test_alignment_of_near_duplicates_does_not_cancel(rng):
    base = oracle.unit(rng.standard_normal((4, 16)))
    x = np.repeat(base, 50, axis=0) + 1e-5 * rng.standard_normal((200, 16))
    labels = np.repeat(np.arange(4), 50)
    x = x.astype(np.float32)
    want = oracle.alignment(x, labels)
    found = compiled.call(health.alignment, x, labels)
    assert float(found) == pytest.approx(want, rel=0.02)


def test_uniformity_is_the_log_mean_potential(items):
    x, _ = items
    for temperature in (2.0, 0.5):
        want = oracle.uniformity(x, temperature)
        for block_size in (4, 256):
            options = {"temperature": temperature, "block_size": block_size}
            got = compiled.call(health.uniformity, x, **options)
            assert float(got) == pytest.approx(want, abs=1e-5)


def test_effective_rank_equals_the_definition(items):
    x, _ = items
    got = compiled.call(health.effective_rank, x)
    assert float(got) == pytest.approx(oracle.effective_rank(x), rel=1e-5)
    assert 1 < got < 5


def test_mean_cosine_is_over_different_items(items):
    x, _ = items
    cosines = oracle.cosine(x, x)
    want = (cosines.sum() - 19) / (19 * 18)
    assert float(health.mean_cosine(x)) == pytest.approx(want, abs=1e-6)


def test_one_point_and_zeros():
    point = np.full((30, 7), 0.37, np.float32)

    @jax.jit
    def every(x):
        return (
            health.uniformity(x),
            health.mean_cosine(x),
            health.alignment(x, np.zeros(30, int)),
            health.effective_rank(x),
            health.effective_rank(0 * x),
        )

    uniformity, cosine, alignment, rank, zeros = map(float, every(point))
    assert uniformity == pytest.approx(0, abs=1e-5)
    assert cosine == pytest.approx(1, abs=1e-5)
    assert alignment == pytest.approx(0, abs=1e-6)
    assert rank == pytest.approx(1, abs=1e-4)
    assert zeros == 0


def test_collapse_is_noticed(rng):
    x = rng.standard_normal((50, 8)).astype(np.float32)
    line = x[:, :1] * np.ones((1, 8), np.float32)
    assert health.collapse_warning(x) is None
    assert health.collapse_warning(x + 3) is None
    assert "one point" in str(health.collapse_warning(np.ones_like(x) + 1e-3 * x))
    assert "one point" in str(health.collapse_warning(np.zeros_like(x)))
    assert "effective rank 1.00 of 8" in str(health.collapse_warning(line))
    x[3, 2] = np.nan
    assert "1 of 50 embeddings are not finite" in str(health.collapse_warning(x))
    assert health.collapse_warning(x[:1]) is None
