import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from metricjax.metrics import identification
from tests import compiled
from tests.oracles import metrics as oracle


def dot(x, y):
    return x @ y.T


@pytest.fixture(params=["distinct", "tied"])
def task(request, rng):
    """Probes of 6 identities, of which 4 are in the gallery with 1 to 3 items."""
    labels = rng.integers(0, 6, 30) * 10
    gallery_labels = np.array([30, 10, 10, 20, 0, 20, 20])
    if request.param == "tied":
        gallery = rng.integers(-1, 2, (7, 2)).astype(np.float32)
        probes = rng.integers(-1, 2, (30, 2)).astype(np.float32)
    else:
        gallery = rng.standard_normal((7, 3)).astype(np.float32)
        probes = rng.standard_normal((30, 3)).astype(np.float32)
    rows = oracle.identities(probes @ gallery.T, labels, gallery_labels)
    found = identification.search(
        probes, labels, gallery, gallery_labels, similarity=dot, block_size=7
    )
    return found, rows, labels


def test_search_finds_the_nearest_identity(task):
    found, rows, labels = task
    for i, row in enumerate(rows):
        best = max(row.values())
        assert found.best[i] == pytest.approx(best, rel=1e-6)
        assert found.identity[i] == min(n for n, s in row.items() if s == best)
        assert found.mated[i] == (labels[i] in row)
        want = oracle.rank_probability(row, labels[i], 1)
        assert found.correct[i] == pytest.approx(want)


def test_cmc_counts_identities_and_shares_ties(task):
    found, rows, labels = task
    mated = [(row, y) for row, y in zip(rows, labels, strict=True) if y in row]
    want = [
        np.mean([oracle.rank_probability(row, y, k) for row, y in mated])
        for k in range(1, 6)
    ]
    np.testing.assert_allclose(identification.cmc(found, max_rank=5), want, rtol=1e-12)
    assert want[3] == 1


def test_open_set_curve_equals_the_definition(task):
    found, rows, labels = task
    curve = identification.oscr(found)
    points = []
    for threshold, ccr, fpr in zip(*curve[:3], strict=True):
        want = oracle.open_set_point(rows, labels, threshold - 1e-6)
        assert (ccr, fpr) == pytest.approx(want)
        points.append(want)
    area = sum((b[1] - a[1]) * (a[0] + b[0]) / 2 for a, b in itertools.pairwise(points))
    assert curve.area == pytest.approx(area)
    assert curve.area <= identification.cmc(found, max_rank=1)[0] + 1e-12


def test_tpir_at_the_smallest_threshold_allowed(task):
    found, rows, labels = task
    unmated = int((~found.mated).sum())
    fpirs = (1.0, 0.5, 1 / unmated, 0.5 / unmated)
    got = identification.tpir_at_fpir(found, fpirs=fpirs)
    for fpir, tpir, threshold in list(
        zip(fpirs, got.tpir, got.thresholds, strict=True)
    )[:3]:
        allowed = [
            (t, oracle.open_set_point(rows, labels, t - 1e-6))
            for t in [*sorted(set(found.best.tolist())), np.inf]
        ]
        smallest = min((p for p in allowed if p[1][1] <= fpir), key=lambda p: p[0])
        assert threshold == smallest[0]
        assert tpir == pytest.approx(smallest[1][0])
    assert got.supported.tolist() == [True, True, True, False]
    assert np.isnan(got.tpir[3])
    assert got.needed[3] == 2 * unmated


def test_known_against_unknown_equals_scikit_learn(task):
    found, _, _ = task
    want = sklearn_metrics.roc_auc_score(found.mated, found.best)
    assert identification.auroc(found) == pytest.approx(want, abs=1e-12)


def test_a_collapsed_encoder_identifies_by_chance():
    x = np.full((24, 7), 0.4, np.float32)
    labels = np.arange(24) % 6
    found = identification.search(x, labels, x[:5], np.arange(5))
    np.testing.assert_allclose(
        identification.cmc(found, max_rank=5), np.arange(1, 6) / 5
    )
    assert identification.auroc(found) == 0.5
    assert identification.oscr(found).area == pytest.approx(0.1)
    got = identification.tpir_at_fpir(found, fpirs=(0.5, 1.0))
    np.testing.assert_allclose(got.tpir, [0, 0.2])


@pytest.fixture
def items(rng):
    labels = rng.permutation(np.repeat([4, 9, 2, 7, -1], [1, 3, 5, 8, 2]))
    x = rng.standard_normal((10, 3))[labels] + rng.standard_normal((19, 3))
    return x.astype(np.float32), labels


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_open_set_accuracy_equals_the_loop(items, leave_one_out):
    x, labels = items
    want = oracle.open_set_accuracy(x, labels.tolist(), leave_one_out)
    for block_size in (None, 3):
        got = identification.open_set_accuracy(
            x, labels, leave_one_out=leave_one_out, block_size=block_size
        )
        assert float(got.accuracy) == pytest.approx(want, abs=1e-6)
    assert got.classes.tolist() == [2, 4, 7, 9]
    assert got.counts.tolist() == [5, 1, 8, 3]
    assert np.isnan(got.per_class[1]) == leave_one_out
    weights = np.where(np.isnan(got.per_class), 0, got.counts)
    share = np.nansum(got.per_class * weights) / weights.sum()
    assert share == pytest.approx(want, abs=1e-6)


def test_leaving_one_out_takes_the_flattery_away(rng):
    """Random embeddings, pairs: each mean holds both items, and finds them again."""
    x = rng.standard_normal((100, 16)).astype(np.float32)
    labels = np.arange(100) % 50
    leaky, honest = (
        compiled.call(
            identification.open_set_accuracy, x, labels=labels, leave_one_out=leave
        )
        for leave in (False, True)
    )
    assert float(leaky.accuracy) > 0.9
    assert float(honest.accuracy) < 0.1


def test_open_set_accuracy_of_a_collapsed_encoder_is_chance():
    x, labels = np.ones((20, 4), np.float32), np.arange(20) % 4
    got = compiled.call(identification.open_set_accuracy, x, labels=labels)
    assert float(got.accuracy) == pytest.approx(5 / 20)


def test_open_set_accuracy_runs_inside_jit(items):
    x, labels = items
    run = jax.jit(lambda x: identification.open_set_accuracy(x, labels).accuracy)
    want = oracle.open_set_accuracy(x, labels.tolist())
    assert float(run(x)) == pytest.approx(want, abs=1e-6)


def test_class_means_are_of_unit_vectors(items):
    x, labels = items
    got = jax.jit(identification.class_means, static_argnames="num_classes")(
        x, jnp.asarray(labels), num_classes=9
    )
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    for c in range(9):
        rows = unit[labels == c]
        want = rows.mean(axis=0) if len(rows) else np.zeros(3)
        np.testing.assert_allclose(got[c], want, atol=1e-6)
    cosines = compiled.call(
        identification.class_similarities, x, labels=labels, num_classes=9
    )
    np.testing.assert_allclose(
        cosines[7], oracle.cosine(np.asarray(got[7:8]), x)[0], atol=1e-6
    )


def test_wrong_input_is_refused():
    x, labels = np.eye(3, dtype=np.float32), np.arange(3)
    found = identification.search(x, labels, x, labels)
    with pytest.raises(ValueError, match="got 3 mated and 0 unmated"):
        identification.oscr(found)
    stranger = identification.search(x, labels + 5, x, labels)
    with pytest.raises(ValueError, match="Expected mated probes"):
        identification.cmc(stranger)
    with pytest.raises(ValueError, match="enroll at least one"):
        identification.search(x, labels, x[:0], labels[:0])
    with pytest.raises(ValueError, match="without NaN"):
        identification.search(x * np.nan, labels, x, labels, similarity=dot)
    half = identification.search(x, labels + 2, x, labels)
    with pytest.raises(ValueError, match=r"`fpirs` in \(0, 1\]"):
        identification.tpir_at_fpir(half, fpirs=(2.0,))
