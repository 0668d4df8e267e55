import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from metricjax import distances
from metricjax.metrics import _ranking, retrieval
from tests.oracles import metrics as oracle

KS = (1, 2, 4, 8)
FIELDS = retrieval.Retrieval._fields[:-1]


def dot(x, y):
    return x @ y.T


def negative_euclidean(x, y):
    return -distances.squared_euclidean(x, y)


def assert_matches(result, expected, tolerance=2e-6):
    valid = [e is not None for e in expected]
    np.testing.assert_array_equal(result.queries, np.asarray(valid, np.float32))
    for name in FIELDS:
        got = np.asarray(getattr(result, name), np.float64)
        for value, want in zip(got, expected, strict=True):
            want = 0.0 if want is None else want[name]
            np.testing.assert_allclose(value, want, atol=tolerance, err_msg=name)


@pytest.fixture
def uneven(rng):
    """Classes of 1, 2, 3, 6 and 9 items in random order."""
    labels = rng.permutation(np.repeat([7, 3, 11, 0, 5], [1, 2, 3, 6, 9]))
    return rng.standard_normal((21, 3)).astype(np.float32), labels


@pytest.fixture
def integers(rng):
    """Few, small integer embeddings: their dot products tie exactly and often."""
    return rng.integers(-1, 2, (8, 2)).astype(np.float32), np.array(
        [0, 0, 0, 1, 1, 2, 0, 1]
    )


def choose(monkeypatch, way):
    limits = {"counted": (10**6, 10**6), "sorted": (10**6, 0), "host": (0, 0)}[way]
    monkeypatch.setattr(_ranking, "COUNTED_ON_HOST", limits[0])
    monkeypatch.setattr(_ranking, "COUNTED_BY_XLA", limits[1])


@pytest.fixture(params=["counted", "sorted", "host"])
def way(request, monkeypatch):
    """The ways to the ranks: by comparison, by XLA's sort, by NumPy's."""
    choose(monkeypatch, request.param)


def test_all_metrics_equal_the_definition(way, uneven):
    x, labels = uneven
    expected = oracle.retrieval(
        oracle.cosine(x, x), labels, labels, KS, alone=True, ties=False
    )
    assert sum(e is None for e in expected) == 1
    for block_size in (4, 64):
        result = retrieval.per_query(x, labels, ks=KS, block_size=block_size)
        assert_matches(result, expected)


def test_ties_count_as_the_mean_over_all_orders(way, integers):
    x, labels = integers
    expected = oracle.retrieval(x @ x.T, labels, labels, KS, alone=True)
    result = retrieval.per_query(x, labels, ks=KS, similarity=dot, block_size=3)
    assert_matches(result, expected)


def test_ties_in_double_precision(x64, way, integers):
    x, labels = integers[0].astype(np.float64), integers[1]
    expected = oracle.retrieval(x @ x.T, labels, labels, KS, alone=True)
    result = retrieval.per_query(x, labels, ks=KS, similarity=dot)
    assert result.map.dtype == jnp.float64
    assert_matches(result, expected, 1e-14)


@pytest.mark.parametrize("block_size", [1, 4, 64])
def test_ties_of_cosines(way, rng, block_size):
    axes = np.array([[2, 0], [0, 3], [-1, 0], [0, -1], [0, 0]], np.float32)
    x, labels = axes[rng.integers(0, 5, 6)], rng.integers(-1, 2, 6)
    for alone, queries in ((True, slice(None)), (False, slice(4))):
        expected = oracle.retrieval(
            oracle.cosine(x[queries], x), labels[queries], labels, KS, alone=alone
        )
        refs = {} if alone else {"ref_embeddings": x, "ref_labels": labels}
        result = retrieval.per_query(
            x[queries], labels[queries], ks=KS, block_size=block_size, **refs
        )
        assert_matches(result, expected)


def test_separate_references_keep_equal_rows(way, integers, rng):
    x, labels = integers
    queries = np.concatenate([x[:3], rng.integers(-1, 2, (2, 2))]).astype(np.float32)
    query_labels = np.array([0, 1, 9, -1, 2])
    expected = oracle.retrieval(queries @ x.T, query_labels, labels, KS, alone=False)
    result = retrieval.per_query(
        queries,
        query_labels,
        ks=KS,
        ref_embeddings=x,
        ref_labels=labels,
        similarity=dot,
    )
    assert [e is None for e in expected] == [False, False, True, True, False]
    assert_matches(result, expected)


def test_euclidean_distance_as_an_option(uneven):
    x, labels = uneven
    scores = -((x[:, None] - x[None]) ** 2).sum(-1)
    expected = oracle.retrieval(scores, labels, labels, KS, alone=True, ties=False)
    result = retrieval.per_query(x, labels, ks=KS, similarity=negative_euclidean)
    assert_matches(result, expected)


def test_padded_rows_are_neither_queries_nor_candidates(way, uneven):
    x, labels = uneven
    where = np.arange(21) % 4 != 1
    padded = np.where(where[:, None], x, np.nan)
    result = retrieval.per_query(padded, labels, ks=KS, where=where)
    assert_matches(
        jax.tree.map(lambda v: v[where], result),
        oracle.retrieval(
            oracle.cosine(x[where], x[where]),
            labels[where],
            labels[where],
            KS,
            alone=True,
            ties=False,
        ),
    )
    assert not result.queries[~where].any()
    assert not any(getattr(result, name)[~where].any() for name in FIELDS)


def test_padded_references_are_not_found(way, uneven):
    x, labels = uneven
    where = np.arange(21) % 3 != 0
    options = {"ks": KS, "similarity": dot}
    got = retrieval.per_query(
        x[:5],
        labels[:5],
        ref_embeddings=x,
        ref_labels=labels,
        ref_where=where,
        **options,
    )
    want = retrieval.per_query(
        x[:5], labels[:5], ref_embeddings=x[where], ref_labels=labels[where], **options
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, want)


def test_average_precision_equals_scikit_learn_without_ties(uneven):
    x, labels = uneven
    scores = oracle.cosine(x, x)
    result = retrieval.per_query(x, labels, ks=KS)
    for i in np.flatnonzero(result.queries):
        others = np.arange(21) != i
        same = labels[others] == labels[i]
        want = sklearn_metrics.average_precision_score(same, scores[i, others])
        assert float(result.map[i]) == pytest.approx(want, abs=1e-6)
        gain = sklearn_metrics.ndcg_score([same], [scores[i, others]])
        assert float(result.ndcg[i]) == pytest.approx(gain, abs=1e-6)


def test_equal_gain_of_ties_as_in_scikit_learn(integers):
    x, labels = integers
    result = retrieval.per_query(x, labels, ks=KS, similarity=dot)
    for i in np.flatnonzero(result.queries):
        others = np.arange(8) != i
        row, same = (x @ x.T)[i, others], labels[others] == labels[i]
        for k, got in zip(KS, result.ndcg_at_k[i], strict=True):
            want = sklearn_metrics.ndcg_score([same], [row], k=k)
            assert float(got) == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize("point", [0.0, 1.0, 0.37, np.nan])
def test_a_collapsed_encoder_scores_chance(way, point):
    labels = np.repeat(np.arange(7), 9)
    x = np.full((63, 37), point, np.float32)
    result = retrieval.evaluate(x, labels, ks=(1, 4))
    chance = 8 / 62
    misses = np.prod([(62 - 8 - i) / (62 - i) for i in range(4)])
    np.testing.assert_allclose(result.precision_at_k, chance, rtol=1e-6)
    hit = np.array([chance, 1 - misses])
    np.testing.assert_allclose(result.recall_at_k, hit, rtol=1e-6)
    np.testing.assert_allclose(result.r_precision, chance, rtol=1e-6)
    assert float(result.map_at_r) < chance


def test_nan_rows_are_found_last(way):
    x = np.array([[1, 0], [1, 0.1], [np.nan, 0], [0, 1], [-1, 0.2]], np.float32)
    labels = np.array([0, 0, 0, 1, 1])
    result = retrieval.per_query(x, labels, ks=(1, 3), similarity=dot)
    np.testing.assert_allclose(result.map[:2], (1 + 2 / 4) / 2, rtol=1e-6)
    np.testing.assert_allclose(result.recall_at_k[2, 0], 2 / 4, rtol=1e-6)


def test_all_ways_agree_on_large_classes(rng, monkeypatch):
    labels = rng.integers(0, 3, 200)
    x = np.round(rng.standard_normal((200, 2)), 1).astype(np.float32)
    results = []
    for way in ("counted", "sorted", "host"):
        choose(monkeypatch, way)
        results.append(retrieval.per_query(x, labels, similarity=dot, block_size=32))
    for name in FIELDS:
        a, b, c = (getattr(result, name) for result in results)
        np.testing.assert_array_equal(a, b, err_msg=name)
        np.testing.assert_allclose(a, c, rtol=2e-6, err_msg=name)


def test_runs_inside_jit_with_a_bound_on_classes(uneven):
    x, labels = uneven

    def run(x, labels, where):
        values = retrieval.per_query(
            x, labels, ks=KS, where=where, max_class_size=9, block_size=8
        )
        return values, retrieval.mean(values), retrieval.class_mean(values, labels)

    where = jnp.arange(21) != 4
    got = jax.jit(run)(x, labels, where)
    want = run(x, labels, where)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, want)


def test_a_class_larger_than_the_bound_gives_nan(uneven):
    x, labels = uneven
    run = jax.jit(lambda x, y: retrieval.per_query(x, y, max_class_size=6))
    result = run(x, labels)
    np.testing.assert_array_equal(np.isnan(result.map), labels == 5)


def test_labels_of_64_bits_stay_apart():
    labels = np.array([2**40, 2**40, 2**41, 2**41 + 2**32, 1, 1])
    x = np.eye(6, dtype=np.float32)
    np.testing.assert_array_equal(
        retrieval.per_query(x, labels).queries, [1, 1, 0, 0, 1, 1]
    )


def test_unsigned_labels_and_padding(uneven):
    x, labels = uneven
    where = np.arange(21) != 4
    got = retrieval.per_query(x, labels.astype(np.uint8), where=where)
    want = retrieval.per_query(x, labels, where=where)
    np.testing.assert_array_equal(got.map, want.map)


def test_averages_over_queries_and_over_classes(uneven):
    x, labels = uneven
    values = retrieval.per_query(x, labels)
    classes, by_class = retrieval.per_class(values, labels)
    assert classes.tolist() == [0, 3, 5, 11]
    assert by_class.queries.tolist() == [6, 2, 9, 3]
    ap = np.asarray(values.map, np.float64)
    means = [ap[labels == c].mean() for c in classes]
    np.testing.assert_allclose(by_class.map, means, rtol=1e-6)
    assert float(retrieval.class_mean(values, labels).map) == pytest.approx(
        np.mean(means), rel=1e-6
    )
    micro = retrieval.mean(values)
    assert float(micro.map) == pytest.approx(ap.sum() / 20, rel=1e-6)
    assert float(micro.queries) == 20
    assert micro.recall_at_k.shape == (4,)


def test_no_valid_query_gives_nan_and_a_count_of_zero():
    result = retrieval.evaluate(np.eye(4, dtype=np.float32), np.arange(4))
    assert float(result.queries) == 0
    assert np.isnan(float(result.map))


def test_single_metrics_are_the_fields(uneven):
    x, labels = uneven
    want = retrieval.evaluate(x, labels, ks=KS)
    np.testing.assert_array_equal(
        retrieval.recall_at_k(x, labels, ks=KS), want.recall_at_k
    )
    np.testing.assert_array_equal(
        retrieval.precision_at_k(x, labels, ks=KS), want.precision_at_k
    )
    assert retrieval.r_precision(x, labels) == want.r_precision
    assert retrieval.map_at_r(x, labels) == want.map_at_r
    assert retrieval.mean_average_precision(x, labels) == want.map
    assert retrieval.mean_reciprocal_rank(x, labels) == want.mrr
    assert retrieval.ndcg(x, labels) == want.ndcg
    curve = retrieval.cmc(x, labels, max_rank=8)
    np.testing.assert_array_equal(curve[np.array(KS) - 1], want.recall_at_k)


def test_bootstrap_draws_classes(uneven):
    x, labels = uneven
    values = retrieval.per_query(x, labels)
    interval = retrieval.bootstrap(values, labels, seed=3, samples=400, level=0.9)
    again = retrieval.bootstrap(values, labels, seed=3, samples=400, level=0.9)
    jax.tree.map(np.testing.assert_array_equal, interval, again)
    generator = np.random.default_rng(3)
    _, by_class = retrieval.per_class(values, labels)
    draws = []
    for _ in range(400):
        drawn = generator.integers(4, size=4)
        weights = by_class.queries[drawn]
        draws.append(np.sum(by_class.map[drawn] * weights) / np.sum(weights))
    np.testing.assert_allclose(interval.low.map, np.quantile(draws, 0.05), rtol=1e-12)
    np.testing.assert_allclose(interval.high.map, np.quantile(draws, 0.95), rtol=1e-12)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says(rng):
    labels = np.repeat(np.arange(40), 3)
    covered = 0
    for seed in range(60):
        hits = jnp.asarray(np.repeat(rng.random(40) < 0.6, 3), jnp.float32)
        values = retrieval.Retrieval(
            *[hits[:, None]] * 3, *[hits] * 5, queries=jnp.ones(120)
        )
        low, high = retrieval.bootstrap(values, labels, seed=seed, samples=200)
        covered += low.map <= 0.6 <= high.map
    assert 50 <= covered <= 60


def test_wrong_input_is_refused():
    x, labels = np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1])
    with pytest.raises(ValueError, match="class indices, not one-hot"):
        retrieval.evaluate(x, np.eye(4, dtype=int))
    with pytest.raises(ValueError, match="together"):
        retrieval.evaluate(x, labels, ref_embeddings=x)
    with pytest.raises(ValueError, match="no `ref_where`"):
        retrieval.evaluate(x, labels, ref_where=labels > 0)
    with pytest.raises(ValueError, match="ranks start at 1"):
        retrieval.evaluate(x, labels, ks=(0, 1))
    with pytest.raises(ValueError, match="same last axis"):
        retrieval.evaluate(x, labels, ref_embeddings=x[:, :2], ref_labels=labels)
    with pytest.raises(ValueError, match="`max_class_size` inside jit"):
        jax.jit(retrieval.evaluate)(x, labels)
    with pytest.raises(ValueError, match="at least one row in `embeddings`"):
        retrieval.evaluate(x[:0], labels[:0])
    with pytest.raises(ValueError, match="nothing to search"):
        retrieval.nearest(x, x[:0], k=1)
    with pytest.raises(ValueError, match="pass the same array twice"):
        retrieval.nearest(x, x[:2], k=1, exclude_self=True)
    lone = retrieval.per_query(x, np.arange(4))
    with pytest.raises(ValueError, match="at least two items"):
        retrieval.bootstrap(lone, np.arange(4), seed=0)
    with pytest.raises(ValueError, match=r"`level` in \(0, 1\)"):
        retrieval.bootstrap(retrieval.per_query(x, labels), labels, seed=0, level=95)
