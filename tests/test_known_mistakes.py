"""Mistakes that public code of this field is known for, each shown not to be here.

Most of these properties are tested in more depth beside what they are about; this is
the list, in one place.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metricjax import (
    distances,
    heads,
    losses,
    margins,
    memory,
    mining,
    numerics,
    pairs,
    samplers,
)
from metricjax.metrics import fewshot, identification, retrieval
from metricjax.training import optimizers, splits
from metricjax.training.recipes import siamese
from tests import compiled

ANGLES = jnp.linspace(0.0, jnp.pi, 181)


@pytest.fixture
def x(rng):
    """Six embeddings of three classes."""
    return jnp.asarray(rng.normal(size=(6, 4)), jnp.float32)


LABELS = jnp.array([0, 0, 1, 1, 2, 2])


# --- classification heads -------------------------------------------------------------


def test_predictions_know_no_label(x):
    """Accuracy measured on logits with a margin leaks the label, or punishes it."""
    logits = heads.cosine_logits(x, x[:3])
    unit = np.asarray(x) / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(logits, unit @ unit[:3].T, atol=1e-6)


def test_the_softmax_is_taken_once(x):
    """A softmax layer before a loss that takes logits makes every class likely."""
    loss = compiled.call(losses.normface, x, x[::2], LABELS, scale=30.0)
    logits = 30.0 * heads.cosine_logits(x, x[::2])
    expected = -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(6), LABELS])
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_sphereface_never_turns_back():
    """`cos(1.35 t)` rises again beyond 133 degrees: the worst angles are rewarded."""
    target = margins.sphereface(jnp.cos(ANGLES), margin=1.35)
    assert (np.diff(target) < 1e-6).all()
    assert (np.diff(np.cos(1.35 * ANGLES)) > 1e-3).any()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_ends_of_the_cosine_have_finite_slopes(dtype):
    """`arccos` clipped by 1e-7 is steep at the ends, and infinite in half precision."""
    ends = jnp.array([-1.0, 1.0], dtype)
    slopes = jax.grad(lambda c: jnp.sum(margins.arcface(c, margin=0.5)))(ends)
    assert np.isfinite(np.float32(slopes)).all()


def test_an_angle_that_the_margin_turns_beyond_pi_is_worse_still():
    """`cos(t + m)` rises again beyond 180 degrees."""
    target = margins.arcface(jnp.cos(ANGLES), margin=0.5)
    assert (np.diff(target) < 1e-6).all()
    assert (np.diff(np.cos(ANGLES + 0.5)) > 1e-3).any()


def test_a_cosine_that_is_rounded_beyond_one_is_no_nan():
    """Without a clamp the root of `1 - c^2` is NaN there."""
    beyond = jnp.array([-1.0 - 1e-6, 1.0 + 1e-6])
    value = margins.arcface(beyond, margin=0.5)
    slopes = jax.grad(lambda c: jnp.sum(margins.arcface(c, margin=0.5)))(beyond)
    assert np.isfinite(value).all()
    assert np.isfinite(slopes).all()
    assert float(value[1]) == pytest.approx(np.cos(0.5), abs=1e-2)


def test_the_slope_of_a_masked_row_leaks_nothing():
    """`where` around an arccosine hides its NaN from the value, not from the slope."""
    rows = jnp.array([[1.0, 0.0], [0.0, 0.0], [0.6, 0.8]])
    slopes = jax.grad(
        lambda x: losses.arcface(
            x, jnp.eye(2), jnp.zeros(3, jnp.int32), where=jnp.arange(3) == 2
        )
    )(rows)
    assert np.isfinite(slopes).all()
    assert not np.asarray(slopes)[:2].any()


def test_a_margin_of_half_is_half_a_radian():
    """Some libraries take degrees, under the same name."""
    shifted = margins.arcface(jnp.cos(0.3), margin=0.5)
    assert float(shifted) == pytest.approx(np.cos(0.8), abs=1e-6)


def test_the_easy_margin_is_on_only_when_asked_for():
    hard = margins.arcface(jnp.cos(2.0), margin=0.5)
    easy = margins.arcface(jnp.cos(2.0), margin=0.5, fallback=margins.easy)
    assert float(hard) == pytest.approx(np.cos(2.5), abs=1e-6)
    assert float(easy) == pytest.approx(np.cos(2.0), abs=1e-6)


def test_class_weights_have_no_length_to_regularise(x):
    """A penalty on their length moves no direction, only the rate of learning."""
    classes = x[:3] + x[3:]
    loss = functools.partial(losses.arcface, scale=8.0)
    value, slopes = jax.value_and_grad(loss, argnums=1)(x, classes, LABELS)
    longer = loss(x, 7.0 * classes, LABELS)
    assert float(longer) == pytest.approx(float(value), rel=1e-5)
    along = np.sum(np.asarray(classes) * np.asarray(slopes), axis=1)
    np.testing.assert_allclose(along, 0.0, atol=1e-5)
    assert np.abs(slopes).max() > 0.01
    decay = optimizers.decayed({"encoder": {"kernel": x}, "head": classes})
    assert decay == {"encoder": {"kernel": True}, "head": False}


def test_smoothed_labels_move_the_optimum_with_the_scale_outside_of_the_target():
    """Smoothing belongs to the targets of the scaled logits, not to the cosines."""
    x, y = jnp.array([[0.8, 0.6]]), jnp.array([0])
    found = losses.normface(x, jnp.eye(2), y, scale=16.0, label_smoothing=0.2)
    logs = jax.nn.log_softmax(16.0 * x)[0]
    expected = -(0.9 * logs[0] + 0.1 * logs[1])
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_labels_are_indices_and_no_table_of_ones_is_made():
    """One-hot labels take as much memory as the logits, three times over."""
    batch, classes, dim = 64, 20_000, 8
    loss = jax.value_and_grad(functools.partial(losses.arcface, block_size=1_000))
    shapes = [((batch, dim), "f4"), ((classes, dim), "f4"), ((batch,), "i4")]
    arguments = [jax.ShapeDtypeStruct(shape, kind) for shape, kind in shapes]
    memory = jax.jit(loss).lower(*arguments).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < batch * classes * 4


@pytest.mark.parametrize("name", ["triplet_semihard", "supcon"])
def test_labels_are_never_floats_beside_the_embeddings(name, x):
    """Labels that travel as a column of the embeddings are compared as floats."""
    with pytest.raises(TypeError, match="integer"):
        getattr(losses, name)(x, LABELS.astype(jnp.float32))


def test_classes_are_in_the_order_of_numbers():
    """Sorted as strings, class 10 comes before class 2."""
    labels = np.array([10, 10, 2, 2])
    found = compiled.call(identification.open_set_accuracy, jnp.eye(4), labels=labels)
    assert found.classes.tolist() == [2, 10]


# --- centers --------------------------------------------------------------------------


def test_centers_move_and_are_not_differentiated(x):
    """Rebinding a name leaves the centers where they were drawn, for ever."""
    centers = jnp.zeros((3, 4))
    moved = memory.update_centers(centers, x, LABELS, rate=0.5)
    expected = 0.5 * np.asarray(x).reshape(3, 2, 4).sum(axis=1) / (1 + 2)
    np.testing.assert_allclose(moved, expected, rtol=1e-5)
    slopes = jax.grad(lambda x: memory.update_centers(centers, x, LABELS).sum())(x)
    assert not slopes.any()


def test_only_the_center_of_its_own_class_costs_an_example(x):
    """Clamped after masking, each other class adds 1e-12, and centers get slopes."""
    value, slopes = jax.value_and_grad(losses.center, argnums=1)(x, x[::2], LABELS)
    gaps = np.asarray(x) - np.asarray(x)[::2][np.asarray(LABELS)]
    expected = 0.5 * np.mean(np.sum(gaps**2, axis=1))
    assert float(value) == pytest.approx(expected, rel=1e-6)
    assert not slopes.any()
    assert float(losses.center(x[::2], x[::2], LABELS[::2])) == 0.0


def test_an_embedding_is_normalised_by_itself(x):
    """Normalised over the batch, an embedding depends on its neighbours in it."""
    whole, alone = numerics.l2_normalize(x)[2], numerics.l2_normalize(x[2:3])[0]
    np.testing.assert_allclose(whole, alone, rtol=1e-6)


# --- pairs and tasks ------------------------------------------------------------------


def test_no_pair_is_an_image_with_itself_and_halves_are_mixed():
    """One in twenty positives was the same file; positives filled the second half."""
    labels = np.repeat(np.arange(5), 2)
    for step in range(50):
        drawn = samplers.pair_batch(labels, pairs=32, seed=0, step=step)
        assert (drawn.first != drawn.second).all()
        assert ((labels[drawn.first] == labels[drawn.second]) == drawn.same).all()
        assert drawn.same.sum() == 16
        assert drawn.same[:16].any()
        assert drawn.same[16:].any()


def test_the_last_character_of_an_alphabet_is_drawn_too():
    """Ranges with an inclusive end lose it."""
    labels, groups = np.repeat(np.arange(6), 2), np.repeat([0, 1], 6)
    table = samplers.group_table(labels, groups)
    drawn = [
        samplers.grouped_pk_batch(table, classes=2, examples=2, seed=0, step=step)
        for step in range(12)
    ]
    assert set(labels[np.concatenate(drawn)].tolist()) == set(range(6))


def test_support_and_queries_are_of_two_drawers_and_one_alphabet():
    """Mixed drawers and alphabets make a task that is far easier than the official."""
    labels, drawers = np.repeat(np.arange(8), 3), np.tile(np.arange(3), 8)
    alphabets = labels // 4
    tasks = fewshot.context_episodes(labels, drawers, groups=alphabets, ways=3, seed=0)
    assert len(tasks.support) == 2 * 3 * 2
    for support, queries in zip(
        tasks.support[..., 0], tasks.queries[..., 0], strict=True
    ):
        assert labels[support].tolist() == labels[queries].tolist()
        assert len(set(labels[support].tolist())) == 3
        assert len(set(alphabets[support].tolist())) == 1
        assert len(set(drawers[support].tolist())) == 1
        assert len(set(drawers[queries].tolist())) == 1
        assert drawers[support][0] != drawers[queries][0]


def test_the_pixel_baseline_is_a_distance(rng):
    """`sum(sqrt(a^2 - b^2))` is not one, and is NaN where b is larger."""
    a, b = rng.random((2, 3, 4, 4)).astype(np.float32)
    expected = np.linalg.norm((a[:, None] - b).reshape(3, 3, -1), axis=-1)
    np.testing.assert_allclose(fewshot.pixel_distances(a, b), expected, rtol=1e-4)


def test_an_encoder_that_says_nothing_scores_chance():
    """The first of equal scores wins, and the true class stands first: 100 %."""
    tasks = fewshot.sample_episodes(
        np.repeat(np.arange(6), 2), ways=5, shots=1, episodes=4, seed=0
    )
    found = fewshot.evaluate(jnp.ones((12, 3)), tasks)
    assert float(found.accuracy) == pytest.approx(0.2)


def test_a_pair_and_its_mirror_have_one_score(x):
    """`x1^2 - x2^2` changes its sign when a pair is turned round."""
    head = heads.init_pair_network(jax.random.key(0), 4)
    there, back = (
        compiled.call(heads.pair_network_logits, *sides, head)
        for sides in ((x[:3], x[3:]), (x[3:], x[:3]))
    )
    np.testing.assert_allclose(there, back, rtol=1e-5)


def test_turned_pairs_are_turned_alike():
    """With turned classes a pair of one class is turned by the same quarter turn.

    Turned by whether it is of one class, a pair would tell so by its orientation.
    """
    settings = siamese.Settings(pairs=8, symmetries=4, width=2, dim=4)
    labels = np.repeat(np.arange(3), 4).astype(np.int32)
    examples = splits.Examples(np.zeros((12, 8, 8, 1), np.uint8), labels)
    problem = siamese.build(settings, (8, 8, 1), 3)
    turns = set()
    for step in range(8):
        _, classes, *_ = problem.batches(examples, 0)(step)
        first, second = classes.reshape(2, -1)
        assert (first == second).sum() == 4
        turns |= set((first % 4).tolist())
    assert turns == {0, 1, 2, 3}


# --- duplicate questions --------------------------------------------------------------


def embeddings_with(similarities):
    """Anchors and partners whose cosines are these."""
    anchors = np.eye(4, 8)
    partners = np.zeros((4, 8))
    partners[:, :4] = np.asarray(similarities).T
    rest = 1.0 - np.sum(partners**2, axis=1)
    partners[np.arange(4), 4 + np.arange(4)] = np.sqrt(rest)
    return jnp.asarray(anchors), jnp.asarray(partners)


SCORES = [
    [0.9, -0.8, 0.3, -0.5],
    [-0.4, 0.5, 0.1, -0.1],
    [0.3, 0.1, -0.4, -0.8],
    [-0.5, -0.2, -0.7, 0.5],
]


@pytest.mark.usefixtures("x64")
def test_rows_are_anchors_and_columns_their_partners():
    """Transposed, the negatives of an anchor are those of its partner."""
    # The third partner is longer than one with these cosines: shorten all alike.
    anchors, partners = embeddings_with(0.7 * np.array(SCORES))
    margin = 0.25 * 0.7
    loss = compiled.call(losses.hard_negatives, anchors, partners, margin=margin)
    assert float(loss) == pytest.approx(0.7 * 0.516667, abs=1e-6)
    hardest = compiled.call(
        losses.hard_negatives, anchors, partners, margin=margin, semi_hard=False
    )
    assert float(hardest) == pytest.approx(0.7 * 1.466667, abs=1e-6)


def test_duplicates_in_the_batch_are_no_negatives():
    anchors, partners = embeddings_with(0.7 * np.array(SCORES))
    same = losses.hard_negatives(anchors, partners, labels=jnp.zeros(4, jnp.int32))
    assert float(same) == 0.0


def test_a_batch_of_one_pair_costs_nothing():
    """The mean over the others divides by zero."""
    assert float(losses.hard_negatives(jnp.ones((1, 2)), jnp.ones((1, 2)))) == 0.0


# --- everywhere -----------------------------------------------------------------------


def test_a_distance_of_zero_has_a_slope_of_zero():
    """The slope of a square root at zero is infinite; times zero, NaN."""
    slope = jax.jit(jax.grad(lambda x: jnp.sum(distances.euclidean(x))))
    slopes = slope(jnp.ones((3, 2)))
    assert np.isfinite(slopes).all()


def test_no_squared_distance_is_negative(rng):
    x = jnp.asarray(1e3 + rng.normal(size=(50, 8)), jnp.float32)
    assert (distances.squared_euclidean(x) >= 0).all()


def test_a_near_duplicate_keeps_its_distance_and_the_diagonal_is_zero(rng):
    """Squares that are subtracted cancel: in float32 a diagonal of 1e-3 is left."""
    x = jnp.asarray(30.0 + rng.normal(size=(5, 16)), jnp.float32)
    near = x + jnp.float32(1e-3)
    found = distances.euclidean(x, near, exact=True)
    np.testing.assert_allclose(np.diag(found), 4e-3, rtol=0.02)
    assert not np.diag(distances.euclidean(x, exact=True)).any()


def test_the_hardest_positive_is_not_the_anchor_itself(x):
    triplets = mining.hard(distances.euclidean(x), pairs.from_labels(LABELS))
    assert (np.asarray(triplets.positive)[:, 0] != np.arange(6)).all()


@pytest.mark.parametrize("name", ["supcon", "triplet_hard", "contrastive"])
def test_an_anchor_without_a_positive_costs_nothing_but_is_not_nan(name, x):
    loss = jax.jit(jax.value_and_grad(getattr(losses, name)))
    value, slopes = loss(x, jnp.arange(6))
    assert np.isfinite(value)
    assert np.isfinite(slopes).all()


def test_supcon_takes_the_mean_outside_of_the_logarithm(x):
    labels = jnp.array([0, 0, 0, 1, 1, 1])
    unit = np.asarray(numerics.l2_normalize(x), np.float64)
    logits = unit @ unit.T / 0.1
    np.fill_diagonal(logits, -np.inf)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    same = (np.asarray(labels)[:, None] == labels) & ~np.eye(6, dtype=bool)
    expected = -np.mean([logs[i][same[i]].mean() for i in range(6)])
    assert float(losses.supcon(x, labels)) == pytest.approx(expected, rel=1e-4)


def test_map_at_r_is_divided_by_r_and_not_by_the_hits():
    """One hit, in the first of two places: 1/2, not 1."""
    x = jnp.array([[1.0, 0.0], [0.99, 0.14], [-1.0, 0.0], [0.9, 0.44], [0.0, -1.0]])
    labels = jnp.array([0, 0, 0, 1, 1])
    found = retrieval.per_query(x, labels, ks=(1,)).map_at_r
    assert float(found[0]) == pytest.approx(0.5)


def test_proxy_anchor_is_finite_in_half_precision(x):
    value = losses.proxy_anchor(
        x.astype(jnp.bfloat16), x[::2].astype(jnp.bfloat16), LABELS
    )
    assert value.dtype == jnp.float32
    assert np.isfinite(value)
