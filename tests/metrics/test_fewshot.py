import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from PIL import Image

from metricjax.metrics import fewshot
from tests.oracles import metrics as oracle


@pytest.fixture
def labels(rng):
    """Classes of 2 to 7 items, a lone one, and items in no class."""
    sizes = [2, 7, 5, 1, 6, 7, 3, 4]
    return rng.permutation(np.repeat([0, 1, 2, 3, 4, 5, 6, 7, -1], [*sizes, 2]))


def test_episodes_are_drawn_as_asked(labels):
    drawn = fewshot.sample_episodes(
        labels, ways=4, shots=2, queries=3, episodes=40, seed=5
    )
    assert drawn.support.shape == (40, 4, 2)
    assert drawn.queries.shape == (40, 4, 3)
    rows = np.concatenate([drawn.support, drawn.queries], axis=2)
    classes = labels[rows]
    assert (classes == classes[:, :, :1]).all()
    assert set(classes.ravel()) == {1, 2, 4, 5}
    for episode in rows:
        assert len(set(episode.ravel())) == 20
        assert len(set(labels[episode[:, 0]])) == 4


def test_episode_i_depends_on_the_seed_and_i_alone(labels):
    def draw(episodes, seed):
        return fewshot.sample_episodes(
            labels, ways=3, shots=1, episodes=episodes, seed=seed
        )

    np.testing.assert_array_equal(draw(10, 1).support[:4], draw(4, 1).support)
    assert (draw(10, 1).support != draw(10, 2).support).any()


def test_classes_are_drawn_evenly():
    labels = np.repeat(np.arange(6), 3)
    drawn = fewshot.sample_episodes(labels, ways=2, shots=1, episodes=600, seed=0)
    counts = np.bincount(labels[drawn.support].ravel(), minlength=6)
    assert counts.sum() == 1200
    assert (abs(counts - 200) < 60).all()


def test_episodes_stay_within_a_group(labels):
    groups = np.where(labels < 0, 9, labels // 4)
    drawn = fewshot.sample_episodes(
        labels, ways=3, shots=1, episodes=30, seed=0, groups=groups
    )
    seen = groups[drawn.support][:, :, 0]
    assert (seen == seen[:, :1]).all()
    assert set(seen.ravel()) == {0, 1}


def test_accuracy_of_each_classifier_equals_the_loop(rng):
    shots = 3
    labels = np.repeat(np.arange(8), 6)
    x = rng.standard_normal((8, 4))[labels] + rng.standard_normal((48, 4))
    x = x.astype(np.float32)
    drawn = fewshot.sample_episodes(
        labels, ways=5, shots=shots, queries=2, episodes=9, seed=1
    )
    expected = {
        fewshot.nearest_neighbor: lambda q, s: (
            oracle.cosine(q, s.reshape(-1, 4)).reshape(-1, 5, shots).max(2)
        ),
        fewshot.cosine_prototype: lambda q, s: oracle.cosine(
            q, [oracle.unit(way).mean(0) for way in s]
        ),
        fewshot.euclidean_prototype: lambda q, s: (
            -np.array([[np.sum((one - way.mean(0)) ** 2) for way in s] for one in q])
        ),
    }
    for classify, scores in expected.items():
        got = fewshot.evaluate(x, drawn, classify=classify, block_size=4)
        want = [
            oracle.share_of_right(
                scores(x[q.ravel()], x[s]), np.repeat(np.arange(5), 2)
            )
            for s, q in zip(drawn.support, drawn.queries, strict=True)
        ]
        np.testing.assert_allclose(got.per_episode, want, atol=1e-6)
        assert float(got.accuracy) == pytest.approx(np.mean(want), abs=1e-6)
        half = 1.96 * np.std(want, ddof=1) / 3
        assert float(got.half_width) == pytest.approx(half, abs=1e-6)


def difference(a, b):
    """Antisymmetric: the mean of both orders is 0 for every pair."""
    return jnp.sum(a - b, axis=(1, 2))


def closeness(a, b):
    return -jnp.sum(jnp.abs(a - b), axis=(1, 2)) + jnp.sum(a - b, axis=(1, 2))


def test_pair_scoring_takes_the_mean_of_both_orders(rng):
    labels = np.repeat(np.arange(5), 4)
    images = rng.standard_normal((20, 3, 2)).astype(np.float32)
    drawn = fewshot.sample_episodes(labels, ways=5, shots=2, episodes=6, seed=0)
    chance = fewshot.evaluate(
        images, drawn, classify=Partial(fewshot.pair_scorer, score=difference)
    )
    assert float(chance.accuracy) == pytest.approx(0.2, abs=0.05)
    got = fewshot.evaluate(
        images, drawn, classify=Partial(fewshot.pair_scorer, score=closeness)
    )
    for s, q, value in zip(drawn.support, drawn.queries, got.per_episode, strict=True):
        gaps = np.abs(images[q.ravel()][:, None, None] - images[s][None])
        scores = -gaps.sum((3, 4)).min(2)
        want = oracle.share_of_right(scores, range(5))
        assert float(value) == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize("point", [0.3, np.nan])
@pytest.mark.parametrize(
    "classify",
    [fewshot.nearest_neighbor, fewshot.cosine_prototype, fewshot.euclidean_prototype],
)
def test_a_collapsed_encoder_scores_chance(classify, point):
    labels = np.repeat(np.arange(10), 5)
    drawn = fewshot.sample_episodes(labels, ways=7, shots=3, episodes=4, seed=0)
    result = fewshot.evaluate(np.full((50, 37), point), drawn, classify=classify)
    np.testing.assert_allclose(result.per_episode, 1 / 7, rtol=1e-6)
    assert float(result.half_width) == 0


def test_one_shot_error_shares_ties():
    scores = np.array([[[1.0, 0, 0], [0, 0, 0]], [[0, 0, 0], [1, 1, 0]]])
    answers = np.array([[0, 2], [0, 2]])
    got = fewshot.one_shot_error(scores, answers)
    np.testing.assert_allclose(got, [1 / 3, (2 / 3 + 1) / 2], rtol=1e-6)


def test_pixel_distance_is_the_true_euclidean_one(rng):
    x, y = rng.random((3, 5, 4)) < 0.5, rng.random((2, 5, 4)) < 0.5
    want = [[np.linalg.norm(a.astype(float) - b) for b in y] for a in x]
    np.testing.assert_allclose(fewshot.pixel_distances(x, y), want, atol=1e-5)


def test_modified_hausdorff_equals_the_definition(rng):
    x, y = rng.random((3, 9, 8)) < 0.2, rng.random((4, 9, 8)) < 0.4
    want = [[oracle.modified_hausdorff(a, b) for b in y] for a in x]
    np.testing.assert_allclose(fewshot.modified_hausdorff(x, y), want, atol=1e-5)
    shifted = np.roll(np.pad(x, ((0, 0), (2, 2), (2, 2))), (2, -1), axis=(1, 2))
    own = np.diag(fewshot.modified_hausdorff(x, shifted))
    np.testing.assert_allclose(own, 0, atol=1e-5)
    empty = np.zeros((1, 9, 8), bool)
    assert np.isinf(fewshot.modified_hausdorff(empty, x)).all()


def write_runs(folder, runs=2, classes=3):
    """Runs in the official form; class i is a bar in row i, queries reversed."""
    for run in range(1, runs + 1):
        name = folder / f"run{run:02d}"
        (name / "training").mkdir(parents=True)
        (name / "test").mkdir()
        lines = []
        for i in range(classes):
            image = np.full((6, 5), 255, np.uint8)
            image[i, : 2 + run] = 0
            training = f"run{run:02d}/training/class{i + 1:02d}.png"
            test = f"run{run:02d}/test/item{classes - i:02d}.png"
            for path in (training, test):
                Image.fromarray(image).convert("1").save(folder / path)
            lines.append(f"{test} {training}")
        (name / "class_labels.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_reads_runs_from_a_folder_and_from_an_archive(tmp_path):
    folder = write_runs(tmp_path / "all_runs")
    archive = tmp_path / "all_runs.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*.*")):
            file.write(path, path.relative_to(folder))
    for path in (folder, archive):
        runs = fewshot.read_omniglot_runs(path)
        assert runs.support.shape == runs.queries.shape == (2, 3, 6, 5)
        assert runs.answers.tolist() == [[2, 1, 0]] * 2
        assert runs.support.sum((2, 3)).tolist() == [[3] * 3, [4] * 3]
        scores = -fewshot.pixel_distances(runs.queries[0], runs.support[0])
        assert fewshot.one_shot_error(scores[None], runs.answers[:1]).tolist() == [0]


def test_broken_runs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="got none; pass"):
        fewshot.read_omniglot_runs(tmp_path)
    folder = write_runs(tmp_path / "all_runs")
    labels = folder / "run02" / "class_labels.txt"
    text = labels.read_text()
    labels.write_text("\n".join(text.splitlines()[:2]))
    with pytest.raises(ValueError, match="is a run cut short"):
        fewshot.read_omniglot_runs(folder)
    labels.write_text("one two three\n")
    with pytest.raises(ValueError, match="run02/class_labels.txt"):
        fewshot.read_omniglot_runs(folder)
    labels.write_text(text.replace("class01", "class77"))
    with pytest.raises(FileNotFoundError):
        fewshot.read_omniglot_runs(folder)


def test_wrong_input_is_refused(labels):
    with pytest.raises(ValueError, match="Expected at least 9 classes"):
        fewshot.sample_episodes(labels, ways=9, shots=1, episodes=1, seed=0)
    with pytest.raises(ValueError, match="each class in one group"):
        fewshot.sample_episodes(
            labels, ways=2, shots=1, episodes=1, seed=0, groups=np.arange(len(labels))
        )
    with pytest.raises(ValueError, match="`shots`"):
        fewshot.sample_episodes(labels, ways=2, shots=0, episodes=1, seed=0)
    drawn = fewshot.sample_episodes(labels, ways=2, shots=1, episodes=1, seed=0)
    with pytest.raises(TypeError, match="floating dtype"):
        fewshot.evaluate(np.ones((37, 2), int), drawn)
    with pytest.raises(TypeError, match="dtype bool"):
        fewshot.modified_hausdorff(np.ones((1, 3, 3)), np.ones((1, 3, 3), bool))
