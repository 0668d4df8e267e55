"""Margin softmax: what the losses have in common, and what their limits are."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metricjax import heads, losses, margins, memory, numerics, reductions
from tests import compiled
from tests.oracles import losses_classes as oracles

LABELS = jnp.array([0, 1, 2, 3, 0, 1], jnp.int32)
STATISTICS = memory.init_norm_statistics(mean=2.0, std=0.75)
KEY = jax.random.key(3)


@pytest.fixture
def batch(rng):
    x = jnp.asarray(rng.normal(size=(6, 5)), jnp.float32)
    return x, jnp.asarray(rng.normal(size=(4, 5)), jnp.float32)


def terms(loss, *arguments, **options) -> reductions.Terms:
    return compiled.call(loss, *arguments, reduction=None, **options)


def of_state(loss, state):
    """A loss with its state in the place of a third argument."""
    return lambda x, w, y, **options: loss(x, w, state, y, **options)


WITHOUT_MARGIN = [
    partial(losses.arcface, margin=0.0),
    partial(losses.arcface, margin=0.0, fallback=margins.easy),
    partial(losses.cosface, margin=0.0),
    partial(losses.sphereface, margin=1.0),
    partial(losses.combined, angle_shift=0.0, shift=0.0),
    partial(losses.sphereface_r_v1, margin=1.0),
    partial(losses.sphereface_r_v2, margin=1.0),
    partial(losses.sphereface_r_v2, margin=1.0, detached=False),
    partial(losses.mv_softmax, margin=numerics.promote, emphasis=1.0),
    partial(losses.magface, low_margin=0.0, high_margin=0.0, regularization=0.0),
    partial(of_state(losses.adaface, STATISTICS), margin=0.0),
    partial(losses.elastic_arcface, KEY, margin=0.0, std=0.0),
    partial(losses.elastic_cosface, KEY, margin=0.0, std=0.0, plus=True),
    losses.adacos,
]


def test_every_loss_without_its_margin_is_normface(batch):
    def gradients(loss):
        return jax.value_and_grad(loss, argnums=(0, 1))(*batch, LABELS, scale=8.0)

    @jax.jit
    def every():
        return [gradients(loss) for loss in (losses.normface, *WITHOUT_MARGIN)]

    (expected, slopes), *rest = every()
    for index, (value, found) in enumerate(rest):
        assert float(value) == pytest.approx(float(expected), rel=1e-5), index
        for a, b in zip(found, slopes, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5, err_msg=str(index))


def test_one_subcenter_is_none_and_copies_change_nothing(batch):
    x, w = batch
    chosen = [
        losses.arcface,
        losses.li_arcface,
        partial(losses.mv_softmax, margin=margins.arcface),
        of_state(losses.curricularface, 0.3),
        of_state(losses.adaface, STATISTICS),
        of_state(losses.uniface, 5.0),
        losses.p2sgrad,
    ]

    @jax.jit
    def every(x, w):
        def value(w):
            return [loss(x, w, LABELS) for loss in chosen]

        copies = jnp.stack([w, 3.0 * w], axis=1)
        return value(w), value(w[:, None]), value(copies)

    plain, one, two = every(x, w)
    np.testing.assert_allclose(one, plain, rtol=1e-6)
    np.testing.assert_allclose(two, plain, rtol=1e-5)


def test_one_subcenter_has_the_gradient_of_none(batch):
    x, w = batch
    loss = jax.jit(jax.grad(losses.arcface, argnums=1))
    np.testing.assert_allclose(
        loss(x, w[:, None], LABELS)[:, 0], loss(x, w, LABELS), rtol=1e-5, atol=1e-7
    )


def test_only_the_nearest_subcenters_are_moved(rng):
    x = jnp.asarray(rng.normal(size=(1, 5)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(3, 2, 5)), jnp.float32)
    gradient = compiled.grad(losses.arcface, x, w, jnp.array([0]), argnums=1, scale=4.0)
    moved = np.abs(np.asarray(gradient)).sum(axis=2) > 0
    cosine = [[oracles.cosine(x[0], c) for c in centers] for centers in np.asarray(w)]
    nearest = np.argmax(cosine, axis=1)
    np.testing.assert_array_equal(moved, np.eye(2, dtype=bool)[nearest])
    logits = compiled.call(heads.cosine_logits, x, w, scale=4.0)
    np.testing.assert_allclose(logits[0], 4.0 * np.max(cosine, axis=1), rtol=1e-5)


def test_nearest_subcenter_finds_the_noise_of_a_class():
    w = jnp.array([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [0.0, -1.0]]])
    x = jnp.array([[1.0, 0.1], [0.9, -0.1], [0.1, 1.0], [0.1, -1.0], [1.0, 1.0]])
    labels = jnp.array([0, 0, 0, 1, 7])
    index, cosine = compiled.call(heads.nearest_subcenter, x, w, labels)
    np.testing.assert_array_equal(index, [0, 0, 1, 1, -1])
    assert float(cosine[1]) == pytest.approx(0.9 / math.hypot(0.9, 0.1))
    assert float(cosine[4]) == 0.0
    with pytest.raises(ValueError, match="nothing to choose"):
        heads.nearest_subcenter(x, w[:, 0], jnp.zeros(5, jnp.int32))


def curricular(c, target):
    return oracles.curricularface_other(c, target, 0.3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("loss", "target", "other"),
    [
        (losses.arcface, oracles.arcface, lambda c, t: c),
        (losses.cosface, lambda c, m: c - m, lambda c, t: c),
        (of_state(losses.curricularface, 0.3), oracles.arcface, curricular),
    ],
    ids=["arcface", "cosface", "curricularface"],
)
def test_each_class_may_have_a_margin_that_is_learned(batch, loss, target, other):
    x, w = (np.asarray(v, np.float64) for v in batch)
    of_classes = np.array([0.1, 0.2, 0.4, 0.5])

    def adjusted(of_classes):
        def adjust(cosines, y, x, i):
            t = target(cosines[y], of_classes[y])
            return [t if j == y else other(c, t) for j, c in enumerate(cosines)]

        return adjust

    def oracle(of_classes):
        adjust = adjusted(of_classes)
        return oracles.softmax(x, w, np.asarray(LABELS), adjust=adjust, scale=8.0)

    def value(of_classes):
        return loss(x, w, LABELS, margin=of_classes[LABELS], scale=8.0)

    found, slope = jax.jit(jax.value_and_grad(value))(of_classes)
    assert float(found) == pytest.approx(oracle(of_classes), rel=1e-10)
    for index, step in enumerate(1e-6 * np.eye(4)):
        gap = (oracle(of_classes + step) - oracle(of_classes - step)) / 2e-6
        assert float(slope[index]) == pytest.approx(gap, rel=1e-6, abs=1e-8)


def test_margin_and_scale_follow_schedules_in_one_compilation(batch):
    x, w = batch
    margin = optax.schedules.linear_schedule(0.0, 0.5, transition_steps=10)
    scale = optax.schedules.warmup_constant_schedule(8.0, 64.0, warmup_steps=5)
    traced = []

    @jax.jit
    def step(count):
        traced.append(count)
        return losses.arcface(x, w, LABELS, margin=margin(count), scale=scale(count))

    for count, m, s in ((0, 0.0, 8.0), (4, 0.2, 52.8), (10, 0.5, 64.0)):
        expected = compiled.call(losses.arcface, x, w, LABELS, margin=m, scale=s)
        np.testing.assert_allclose(step(count), expected, rtol=1e-5)
    assert len(traced) == 1


def test_a_penalty_is_added_to_each_example_that_counts(batch):
    x, w = batch
    norms = numerics.norm(x)
    options = {"scale": norms, "where": jnp.arange(6) < 5}
    labels = LABELS.at[0].set(-1)
    penalty = 0.01 * jnp.abs(norms - 30.0)
    plain = terms(losses.sphereface_r_v1, x, w, labels, **options)
    pulled = terms(losses.sphereface_r_v1, x, w, labels, penalty=penalty, **options)
    counts = (jnp.arange(6) > 0) & (jnp.arange(6) < 5)
    expected = jnp.where(counts, penalty, 0.0)
    np.testing.assert_allclose(pulled.total - plain.total, expected, atol=1e-6)


def test_l_softmax_and_a_softmax_without_margin_are_softmaxes(batch):
    x, w = batch
    entropy = optax.losses.softmax_cross_entropy_with_integer_labels

    @jax.jit
    def both(x, w):
        unit = numerics.l2_normalize(w)
        return (
            losses.l_softmax(x, w, LABELS, margin=1.0),
            entropy(x @ w.T, LABELS).mean(),
            losses.a_softmax(x, w, LABELS, margin=4.0, annealing=1e9),
            entropy(x @ unit.T, LABELS).mean(),
        )

    large, expected, angular, expected_of_angles = map(float, both(x, w))
    assert large == pytest.approx(expected, rel=1e-5)
    assert angular == pytest.approx(expected_of_angles, rel=1e-5)


@pytest.mark.usefixtures("x64")
def test_variants_equal_their_oracles(rng):
    x, w = rng.normal(size=(6, 5)), rng.normal(size=(4, 2, 5))
    one = w[:, 0]
    arcface = oracles.margin(
        lambda c, x: oracles.arcface(c), lambda c, t: c + 0.3 if c > t else c
    )
    magface = oracles.margin(
        lambda c, x: oracles.arcface_easy(c, oracles.magface_margin(x))
    )

    @jax.jit
    def every(x, w, one):
        return (
            losses.mv_softmax(
                x, w, LABELS, margin=margins.arcface, adaptive=False, emphasis=1.3
            ),
            losses.magface(10.0 * x, one, LABELS),
            losses.l_softmax(x, one, LABELS, margin=2.0, annealing=3.0),
            losses.sphereface2(x, one, -1.0, LABELS, detached=True),
        )

    expected = [
        oracles.softmax(x, w, LABELS, adjust=arcface, scale=32.0),
        oracles.softmax(
            10.0 * x, one, LABELS, adjust=magface, penalty=oracles.magface_penalty
        ),
        oracles.l_softmax(x, one, LABELS, margin=2.0, annealing=3.0),
        oracles.sphereface2(x, one, -1.0, LABELS),
    ]
    np.testing.assert_allclose(every(x, w, one), expected, rtol=1e-10)


def test_active_examples_are_those_that_lose_to_another_class():
    x, w = jnp.array([[1.0, 0.1], [0.1, 1.0], [1.0, 0.9]]), jnp.eye(2)
    labels = jnp.array([0, 0, 0])
    active = terms(losses.cosface, x, w, labels, margin=0.1).active
    np.testing.assert_array_equal(active, [0.0, 1.0, 1.0])
    active = terms(losses.uniface, x, w, 16.0, labels, margin=0.1).active
    np.testing.assert_array_equal(active, [0.0, 1.0, 1.0])
    active = terms(losses.p2sgrad, x, w, labels).active
    np.testing.assert_array_equal(active, [0.0, 1.0, 0.0])
    each = partial(losses.p2sgrad, reduction=reductions.per_anchor)
    assert jax.eval_shape(each, x, w, labels).shape == (3,)


def test_wrong_ranks_and_sizes_are_refused_with_a_cure(batch):
    x, w = batch
    with pytest.raises(ValueError, match="one row for each class"):
        losses.arcface(x, w[0], LABELS)
    with pytest.raises(ValueError, match="same last axis"):
        losses.uniface(x, w[:, :3], 1.0, LABELS)
    with pytest.raises(ValueError, match="use a_softmax"):
        losses.l_softmax(x, w[:, None], LABELS)
    with pytest.raises(ValueError, match="at least 3 classes"):
        losses.adacos(x, w[:2], LABELS)
    with pytest.raises(ValueError, match="`subcenters`"):
        heads.init_class_weights(KEY, 3, 4, subcenters=0)
    assert heads.init_class_weights(KEY, 3, 4, subcenters=2).shape == (3, 2, 4)
