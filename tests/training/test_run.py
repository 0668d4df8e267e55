import numpy as np
import pytest

from metricjax import data
from metricjax.training import evaluate, report, run
from metricjax.training.settings import Settings


@pytest.fixture
def dataset(rng):
    labels = np.repeat(np.arange(10), 12).astype(np.int32)
    images = rng.integers(0, 256, (120, 2, 2, 1), dtype=np.uint8)
    # Each image carries its number, to be recognised.
    images[:, 0, 0, 0] = np.arange(120)
    return data.Dataset(images, labels, tuple("abcdefghij"))


def numbers(examples):
    return set(examples.images[:, 0, 0, 0].tolist())


def test_splits_test_on_classes_from_the_end_and_never_train_on_them(dataset):
    expected = [
        {7: "h", 8: "i", 9: "j"},
        {4: "e", 5: "f", 6: "g"},
        {1: "b", 2: "c", 3: "d"},
    ]
    for index, names in enumerate(expected):
        split = run.split(dataset, Settings(), index)
        assert split.names == names
        assert split.classes == 7
        assert set(split.unseen.labels.tolist()) == set(names)
        unseen = {i for i in range(120) if i // 12 in names}
        assert numbers(split.unseen) == unseen
        assert numbers(split.train) | numbers(split.seen) == set(range(120)) - unseen
        assert not numbers(split.train) & numbers(split.seen)


def test_training_labels_count_from_zero_and_keep_their_images(dataset):
    split = run.split(dataset, Settings(), 1)
    classes = [0, 1, 2, 3, 7, 8, 9]
    for part in (split.train, split.seen):
        assert part.labels.dtype == np.int32
        found = [classes[label] for label in part.labels]
        assert found == (part.images[:, 0, 0, 0] // 12).tolist()
    assert np.bincount(split.seen.labels).tolist() == [2] * 7
    assert np.bincount(split.train.labels).tolist() == [10] * 7


def test_validation_classes_come_out_of_the_training_classes(dataset):
    whole = run.split(dataset, Settings(), 0)
    split = run.split(dataset, Settings(validation_classes=2), 0)
    assert split.classes == 5
    assert len(split.names) == 2
    assert numbers(split.unseen) <= numbers(whole.train) | numbers(whole.seen)
    everything = numbers(split.train) | numbers(split.seen) | numbers(split.unseen)
    assert everything == numbers(whole.train) | numbers(whole.seen)
    assert not everything & numbers(whole.unseen)


def test_large_sets_are_evaluated_in_part(dataset):
    split = run.split(dataset, Settings(evaluated_images=9), 0)
    assert len(split.unseen.labels) == len(split.seen.labels) == 9
    assert set(split.unseen.labels.tolist()) == {7, 8, 9}


@pytest.mark.parametrize(
    "changes", [{"test_classes": 9}, {"splits": 4}, {"validation_classes": 6}]
)
def test_too_few_classes_are_refused(dataset, changes):
    settings = Settings(**changes)
    with pytest.raises(ValueError, match="got 10 classes in all; lower"):
        run.split(dataset, settings, settings.splits - 1)


def test_the_report_averages_over_splits():
    def result(value):
        scores = dict.fromkeys(evaluate.METRICS, value)
        kinds = {"raw": scores, "trained": {**scores, "eer": value / 2}}
        return {"unseen": kinds, "seen": kinds}

    means = report.means([result(0.2), result(0.6)])
    assert means["unseen"]["raw"]["map_at_r"] == pytest.approx(0.4)
    assert means["seen"]["trained"]["eer"] == pytest.approx(0.2)
