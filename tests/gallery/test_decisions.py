import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from metricjax import gallery
from tests.gallery.conftest import sample
from tests.oracles import gallery as oracles


@pytest.fixture(scope="module")
def people():
    x, labels = sample(40, 6, seed=3)
    return gallery.enroll(x, [f"p{label}" for label in labels])


@pytest.fixture(scope="module")
def queries():
    """Two more images of some enrolled identities, and strangers."""
    rng = np.random.default_rng(3)
    centers = rng.normal(size=(40, 8))[:6]
    return np.concatenate([centers, centers + 0.2, rng.normal(size=(5, 8))])


def sides():
    """Ten pairs of one identity and ten of two."""
    x, _ = sample(20, 2, seed=5)
    left, right = x[::2], x[1::2].copy()
    right[10:] = np.roll(right[10:], 1, axis=0)
    return left, right


def test_verify_compares_the_cosine_with_the_threshold(calibration):
    x, y = sides()
    found = gallery.verify(x, y, calibration)
    scores = np.diag(oracles.cosines(x, y))
    np.testing.assert_allclose(found.similarities, scores, atol=1e-6)
    np.testing.assert_array_equal(found.same, scores >= calibration.threshold)
    assert 0 < found.same.sum() < 20
    assert (found.threshold, found.far) == (calibration.threshold, 0.05)
    expected = gallery.probability(calibration.log_odds, scores)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)


def test_verify_at_a_stricter_rate_accepts_fewer(calibration):
    x, y = sample(200, 1, seed=5)[0], sample(200, 1, seed=6)[0]
    counts = [
        gallery.verify(x, y, calibration, far=far).same.sum()
        for far in (0.2, 0.05, 0.005)
    ]
    assert counts[0] > counts[1] > counts[2]
    assert gallery.verify(x, y, calibration, far=0.2).far == 0.2


@pytest.mark.parametrize("k", [1, 3, 40, 99])
def test_identities_come_by_their_nearest_template(people, queries, calibration, k):
    found = gallery.identify(queries, people, calibration, k=k)
    wanted = min(k, 40)
    assert found.similarities.shape == (17, wanted)
    for i, query in enumerate(queries):
        labels, scores = oracles.nearest_identities(
            query, people.embeddings, people.labels, wanted
        )
        assert found.names[i] == tuple(people.names[label] for label in labels)
        np.testing.assert_allclose(found.similarities[i], scores, atol=1e-6)
        assert found.known[i] == (scores[0] >= found.threshold)


def test_one_identity_with_most_templates_does_not_hide_the_others(calibration):
    rng = np.random.default_rng(0)
    crowd = np.array([1.0, 0, 0, 0]) + 0.01 * rng.normal(size=(400, 4))
    x = np.concatenate([crowd, np.eye(4)[1:]])
    people = gallery.enroll(x, ["crowd"] * 400 + ["a", "b", "c"])
    found = gallery.identify([[1.0, 0.3, 0.2, 0.1]], people, calibration, k=4)
    assert found.names == (("crowd", "a", "b", "c"),)


def test_probabilities_are_bayes_rule_over_the_gallery(people, queries, calibration):
    small = gallery.remove(people, people.names[7:])
    for prior in (0.5, 0.1):
        found = gallery.identify(queries, small, calibration, k=7, prior_unknown=prior)
        for i in range(len(queries)):
            ratios = gallery.log_odds(calibration.log_odds, found.similarities[i])
            shares, unknown = oracles.posterior(ratios, 7, prior)
            np.testing.assert_allclose(found.probabilities[i], shares, rtol=1e-6)
            assert found.unknown[i] == pytest.approx(unknown)
        total = found.probabilities.sum(axis=1) + found.unknown
        np.testing.assert_allclose(total, 1.0)


def test_a_gallery_of_one_at_even_odds_has_the_probability_of_verify(calibration):
    x, y = sample(20, 1, seed=5)[0], sample(1, 1, seed=6)[0]
    alone = gallery.identify(x, gallery.enroll(y, ["a"]), calibration)
    pair = gallery.verify(x, np.repeat(y, 20, axis=0), calibration)
    np.testing.assert_allclose(alone.probabilities[:, 0], pair.probabilities, rtol=1e-5)
    np.testing.assert_array_equal(alone.known, pair.same)


def test_the_bound_on_strangers_holds_and_can_be_asked_for(calibration):
    x, labels = sample(4, 3, seed=8)
    people = gallery.enroll(x, [str(label) for label in labels])
    strangers = sample(400, 1, seed=9)[0]
    usual = gallery.identify(strangers, people, calibration)
    assert usual.fpir == pytest.approx(12 * 0.05)
    strict = gallery.identify(strangers, people, calibration, fpir=0.12)
    assert (strict.fpir, strict.far) == (pytest.approx(0.12), pytest.approx(0.01))
    assert strict.threshold == gallery.threshold_at(calibration, 0.01)
    assert np.mean(strict.known) < np.mean(usual.known) < usual.fpir
    with pytest.raises(ValueError, match="impostor pairs for a false accept rate"):
        gallery.identify(strangers, people, calibration, fpir=1e-4)


def test_any_search_may_be_used(people, queries, calibration):
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(AxisType.Auto,))
    sharded = gallery.exact_search(people.embeddings, mesh=mesh)
    one = gallery.identify(queries, people, calibration)
    other = gallery.identify(queries, people, calibration, search=sharded)
    assert one.names == other.names
    np.testing.assert_allclose(one.similarities, other.similarities, atol=1e-6)


def test_a_search_that_finds_too_few_names_only_those(people, queries, calibration):
    exact = gallery.exact_search(people.embeddings)

    def forgetful(x, k):
        found = exact(x, k)
        seen = np.arange(k) < 2
        return found._replace(indices=np.where(seen, found.indices, -1))

    found = gallery.identify(queries, people, calibration, k=9, search=forgetful)
    assert all(1 <= len(names) <= 2 for names in found.names)
    assert np.isfinite(found.probabilities).all()


def test_bad_questions_are_refused(people, calibration):
    x = np.ones((2, 8))
    with pytest.raises(ValueError, match="got none; enroll some"):
        gallery.identify(x, gallery.remove(people, people.names), calibration)
    with pytest.raises(ValueError, match="dimension 8, as in the gallery, got 3"):
        gallery.identify(np.ones((2, 3)), people, calibration)
    with pytest.raises(ValueError, match="finite .* row 1 of 2"):
        gallery.identify(np.array([[1.0] * 8, [np.nan] * 8]), people, calibration)
    with pytest.raises(ValueError, match="`k`"):
        gallery.identify(x, people, calibration, k=0)
    with pytest.raises(ValueError, match="`prior_unknown` between"):
        gallery.identify(x, people, calibration, prior_unknown=1.0)
    with pytest.raises(ValueError, match="one row for each pair"):
        gallery.verify(x, x[:1], calibration)
    with pytest.raises(ValueError, match="`ref_embeddings` that have a direction"):
        gallery.verify(x, np.zeros((2, 8)), calibration)
