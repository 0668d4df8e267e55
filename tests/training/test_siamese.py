"""The siamese recipes: what their batches hold, and whom they train and test on."""

import io
import zipfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from PIL import Image

from metricjax import heads
from metricjax.metrics import fewshot
from metricjax.training import official_runs, run, splits
from metricjax.training.recipes import omniglot_koch, siamese
from metricjax.training.state import State
from tests.oracles import losses_siamese as oracle

SMALL = {"encoder": "mlp", "width": 1, "dim": 3, "augmentation": 0.0}


@pytest.fixture
def examples(rng):
    """Six classes of five images, in two groups."""
    labels = np.repeat(np.arange(6), 5).astype(np.int32)
    images = rng.integers(0, 256, (30, 8, 8, 1), dtype=np.uint8)
    return splits.Examples(images, labels, {"alphabet": labels // 3})


def drawn(examples, step, **settings):
    given = siamese.Settings(**SMALL, groups="alphabet", **settings)
    return siamese.build(given, (8, 8, 1), 6).batches(examples, 0)(step)


def test_a_batch_of_groups_has_all_pairs_of_each(examples):
    counts = {"batch_groups": 3, "batch_classes": 2, "batch_examples": 4}
    images, labels, groups, ids = drawn(examples, 0, symmetries=4, **counts)
    assert len(images) == 3 * 2 * 4
    for i in range(3):
        part = slice(8 * i, 8 * i + 8)
        assert len(set(groups[part].tolist())) == 1
        assert np.unique(labels[part], return_counts=True)[1].tolist() == [4, 4]
        assert len(set(ids[part].tolist())) == 8
    # Class and group are turned alike, and the image is of that class.
    np.testing.assert_array_equal(groups, 4 * (labels // 4 // 3) + labels % 4)
    np.testing.assert_array_equal(examples.labels[ids // 4], labels // 4)
    np.testing.assert_array_equal(examples.images[ids // 4], images)


def test_the_groups_of_a_step_are_those_of_no_other(examples):
    counts = {"batch_groups": 2, "batch_classes": 2, "batch_examples": 2}
    batches = [drawn(examples, step, **counts)[3].tolist() for step in range(4)]
    parts = [tuple(rows[i : i + 4]) for rows in batches for i in (0, 4)]
    assert len(set(parts)) == 8


def test_all_pairs_of_a_group_and_no_image_with_itself(rng):
    x = rng.normal(size=(8, 3)).astype(np.float32)
    labels = np.array([0, 0, 1, 1, 4, 4, 5, 0])
    groups, ids = labels // 4, np.array([0, 1, 2, 3, 4, 5, 6, 0])
    params = heads.WeightedL1(jnp.array([-1.0, 0.5, -0.3]), jnp.array(0.2))
    head = Partial(heads.weighted_l1_logits, params=params)
    terms = siamese._all_pairs(head, *map(jnp.asarray, (x, labels, groups, ids)))
    near, far = [], []
    for a in range(8):
        for b in range(8):
            logit = float(np.abs(x[a] - x[b]) @ np.array([-1.0, 0.5, -0.3]) + 0.2)
            if labels[a] == labels[b] and ids[a] != ids[b]:
                near.append(oracle.softplus(-logit))
            elif labels[a] != labels[b] and groups[a] == groups[b]:
                far.append(oracle.softplus(logit))
    assert terms.count.sum(axis=0).tolist() == [len(near), len(far)]
    expected = [sum(near), sum(far)]
    np.testing.assert_allclose(terms.total.sum(axis=0), expected, rtol=1e-5)


@pytest.mark.parametrize("counts", [{"pairs": 16}, {"batch_groups": 2}])
@pytest.mark.parametrize("head", ["paper", "distance"])
def test_both_kinds_of_batches_and_heads_lower_the_loss(examples, head, counts):
    given = {"batch_classes": 3, "batch_examples": 4, "steps": 60, **counts}
    settings = siamese.Settings(
        **SMALL | {"dim": 16}, groups="alphabet", head=head, learning_rate=1e-2, **given
    )
    # Images of a class are alike but for a little noise.
    alike = examples.images // 8 + examples.images[examples.labels * 5] // 8 * 7
    problem = siamese.build(settings, (8, 8, 1), 6)
    state = problem.init(jax.random.key(0))
    draw = problem.batches(examples._replace(images=alike), 0)
    losses = []
    for t in range(60):
        state, metrics = problem.step(state, draw(t))
        losses.append(float(metrics["loss"]))
        assert 0.0 <= float(metrics["error"]) <= 1.0
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:10])


def test_groups_of_a_batch_need_groups_of_the_data():
    with pytest.raises(ValueError, match="Expected --groups"):
        siamese.Settings(batch_groups=2)


def test_symmetries_side_by_side_are_scored_by_the_mean_of_their_logits(rng):
    params = heads.WeightedL1(jnp.array([-1.0, 0.5, -0.3]), jnp.array(0.2))
    unused: Any = None
    state = State(unused, {"head": params}, {}, (), {}, jax.random.key(0))
    head = siamese.trained_head(run.Trained(state, unused, unused))
    x, y = rng.normal(size=(2, 5, 4 * 3)).astype(np.float32)
    logits = np.abs(x - y).reshape(5, 4, 3) @ np.array([-1.0, 0.5, -0.3]) + 0.2
    np.testing.assert_allclose(head(x, y), logits.mean(axis=1), atol=1e-6)


# --- Omniglot -------------------------------------------------------------------------


def write_omniglot(folder):
    """Two sets of two alphabets of three characters, all by 20 drawers."""
    for part, alphabets in (("background", "AB"), ("evaluation", "CD")):
        with zipfile.ZipFile(folder / f"images_{part}.zip", "w") as file:
            for i in range(2 * 3 * 20):
                alphabet, rest = alphabets[i // 60], i % 60
                name = f"character{rest // 20 + 1:02}/{i:04}_{rest % 20 + 1:02}.png"
                pixels = np.random.default_rng(i).random((105, 105)) > 0.1
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, "PNG")
                file.writestr(f"images_{part}/{alphabet}/{name}", buffer.getvalue())


@pytest.fixture(scope="module")
def omniglot(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    write_omniglot(folder)
    return folder


def test_nobody_who_drew_for_the_training_drew_for_the_test(omniglot):
    settings = omniglot_koch.Settings(splits=2)
    parts = omniglot_koch.divide(settings, data_dir=omniglot)
    assert len(parts) == 2
    for part in parts:
        assert part.unseen is not None
        assert part.seen is not None
        assert part.watched is part.seen
        assert sorted(set(part.seen.extra["drawer"].tolist())) == list(range(13, 17))
        assert set(part.seen.labels.tolist()) == set(part.train.labels.tolist())
        assert sorted(set(part.train.extra["drawer"].tolist())) == list(range(1, 13))
        assert sorted(set(part.unseen.extra["drawer"].tolist())) == list(range(17, 21))
        assert {name[0] for name in part.trained_on} == {"A", "B"}
        assert {name[0] for name in part.names.values()} == {"C", "D"}
        assert len(part.train.images) == 2 * 3 * 12


def test_a_validation_sees_neither_the_evaluation_set_nor_the_drawers_of_the_test(
    omniglot,
):
    settings = omniglot_koch.Settings(validation_alphabets=1)
    (part,) = omniglot_koch.divide(settings, data_dir=omniglot)
    assert part.unseen is not None
    assert part.watched is not None
    assert sorted(set(part.unseen.extra["drawer"].tolist())) == list(range(13, 17))
    trained = {name[0] for name in part.trained_on}
    validated = {name[0] for name in part.names.values()}
    assert trained | validated == {"A", "B"}
    assert not trained & validated


def test_omniglot_without_drawers_is_refused(omniglot, monkeypatch):
    load = omniglot_koch.omniglot._load

    def prepared(*arguments):
        found = load(*arguments)
        return found._replace(extra={"alphabet": found.extra["alphabet"]})

    monkeypatch.setattr(omniglot_koch.omniglot, "_load", prepared)
    with pytest.raises(ValueError, match="Expected the drawer of each image"):
        omniglot_koch.divide(omniglot_koch.Settings(), data_dir=omniglot)


def test_official_runs_are_scored_by_the_trained_head(omniglot, rng, monkeypatch):
    """One that likes differences takes the drawing that is least alike."""
    settings = omniglot_koch.Settings(image_size=None)
    (part,) = omniglot_koch.divide(settings, data_dir=omniglot)
    ink = rng.random((1, 4, 105, 105)) < np.linspace(0.1, 0.4, 4)[:, None, None]
    runs = fewshot.OneShotRuns(ink, ink, np.arange(4)[None])
    monkeypatch.setattr(official_runs, "find", lambda _: runs)

    def embed(images):
        return images.reshape(len(images), -1).mean(axis=1, keepdims=True)

    for weight, error in ((-1.0, 0.0), (1.0, 1.0)):
        head = heads.WeightedL1(jnp.array([weight]), jnp.array(0.0))
        unused: Any = None
        state = State(unused, {"head": head}, {}, (), {}, jax.random.key(0))
        trained = run.Trained(state, unused, embed)
        found = omniglot_koch.measure(settings, part, trained, data_dir=omniglot)
        assert found["error of the 20 official runs"] == error
