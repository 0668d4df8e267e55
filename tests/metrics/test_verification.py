import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AxisType
from sklearn import metrics as sklearn_metrics

from metricjax import distances
from metricjax.metrics import verification
from tests.oracles import metrics as oracle


def dot(x, y):
    return x @ y.T


def negative_euclidean(x, y):
    return -distances.squared_euclidean(x, y)


@pytest.fixture
def tied(rng):
    """Scores on a grid of eleven values: many ties within and between kinds."""
    is_same = rng.random(120) < 0.3
    return np.round(rng.random(120) * 0.7 + 0.3 * is_same, 1), is_same


@pytest.fixture
def labelled(rng):
    labels = rng.integers(0, 5, 23)
    x = rng.standard_normal((5, 4))[labels] + rng.standard_normal((23, 4))
    return x.astype(np.float32), labels


def test_curve_equals_the_definition_at_every_threshold(tied):
    scores, is_same = tied
    curve = verification.roc(scores, is_same)
    assert curve.thresholds[0] == np.inf
    assert (np.diff(curve.thresholds) < 0).all()
    assert set(curve.thresholds[1:]) == set(scores)
    for threshold, far, tar in zip(*curve[:3], strict=True):
        assert (far, tar) == oracle.rates(scores, is_same, threshold)
    assert (curve.genuine, curve.impostors) == (is_same.sum(), (~is_same).sum())


def test_curve_and_area_equal_scikit_learn(tied):
    scores, is_same = tied
    curve = verification.roc(scores, is_same)
    far, tar, _ = sklearn_metrics.roc_curve(is_same, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve.far, far)
    np.testing.assert_allclose(curve.tar, tar)
    area = sklearn_metrics.roc_auc_score(is_same, scores)
    assert verification.auc(curve) == pytest.approx(area, abs=1e-12)


def test_area_counts_ties_one_half(tied):
    curve = verification.roc(*tied)
    assert verification.auc(curve) == pytest.approx(oracle.auc(*tied), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_equal_error_rate_equals_the_crossing(seed):
    rng = np.random.default_rng(seed)
    is_same = rng.random(41) < 0.4
    for scores in (rng.random(41) + 0.3 * is_same, rng.integers(0, 4, 41) + is_same):
        got = verification.eer(verification.roc(scores, is_same))
        assert got.rate == pytest.approx(oracle.eer(scores, is_same), abs=1e-12)
        far, _ = oracle.rates(scores, is_same, got.threshold)
        assert scores.min() <= got.threshold <= scores.max()
        assert far <= got.rate + 1e-12


def test_perfect_and_worst_separation():
    scores, is_same = [0.9, 0.8, 0.2, 0.1], np.array([True, True, False, False])
    perfect = verification.evaluate_pairs(scores, is_same)
    assert (perfect.auc, perfect.eer.rate) == (1.0, 0.0)
    worst = verification.evaluate_pairs(scores, ~is_same)
    assert (worst.auc, worst.eer.rate) == (0.0, 1.0)


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
def test_all_equal_scores_are_chance(value):
    is_same = np.arange(50) % 3 == 0
    result = verification.evaluate_pairs(np.full(50, value), is_same, fars=(0.5, 1.0))
    assert (result.auc, result.eer.rate, result.d_prime) == (0.5, 0.5, 0.0)
    assert result.eer.threshold == value
    np.testing.assert_array_equal(result.tar_at_far.tar, [0.0, 1.0])


def test_true_accept_rate_is_at_the_smallest_threshold_allowed(tied):
    scores, is_same = tied
    curve = verification.roc(scores, is_same)
    fars = (1.0, 0.5, 0.33, 0.1, 2 / curve.impostors, 1 / curve.impostors)
    got = verification.tar_at_far(curve, fars=fars)
    for i, far in enumerate(fars):
        want = oracle.tar_at_far(scores, is_same, far)
        assert (got.tar[i], got.thresholds[i]) == want
        assert got.observed_far[i] == oracle.rates(scores, is_same, want[1])[0]
    assert got.supported.all()


def test_a_rate_below_one_impostor_is_not_supported():
    is_same = np.arange(1010) < 10
    scores = np.linspace(1, 0, 1010)
    got = verification.tar_at_far(verification.roc(scores, is_same), fars=(1e-3, 9e-4))
    assert got.supported.tolist() == [True, False]
    assert got.tar[0] == 1.0
    assert np.isnan(got.tar[1])
    assert np.isnan(got.thresholds[1])
    assert got.needed.tolist() == [1000, 1112]


def test_detection_error_tradeoff_uses_normal_deviates(tied):
    scores, is_same = tied
    points = verification.det(verification.roc(scores, is_same))
    assert ((points.far > 0) & (points.frr > 0)).all()
    for threshold, far, frr in zip(*points[:3], strict=True):
        want = oracle.rates(scores, is_same, threshold)
        assert (far, frr) == pytest.approx((want[0], 1 - want[1]))
    np.testing.assert_allclose(
        jax.scipy.special.ndtr(points.far_deviate), points.far, atol=1e-6
    )


def test_d_prime_and_histogram(tied):
    scores, is_same = tied
    curve = verification.roc(scores, is_same)
    a, b = scores[is_same], scores[~is_same]
    want = (a.mean() - b.mean()) / np.sqrt((a.var() + b.var()) / 2)
    assert verification.d_prime(curve) == pytest.approx(want, abs=1e-12)
    shown = verification.histogram(curve, bins=7)
    np.testing.assert_array_equal(shown.genuine, np.histogram(a, shown.edges)[0])
    np.testing.assert_array_equal(shown.impostors, np.histogram(b, shown.edges)[0])
    assert shown.genuine.sum() == is_same.sum()


def test_fold_accuracy_never_sees_the_fold_it_tests(rng):
    is_same = rng.random(60) < 0.5
    scores = np.round(rng.random(60) + 0.4 * is_same, 2)
    folds = rng.permutation(np.arange(60) % 4)
    got = verification.fold_accuracy(scores, is_same, folds)
    want = oracle.fold_accuracy(scores.tolist(), is_same.tolist(), folds.tolist())
    np.testing.assert_allclose(got.accuracy, [a for a, _ in want])
    np.testing.assert_allclose(got.thresholds, [t for _, t in want])
    spread = np.std([a for a, _ in want], ddof=1) / 2
    assert got.standard_error == pytest.approx(spread)
    worse = np.where(folds == 2, -scores, scores)
    again = verification.fold_accuracy(worse, is_same, folds)
    assert again.thresholds[2] == got.thresholds[2]


def test_all_pairs_and_their_curve_equal_the_definition(labelled):
    x, labels = labelled
    want = oracle.pairs(oracle.cosine(x, x), labels)
    for block_size in (5, 23, None):
        scores, is_same = verification.all_pairs(x, labels, block_size=block_size)
        order = np.argsort(scores)
        np.testing.assert_allclose(scores[order], np.sort(want[0]), atol=1e-6)
        assert is_same.sum() == sum(want[1])
        result = verification.evaluate(x, labels, block_size=block_size)
        assert result.auc == pytest.approx(oracle.auc(*want), abs=1e-9)
        assert result.eer.rate == pytest.approx(oracle.eer(*want), abs=1e-9)


def test_pairs_with_padding_and_negative_labels(labelled):
    x, labels = labelled
    where = np.arange(23) % 5 != 2
    masked = np.where(np.arange(23) % 7 == 3, -1, labels)
    kept = where & (masked >= 0)
    got = verification.evaluate(x, masked, where=where, block_size=8)
    want = verification.evaluate(x[kept], labels[kept])
    assert got.auc == pytest.approx(want.auc, abs=1e-9)
    assert (got.genuine, got.impostors) == (want.genuine, want.impostors)


def test_pairs_between_two_sets(labelled):
    x, labels = labelled
    y, others = x[::-1][:9] + 0.1, labels[::-1][:9] + 1
    scores = -((x[:, None] - y[None]) ** 2).sum(-1)
    want = oracle.pairs(scores, labels, others)
    for bins in (None, 10**5):
        got = verification.evaluate(
            x,
            labels,
            ref_embeddings=y,
            ref_labels=others,
            similarity=negative_euclidean,
            block_size=8,
            bins=bins,
        )
        assert got.auc == pytest.approx(oracle.auc(*want), abs=1e-4)
        assert got.genuine == sum(want[1])
        assert got.genuine + got.impostors == 23 * 9


@pytest.mark.parametrize("devices", [2, 8])
def test_pairs_are_the_same_with_one_side_on_many_devices(labelled, devices):
    x, labels = labelled
    kinds = (AxisType.Auto,)
    mesh = jax.make_mesh((devices,), ("a",), kinds, devices=jax.devices()[:devices])
    for others in ({}, {"ref_embeddings": x[:7], "ref_labels": labels[:7]}):
        for block_size in (3, None):
            options = {**others, "block_size": block_size, "mesh": mesh}
            expected = verification.all_pairs(x, labels, **others)
            found = verification.all_pairs(x, labels, **options)
            order, other = (np.lexsort(pair) for pair in (expected, found))
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_allclose(a[other], b[order], atol=1e-6)
            curve = verification.roc_of_embeddings(x, labels, bins=1000, **options)
            alone = verification.roc_of_embeddings(x, labels, bins=1000, **others)
            assert verification.auc(curve) == pytest.approx(verification.auc(alone))


def test_bins_give_exact_counts_at_their_edges(rng):
    labels = rng.integers(0, 9, 150)
    x = rng.standard_normal((150, 3)).astype(np.float32)
    exact = verification.roc_of_embeddings(x, labels)
    binned = verification.roc_of_embeddings(x, labels, bins=512, block_size=64)
    assert binned.resolution == pytest.approx(2 / 512, rel=0.01)
    assert len(binned.far) <= 513
    scores, is_same = verification.all_pairs(x, labels)
    # An edge is a float64 and a score a float32: skip edges within rounding of a score.
    for threshold, far, tar in list(zip(*binned[:3], strict=True))[1::10]:
        if np.abs(scores - threshold).min() > 1e-6:
            assert (far, tar) == oracle.rates(scores, is_same, threshold)
    assert verification.auc(binned) == pytest.approx(verification.auc(exact), abs=1e-4)
    assert verification.eer(binned).rate == pytest.approx(
        verification.eer(exact).rate, abs=1e-2
    )
    assert verification.d_prime(binned) == pytest.approx(
        verification.d_prime(exact), abs=1e-3
    )


def test_integer_scores_are_exact_in_bins(rng):
    """Four bins for the values 0 ... 3: ties stay ties and the curves are equal."""
    labels = rng.integers(0, 3, 40)
    x = rng.integers(0, 2, (40, 3)).astype(np.float32)
    exact = verification.roc_of_embeddings(x, labels, similarity=dot)
    binned = verification.roc_of_embeddings(
        x, labels, similarity=dot, bins=4, block_size=16
    )
    np.testing.assert_array_equal(binned.far, exact.far)
    np.testing.assert_array_equal(binned.tar, exact.tar)


@pytest.mark.parametrize("bins", [None, 1000])
def test_a_collapsed_encoder_is_chance(bins):
    x = np.full((31, 5), 0.3, np.float32)
    result = verification.evaluate(x, np.arange(31) % 4, bins=bins)
    assert (result.auc, result.eer.rate, result.d_prime) == (0.5, 0.5, 0.0)


def test_listed_pairs(labelled):
    x, _ = labelled
    pairs = jnp.array([[0, 1], [3, 3], [22, 5], [0, 40]])
    got = jax.jit(verification.pair_scores)(x, pairs)
    scores = oracle.cosine(x, x)
    np.testing.assert_allclose(
        got[:3], [scores[0, 1], 1.0, scores[22, 5]], rtol=1e-5, atol=1e-6
    )
    assert np.isnan(got[3])
    other = verification.pair_scores(x, pairs[:1], ref_embeddings=-x, block_size=2)
    np.testing.assert_allclose(other, -got[:1], rtol=1e-6)


@given(
    st.lists(
        st.tuples(st.floats(-1e6, 1e6, width=32), st.booleans()),
        min_size=1,
        max_size=40,
    )
)
def test_any_scores_give_a_curve_or_a_clear_refusal(pairs):
    scores, is_same = (np.array(side) for side in zip(*pairs, strict=True))
    if is_same.all() or not is_same.any():
        with pytest.raises(ValueError, match="Expected genuine and impostor pairs"):
            verification.evaluate_pairs(scores, is_same)
        return
    result = verification.evaluate_pairs(scores, is_same)
    turned = verification.evaluate_pairs(-scores, is_same)
    assert result.auc + turned.auc == pytest.approx(1)
    assert 0 <= result.eer.rate <= 1
    assert result.eer.rate == pytest.approx(oracle.eer(scores, is_same), abs=1e-9)
    assert verification.histogram(result.curve).genuine.sum() == result.genuine


@given(st.text(max_size=60))
def test_any_text_is_a_list_of_pairs_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("lfw") / "pairs.txt"
    path.write_text(text, encoding="utf-8")
    with contextlib.suppress(ValueError):
        assert len(verification.read_lfw_pairs(path).first) > 0


def lfw_text(size=2):
    lines = [f"2\t{size}"]
    for fold in range(2):
        lines += [f"Ann_{fold}{i}\t1\t{i + 2}" for i in range(size)]
        lines += [f"Ann_{fold}{i}\t1\tBob_{i}\t12" for i in range(size)]
    return "\n".join(lines) + "\n"


def test_reads_the_lists_of_lfw(tmp_path):
    path = tmp_path / "pairs.txt"
    path.write_text(lfw_text())
    pairs = verification.read_lfw_pairs(path)
    assert pairs.first[:3] == (
        "Ann_00/Ann_00_0001",
        "Ann_01/Ann_01_0001",
        "Ann_00/Ann_00_0001",
    )
    assert pairs.second[1:3] == ("Ann_01/Ann_01_0003", "Bob_0/Bob_0_0012")
    assert pairs.is_same.tolist() == [True, True, False, False] * 2
    assert pairs.folds.tolist() == [0] * 4 + [1] * 4
    path.write_text("1\nAnn\t1\t2\nAnn\t1\tBob\t1\n")
    assert verification.read_lfw_pairs(path).folds.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "begin with the number of folds"),
        ("Ann\t1\t2\n", "begin with the number of folds"),
        (lfw_text().rsplit("\n", 3)[0], "is the file cut short"),
        ("1\t1\nAnn\t1\tx\nAnn\t1\tBob\t1\n", "Expected lines"),
        ("1\t1\nAnn\t1\tBob\t1\nAnn\t1\t2\n", "another order"),
        ("90000000000\t90000000000\nAnn\t1\t2\n", "another order"),
        ("0\n", "is the file cut short"),
    ],
)
def test_a_broken_list_is_refused(tmp_path, text, message):
    path = tmp_path / "pairs.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        verification.read_lfw_pairs(path)


def test_wrong_input_is_refused(labelled):
    x, labels = labelled
    with pytest.raises(ValueError, match="got 1 NaN or infinite of 3"):
        verification.roc([0.1, np.nan, 0.2], [True, False, True])
    with pytest.raises(ValueError, match="Expected genuine and impostor pairs"):
        verification.roc([0.1, 0.2], [True, True])
    with pytest.raises(ValueError, match="Expected genuine and impostor pairs"):
        verification.evaluate(x, np.arange(23))
    with pytest.raises(ValueError, match="check the embeddings for NaN"):
        verification.evaluate(x * np.nan, labels, similarity=dot, bins=100)
    with pytest.raises(TypeError, match="dtype bool"):
        verification.roc([0.1, 0.2], [1, 0])
    with pytest.raises(ValueError, match=r"`fars` in \(0, 1\]"):
        verification.evaluate(x, labels, fars=(0.0,))
    with pytest.raises(ValueError, match="at least two folds"):
        verification.fold_accuracy([0.1, 0.2], [True, False], [3, 3])
    with pytest.raises(ValueError, match="two rows for each pair"):
        verification.pair_scores(x, jnp.zeros((4, 3), int))
