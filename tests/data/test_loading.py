"""`data.load`: names, folders and sizes."""

import os
import re

import numpy as np
import pytest

from metricjax import data
from metricjax.data import dataset

DATA_DIR = os.environ.get("METRICJAX_DATA_DIR")
needs_files = pytest.mark.skipif(
    not DATA_DIR, reason="METRICJAX_DATA_DIR names no folder of raw files"
)


@pytest.mark.parametrize(
    "name", ["", "mnst", "npz:", "folder:", "tfds:", "csv:", "tsv:x"]
)
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(ValueError, match=r"digits, mnist, .*folder:PATH"):
        data.load(name)


@pytest.mark.parametrize("name", ["mnist", "omniglot"])
def test_missing_files_name_the_folders_and_the_flag(tmp_path, name):
    with pytest.raises(FileNotFoundError) as caught:
        data.load(name, data_dir=tmp_path)
    message = str(caught.value)
    assert f"{tmp_path / name} or {tmp_path}" in message
    assert "--data-dir" in message
    assert "METRICJAX_DATA_DIR" in message
    assert "digits" in message


def test_a_data_folder_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(f"{tmp_path}/none")):
        data.load("mnist", data_dir=tmp_path / "none")


@pytest.mark.parametrize("size", [0, (28,), (0, 28), (1, 2, 3)])
def test_a_bad_size_is_refused(size):
    with pytest.raises(ValueError, match="size"):
        data.load("digits", size=size)


def test_shrinking_by_whole_factors_is_the_mean_of_blocks(digits):
    small = data.load("digits", size=(14, 7)).images[::100, ..., 0]
    blocks = digits.images[::100, ..., 0].astype(np.float64).reshape(-1, 14, 2, 7, 4)
    assert np.abs(small - blocks.mean(axis=(2, 4))).max() <= 0.5


def test_other_sizes_keep_the_mean_and_the_range(digits):
    few = digits.images[::250]
    for size in ((20, 20), (40, 33)):
        out = dataset.resized(few, size)
        assert out.shape == (20, *size, 1)
        assert abs(out.mean() - few.mean()) < 1.0


def test_the_size_that_it_has_changes_nothing(digits):
    assert dataset.resized(digits.images, (28, 28)) is digits.images


def test_colour_images_are_resized_channel_by_channel(digits):
    grey = digits.images[:3]
    colour = np.concatenate([grey, grey[::-1], 255 - grey], axis=-1)
    out = dataset.resized(colour, (9, 9))
    for channel, source in enumerate((grey, grey[::-1], 255 - grey)):
        expected = dataset.resized(source, (9, 9))[..., 0]
        assert np.abs(out[..., channel].astype(int) - expected).max() <= 1


@needs_files
@pytest.mark.parametrize(
    ("name", "split", "shape", "classes", "first_labels", "mean"),
    [
        ("mnist", "train", (60000, 28, 28, 1), 10, [5, 0, 4], 33.318421),
        ("mnist", "test", (10000, 28, 28, 1), 10, [7, 2, 1], 33.791224),
        ("fashion_mnist", "train", (60000, 28, 28, 1), 10, [9, 0, 0], 72.940352),
        ("fashion_mnist", "test", (10000, 28, 28, 1), 10, [9, 2, 1], 73.146567),
        ("omniglot", "train", (19280, 105, 105, 1), 964, [0, 0, 0], 19.87461),
        ("omniglot", "test", (13180, 105, 105, 1), 659, [0, 0, 0], 21.49241),
    ],
)
def test_the_real_files_hold_what_their_authors_say(
    name, split, shape, classes, first_labels, mean
):
    found = data.load(name, data_dir=DATA_DIR, split=split)
    assert found.images.shape == shape
    assert len(found.names) == len(np.unique(found.labels)) == classes
    assert found.labels[:3].tolist() == first_labels
    assert found.images.mean() == pytest.approx(mean, rel=1e-6)


@needs_files
def test_real_omniglot_has_every_character_by_every_drawer():
    found = data.load("omniglot", data_dir=DATA_DIR, split="test", size=15)
    pairs = set(zip(found.labels.tolist(), found.extra["drawer"].tolist(), strict=True))
    assert pairs == {(label, drawer) for label in range(659) for drawer in range(1, 21)}
    assert len(np.unique(found.extra["alphabet"])) == 20


@needs_files
def test_real_faces_load_from_an_array_by_person():
    found = data.load(f"npz:{DATA_DIR}/att_faces/att_orl_faces.npz")
    assert found.images.shape == (400, 112, 92, 1)
    assert np.bincount(found.labels).tolist() == [10] * 40
