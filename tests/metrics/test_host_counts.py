import jax.numpy as jnp
import numpy as np
import pytest

from metricjax.metrics import _host_counts, _ranking


@pytest.mark.parametrize("values", [1, 3, 40, 10**6])
def test_counts_by_keys_equal_those_by_search(rng, values):
    scores = rng.integers(-values, values, (7, 300)).astype(np.float32)
    hidden = rng.random(scores.shape) < 0.1
    flags = (rng.random(scores.shape) < 0.1) & ~hidden
    flags[0], flags[1], flags[2] = False, ~hidden[1], False
    flags[2, scores[2].argmax()] = True
    hidden[2, scores[2].argmax()] = False
    keys = 2 * scores.astype(np.int32) + flags
    keys[hidden] = np.iinfo(np.int32).min
    scores[hidden] = -np.inf
    size = flags.sum(axis=1).max() + 2
    wanted = np.full((7, size), np.inf, np.float32)
    for row, score, flag in zip(wanted, scores, flags, strict=True):
        row[: flag.sum()] = score[flag]
    *want, valid = _host_counts.count_scores(scores, wanted)
    *got, known = _host_counts.count_keys(keys, size)
    np.testing.assert_array_equal(known, valid)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a[valid], b[valid])


def cosine_keys(cosines):
    """Keys of one query, to which no. 1 and 2 are relevant; no. 3 is itself."""
    size = len(cosines)
    queries = _ranking.Queries(
        jnp.ones((1, 1), cosines.dtype),
        *(jnp.array([place], jnp.int32) for place in (1, 4, 3)),
    )
    order = jnp.arange(size, dtype=jnp.int32)
    where = order != size - 1
    candidates = _ranking.Candidates(jnp.asarray(cosines)[:, None], order, where)
    return np.asarray(_ranking.cosine_keys(queries, candidates, order))[0]


def assert_ordered(cosines):
    keys = cosine_keys(cosines)
    counted = np.arange(len(cosines)) != 3
    counted[-1] = False
    assert (keys[~counted] == np.iinfo(keys.dtype).min).all()
    assert np.flatnonzero(keys % 2).tolist() == [1, 2]
    assert keys[counted].min() > np.iinfo(keys.dtype).min
    values = np.where(np.isnan(cosines), -2, cosines)[counted]
    ranks = (keys >> 1)[counted]
    for compare in (np.less, np.equal):
        np.testing.assert_array_equal(
            compare(ranks[:, None], ranks[None]), compare(values[:, None], values)
        )


def edges(rng, dtype):
    tiny, one = np.finfo(dtype).tiny, dtype(1)
    beside = [np.nextafter(one, dtype(to)) for to in (0, 2)]
    values = [0.0, -0.0, tiny, 0.5, *beside, one, np.nan, *rng.uniform(-1, 1, 9)]
    return np.array([*values, *np.negative(values), *values], dtype)


def test_keys_have_the_order_of_the_cosines(rng):
    assert_ordered(edges(rng, np.float32))


def test_keys_in_double_precision(x64, rng):
    assert cosine_keys(edges(rng, np.float64)).dtype == np.int64
    assert_ordered(edges(rng, np.float64))
