import dataclasses
from typing import Any

import numpy as np
import pytest

from metricjax import data
from metricjax.training import splits
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


def split(dataset, settings, index=0, own_test=None):
    """A split whose optional parts a test may read; None raises there."""
    found: Any = splits.split(dataset, settings, index, own_test)
    return found


def test_splits_test_on_classes_from_the_end_and_never_train_on_them(dataset):
    expected = [
        {7: "h", 8: "i", 9: "j"},
        {4: "e", 5: "f", 6: "g"},
        {1: "b", 2: "c", 3: "d"},
    ]
    for index, names in enumerate(expected):
        part = split(dataset, Settings(), index)
        assert part.names == names
        assert len(part.trained_on) == 7
        assert set(part.unseen.labels.tolist()) == set(names)
        unseen = {i for i in range(120) if i // 12 in names}
        assert numbers(part.unseen) == unseen
        assert numbers(part.train) | numbers(part.seen) == set(range(120)) - unseen
        assert not numbers(part.train) & numbers(part.seen)


def test_training_labels_count_from_zero_and_keep_their_images(dataset):
    part = split(dataset, Settings(), 1)
    classes = [0, 1, 2, 3, 7, 8, 9]
    for examples in (part.train, part.seen):
        assert examples.labels.dtype == np.int32
        found = [classes[label] for label in examples.labels]
        assert found == (examples.images[:, 0, 0, 0] // 12).tolist()
    assert np.bincount(part.seen.labels).tolist() == [2] * 7
    assert np.bincount(part.train.labels).tolist() == [10] * 7


def test_validation_classes_come_out_of_the_training_classes(dataset):
    whole = split(dataset, Settings(), 0)
    part = split(dataset, Settings(validation_classes=2), 0)
    assert len(part.trained_on) == 5
    assert len(part.names) == 2
    assert numbers(part.unseen) <= numbers(whole.train) | numbers(whole.seen)
    everything = numbers(part.train) | numbers(part.seen) | numbers(part.unseen)
    assert everything == numbers(whole.train) | numbers(whole.seen)
    assert not everything & numbers(whole.unseen)


def test_of_many_classes_whole_ones_are_evaluated(dataset):
    part = split(dataset, Settings(test_classes=6, splits=1, evaluated_images=20), 0)
    # One of each 3.6 images would leave classes with hardly a pair.
    assert numbers(part.seen) | numbers(part.train) == set(range(48))
    assert np.bincount(part.unseen.labels).tolist() == [0, 0, 0, 0, 12, 0, 0, 0, 0, 12]


def test_large_sets_are_evaluated_in_part(dataset):
    part = split(dataset, Settings(evaluated_images=28), 0)
    assert len(part.unseen.labels) == 28
    assert len(part.seen.labels) == 14
    assert set(part.unseen.labels.tolist()) == {7, 8, 9}


@pytest.mark.parametrize("changes", [{"test_classes": 9}, {"validation_classes": 6}])
def test_too_few_classes_are_refused(dataset, changes):
    settings = Settings(**changes)
    with pytest.raises(ValueError, match="got 10 classes in all; lower"):
        split(dataset, settings, settings.splits - 1)


def test_splits_draw_their_own_classes_where_there_are_too_few(dataset):
    settings = Settings(splits=8)
    found = [split(dataset, settings, index) for index in range(8)]
    assert all(len(part.names) == 3 for part in found)
    assert len({tuple(part.names) for part in found}) > 4
    for part in found:
        assert not numbers(part.train) & numbers(part.unseen)


def test_calibration_classes_neither_train_nor_test(dataset):
    whole = split(dataset, Settings(), 0)
    part = split(dataset, Settings(calibration_classes=2, far=0.1), 0)
    assert part.names == whole.names
    assert len(part.trained_on) == 5
    sets = (part.train, part.seen, part.unseen, part.calibration)
    found = [numbers(examples) for examples in sets]
    assert len(set.union(*found)) == sum(map(len, found)) == 120
    both = Settings(calibration_classes=2, validation_classes=2, far=0.1)
    tuned = split(dataset, both, 0)
    assert len(numbers(tuned.calibration)) == len(numbers(tuned.unseen)) == 24
    assert not numbers(tuned.unseen) & (numbers(whole.unseen) | numbers(tuned.train))


def test_without_test_classes_the_test_is_on_images_held_out_or_given(dataset):
    settings = Settings(test_classes=0)
    part = split(dataset, settings, 0)
    assert part.unseen is None
    assert part.names == {}
    assert part.tested is part.seen is part.watched
    assert len(part.trained_on) == 10
    other = dataset._replace(images=dataset.images[::5], labels=dataset.labels[::5])
    part = split(dataset, Settings(test_classes=0, held_out=0.0), 0, other)
    assert len(part.train.labels) == 120
    assert numbers(part.tested) == set(range(0, 120, 5))
    # The test is not looked at during training.
    assert part.watched is None


def test_groups_are_left_out_whole(dataset):
    speakers = np.tile(np.arange(6), 20).astype(np.int32)
    dataset = dataset._replace(extra={"speaker": speakers})
    settings = Settings(test_classes=0, groups="speaker", test_groups=2, splits=3)
    for index, test in enumerate(({4, 5}, {2, 3}, {0, 1})):
        part = split(dataset, settings, index)
        assert set(part.seen.extra["speaker"].tolist()) == test
        assert set(part.train.extra["speaker"].tolist()) == set(range(6)) - test
        assert part.watched is None
    tuned = dataclasses.replace(settings, validation_groups=1)
    part = split(dataset, tuned, 0)
    assert set(part.seen.extra["speaker"].tolist()) == {0}
    assert set(part.train.extra["speaker"].tolist()) == {1, 2, 3}
    assert part.watched is part.seen
    with pytest.raises(ValueError, match="got 'nobody'"):
        split(dataset, dataclasses.replace(settings, groups="nobody"), 0)
    with pytest.raises(ValueError, match="lower --test-groups"):
        split(dataset, dataclasses.replace(settings, test_groups=6), 0)


@pytest.mark.parametrize(
    ("splits", "tuning", "expected"),
    [
        (3, 1, [{0}, {1}, {2}]),
        (2, 2, [{0, 1}, {2, 3}]),
        # All would be tested by some split, so that none is left over.
        (6, 1, [{0}, {1}, {2}, {4}, {5}, {1}]),
    ],
)
def test_groups_validate_that_no_split_tests(dataset, splits, tuning, expected):
    speakers = np.tile(np.arange(6), 20).astype(np.int32)
    dataset = dataset._replace(extra={"speaker": speakers})
    settings = Settings(
        test_classes=0,
        groups="speaker",
        test_groups=1,
        validation_groups=tuning,
        splits=splits,
    )
    found = [split(dataset, settings, index) for index in range(splits)]
    assert [set(part.seen.extra["speaker"].tolist()) for part in found] == expected
    for index, part in enumerate(found):
        trained = set(part.train.extra["speaker"].tolist())
        assert trained == set(range(6)) - {5 - index} - expected[index]


@pytest.mark.parametrize(
    ("images", "test_classes", "held"), [(5, 2, 0), (5, 0, 2), (3, 2, 0), (12, 2, 2)]
)
def test_no_image_is_held_out_alone(rng, images, test_classes, held):
    labels = np.repeat(np.arange(6), images).astype(np.int32)
    pixels = rng.integers(0, 256, (6 * images, 2, 2, 1), dtype=np.uint8)
    few = data.Dataset(pixels, labels, tuple("abcdef"))
    settings = Settings(test_classes=test_classes, splits=1)
    part = split(few, settings)
    kept = np.bincount(part.train.labels)
    assert kept.tolist() == [images - held] * (6 - test_classes)
    if held:
        assert np.bincount(part.seen.labels).tolist() == [held] * (6 - test_classes)
    else:
        assert part.seen is None


def test_splits_are_the_same_each_time_and_name_every_part(dataset):
    settings = Settings(calibration_classes=2, far=0.1)
    for index in range(3):
        first, again = (split(dataset, settings, index) for _ in range(2))
        names = [set(first.trained_on), set(first.calibrated_on)]
        names.append(set(first.names.values()))
        assert set.union(*names) == set("abcdefghij")
        assert sum(map(len, names)) == 10
        assert first.calibrated_on == again.calibrated_on
        np.testing.assert_array_equal(first.train.images, again.train.images)
        found = {"abcdefghij"[label] for label in first.calibration.labels}
        assert found == set(first.calibrated_on)


def test_classes_too_few_to_show_a_rate_are_refused_before_training(dataset):
    with pytest.raises(ValueError, match="at least 299 .* got 144 .* or --far 0.03"):
        split(dataset, Settings(calibration_classes=2))
    split(dataset, Settings(calibration_classes=2, far=0.03))


def test_a_split_that_would_be_tested_on_nothing_is_refused(rng):
    labels = np.repeat(np.arange(6), 3).astype(np.int32)
    few = data.Dataset(np.zeros((18, 2, 2, 1), np.uint8), labels, tuple("abcdef"))
    with pytest.raises(ValueError, match="Expected images to test on"):
        split(few, Settings(test_classes=0))
