import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression

from metricjax import gallery
from metricjax.gallery import _calibration, _intervals
from metricjax.metrics import verification
from tests.gallery.conftest import sample
from tests.oracles import gallery as oracles


@pytest.mark.parametrize("far", [0.3, 0.05, 0.01])
def test_the_threshold_is_the_lowest_that_keeps_the_rate(far):
    x, labels = sample(12, 4)
    found = gallery.calibrate(x, labels, far=far)
    genuine, impostors = oracles.pairs(x, labels)
    observed, tar = oracles.error_rates(x, labels, found.threshold)
    assert found.observed_far == pytest.approx(observed) == pytest.approx(observed)
    assert observed <= far
    assert found.tar == pytest.approx(tar)
    # Any lower and it would accept the next pair below: too many, or one it lacks.
    every = np.concatenate([genuine, impostors])
    below = every[every < found.threshold].max()
    assert np.mean(impostors >= below) > far or below in genuine
    lower = impostors[impostors < found.threshold].max()
    assert np.mean(impostors >= lower) > far
    assert (found.genuine, found.impostors) == (len(genuine), len(impostors))
    assert found.identities == 12


def test_the_threshold_lies_half_way_between_two_pairs():
    x, labels = sample(12, 4)
    found = gallery.calibrate(x, labels, far=0.05)
    every = np.sort(np.concatenate(oracles.pairs(x, labels)))
    above = np.searchsorted(every, found.threshold)
    middle = (every[above - 1] + every[above]) / 2
    assert found.threshold == pytest.approx(middle, abs=1e-6)


def test_thresholds_at_other_rates_keep_them_too():
    x, labels = sample(12, 4)
    found = gallery.calibrate(x, labels, far=0.05)
    assert gallery.threshold_at(found, 0.05) == found.threshold
    previous = -np.inf
    for far in (0.9, 0.5, 0.2, 0.1, 0.051, 0.03, 0.01, 0.004):
        threshold = gallery.threshold_at(found, far)
        observed, _ = oracles.error_rates(x, labels, threshold)
        assert far / 1.2 - 1 / found.impostors <= observed <= far
        assert threshold > previous
        previous = threshold


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_a_rate_that_too_few_pairs_can_show_is_refused_with_the_number(confidence):
    x, labels = sample(6, 3)
    impostors = 6 * 5 // 2 * 9
    # The rule of three: with so many pairs and no error, this rate is still possible.
    lowest = 1 - (1 - confidence) ** (1 / impostors)
    assert oracles.binomial_upper(0, impostors, 1 - confidence) == pytest.approx(lowest)
    supported = gallery.calibrate(x, labels, far=lowest * 1.01, confidence=confidence)
    assert supported.impostors == impostors
    needed = int(np.ceil(np.log(1 - confidence) / np.log(1 - 0.001)))
    for refused in (
        lambda: gallery.calibrate(x, labels, far=0.001, confidence=confidence),
        lambda: gallery.threshold_at(supported, 0.001),
    ):
        with pytest.raises(ValueError, match=f"at least {needed} impostor pairs"):
            refused()


def test_the_interval_is_binomial_at_the_size_the_jackknife_gives():
    x, labels = sample(10, 4, noise=1.0)
    threshold = 0.5
    rates = gallery.rates_at(x, labels, threshold)
    far, tar = oracles.error_rates(x, labels, threshold)
    assert (rates.far, rates.tar) == (pytest.approx(far), pytest.approx(tar))
    variance = oracles.jackknife_variance(x, labels, threshold)
    size = far * (1 - far) / variance
    assert size < rates.impostors  # the pairs do depend on one another
    size *= (stats.norm.ppf(0.025) / stats.t.ppf(0.025, 9)) ** 2
    # Clopper and Pearson: at its ends the count seen has a chance of 2.5 %.
    low, high = rates.far_interval
    count = far * size
    assert stats.beta.cdf(low, count, size - count + 1) == pytest.approx(0.025)
    assert stats.beta.cdf(high, count + 1, size - count) == pytest.approx(0.975)


def test_with_independent_pairs_the_interval_is_that_of_clopper_and_pearson():
    accepted, pairs = np.array([3.0, 3.0]), np.array([40.0, 40.0])
    _, high = _intervals.interval(accepted, pairs, 0.95)
    assert high == pytest.approx(oracles.binomial_upper(3, 40, 0.025))


def test_a_rate_of_none_or_all_still_has_a_width():
    x, labels = sample(10, 4)
    none = gallery.rates_at(x, labels, 1.1)
    assert none.far == 0.0
    assert none.far_interval[0] == 0.0
    assert 0.001 < none.far_interval[1] < 0.02
    every = gallery.rates_at(x, labels, -1.1)
    assert every.far == every.tar == every.far_interval[1] == 1.0
    assert 0.98 < every.far_interval[0] < 1.0


def test_rates_without_such_pairs_are_nan():
    x, _ = sample(3, 1)
    alone = gallery.rates_at(x, np.arange(3), 0.5)
    assert np.isnan(alone.tar)
    assert alone.genuine == 0
    same = gallery.rates_at(x, np.zeros(3, int), 0.5)
    assert np.isnan([same.far, *same.far_interval]).all()


def test_negative_labels_are_in_no_pair():
    x, labels = sample(8, 4)
    marked = np.where(labels == 3, -1, labels)
    kept = labels != 3
    assert gallery.calibrate(x, marked, far=0.1) == gallery.calibrate(
        x[kept], labels[kept], far=0.1
    )


def test_identities_of_a_single_image_give_impostor_pairs():
    x, labels = sample(20, 3)
    lone = np.append(labels, [20, 21])
    found = gallery.calibrate(np.concatenate([x, x[:2] + 0.3]), lone, far=0.05)
    assert found.identities == 22
    assert found.impostors == 190 * 9 + 2 * 60 + 1
    assert found.genuine == 20 * 3


@pytest.mark.parametrize("fit", [gallery.platt, gallery.isotonic])
def test_a_collapsed_encoder_is_refused(fit):
    x = np.ones((40, 3))
    with pytest.raises(ValueError, match="collapsed"):
        gallery.calibrate(x, np.arange(40) % 8, far=0.1, fit=fit)


def test_an_encoder_that_is_worse_than_chance_is_refused():
    scores, same = np.linspace(-1, 1, 50), np.arange(50) < 25
    with pytest.raises(ValueError, match="the opposite"):
        gallery.platt(scores, same, ~same)


def test_missing_pairs_and_values_out_of_range_are_refused():
    x, labels = sample(8, 4)
    with pytest.raises(ValueError, match="genuine and impostor pairs, got 0"):
        gallery.calibrate(x, np.arange(32), far=0.1)
    with pytest.raises(ValueError, match="impostor pairs .* got 0 of 1 identities"):
        gallery.calibrate(x, np.zeros(32, int), far=0.1)
    for far in (0.0, 1.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="`far` between 0 and 1"):
            gallery.calibrate(x, labels, far=far)
    with pytest.raises(ValueError, match="`confidence` between 0 and 1"):
        gallery.calibrate(x, labels, far=0.1, confidence=1.0)
    with pytest.raises(ValueError, match="NaN or infinity in row 3 of 32"):
        gallery.calibrate(
            np.where(np.arange(32)[:, None] == 3, np.nan, x), labels, far=0.1
        )


def test_a_binned_curve_gives_about_the_same_threshold():
    x, labels = sample(12, 4)
    exact, binned = (
        verification.roc_of_embeddings(x.astype(np.float32), labels, bins=bins)
        for bins in (None, 2**14)
    )
    for far in (0.3, 0.05):
        thresholds = [_calibration._threshold(c, far) for c in (exact, binned)]
        genuine, impostors = oracles.pairs(x, labels)
        assert np.mean(impostors >= thresholds[1]) <= far
        gap = np.diff(np.sort(np.concatenate([genuine, impostors]))).max()
        assert abs(thresholds[0] - thresholds[1]) < gap


def counted(x, labels):
    genuine, impostors = oracles.pairs(x, labels)
    scores = np.concatenate([genuine, impostors])
    same = np.arange(len(scores)) < len(genuine)
    return scores, same


def test_platt_is_the_logistic_regression_of_balanced_pairs():
    scores, same = counted(*sample(12, 4, noise=1.0))
    curve = gallery.platt(scores, same, ~same)
    # Platt's soft targets: every pair counts as a bit of both kinds.
    soft = np.where(same, (same.sum() + 1) / (same.sum() + 2), 1 / ((~same).sum() + 2))
    weight = np.where(same, 1 / same.sum(), 1 / (~same).sum())
    fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(
        np.tile(scores, 2)[:, None],
        np.repeat([True, False], len(scores)),
        sample_weight=np.concatenate([weight * soft, weight * (1 - soft)]),
    )
    at = np.linspace(-1, 1, 9)
    expected = fit.decision_function(at[:, None])
    np.testing.assert_allclose(gallery.log_odds(curve, at), expected, rtol=1e-4)


def test_platt_takes_counts_of_pairs_as_it_takes_pairs():
    rng = np.random.default_rng(0)
    scores = np.round(rng.uniform(-1, 1, 300), 1)
    same = rng.uniform(size=300) < (scores + 1) / 2
    values, places = np.unique(scores, return_inverse=True)
    genuine, impostors = (np.bincount(places, weights=kind) for kind in (same, ~same))
    one, other = (
        gallery.platt(scores, same, ~same),
        gallery.platt(values, genuine, impostors),
    )
    np.testing.assert_allclose(one.values, other.values, rtol=1e-9)


def test_platt_is_finite_where_a_similarity_separates_all_pairs():
    scores, same = np.array([-0.5, -0.4, 0.8, 0.9]), np.array([0, 0, 1, 1], bool)
    p = gallery.probability(gallery.platt(scores, same, ~same), scores)
    # The best that soft targets allow: (2 + 1) / (2 + 2) and 1 / 4, nearly reached.
    np.testing.assert_allclose(p, [0.25, 0.25, 0.75, 0.75], atol=0.05)


def isotonic_loops(scores, same):
    """Pool adjacent violators, from the definition; pairs sorted by score."""
    order = np.argsort(scores)
    high, low = (same.sum() + 1) / (same.sum() + 2), 1 / ((~same).sum() + 2)
    blocks = []
    for i in order:
        weight = 1 / same.sum() if same[i] else 1 / (~same).sum()
        blocks.append([weight, weight * (high if same[i] else low), 1])
        while len(blocks) > 1 and (
            blocks[-2][1] / blocks[-2][0] >= blocks[-1][1] / blocks[-1][0]
        ):
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    values = itertools.chain(*([b[1] / b[0]] * b[2] for b in blocks))
    return scores[order], np.array(list(values))


def test_isotonic_pools_the_pairs_that_violate_the_order():
    scores, same = counted(*sample(8, 4, noise=1.5))
    curve = gallery.isotonic(scores, same, ~same)
    at, expected = isotonic_loops(scores, same)
    np.testing.assert_allclose(gallery.probability(curve, at), expected, atol=1e-9)
    assert np.all(np.diff(gallery.log_odds(curve, np.linspace(-1, 1, 99))) >= 0)


def test_a_prior_shifts_the_log_odds_by_its_own():
    curve = gallery.LogOdds((-1.0, 1.0), (-5.0, 5.0))
    at = np.linspace(-1, 1, 7)
    for prior in (0.5, 0.01, 0.9):
        p = gallery.probability(curve, at, prior=prior)
        expected = 5 * at + np.log(prior / (1 - prior))
        np.testing.assert_allclose(np.log(p / (1 - p)), expected, rtol=1e-9)
    with pytest.raises(ValueError, match="`prior` between 0 and 1"):
        gallery.probability(curve, at, prior=0.0)


@pytest.mark.full
def test_intervals_cover_the_true_rate_as_often_as_they_say():
    rng = np.random.default_rng(0)
    x, labels = sample(1500, 2, dim=16, noise=0.8, seed=2)
    _, impostors = _quick_pairs(x, labels)
    for far, identities, images in ((0.01, 10, 10), (0.003, 30, 5)):
        threshold = np.quantile(impostors, 1 - far)
        hits = 0
        for _ in range(300):
            part = sample(
                identities, images, dim=16, noise=0.8, seed=int(rng.integers(2**31))
            )
            low, high = gallery.rates_at(*part, threshold).far_interval
            hits += low <= far <= high
        assert hits / 300 > 0.93


def _quick_pairs(x, labels):
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    rows, columns = np.triu_indices(len(x), 1)
    scores, same = (x @ x.T)[rows, columns], labels[rows] == labels[columns]
    return scores[same], scores[~same]
