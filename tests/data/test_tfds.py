"""Prepared TensorFlow data sets, read without TensorFlow."""

import io
import logging
import os
import sys

import numpy as np
import pytest

from metricjax import data

tfds = pytest.importorskip("tensorflow_datasets")
Image = pytest.importorskip("PIL.Image")


DATA_DIR = os.environ.get("METRICJAX_DATA_DIR")


@pytest.fixture(autouse=True)
def quiet():
    """TensorFlow Datasets logs how it looked for a set."""
    logging.getLogger("absl").setLevel(logging.ERROR)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    buffer.seek(0)
    return buffer


def prepared(tmp_path, examples, *, channels=1, label="label", names=True):
    """Prepare a data set, for real, from images and integers."""
    labels = (
        tfds.features.ClassLabel(names=list("0123456789"))
        if names
        else tfds.features.Scalar(np.int64)
    )
    image = tfds.features.Image(shape=(None, None, channels))

    with tfds.core.registered.skip_registration():

        class FewDigits(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                features = tfds.features.FeaturesDict({"image": image, label: labels})
                return tfds.core.DatasetInfo(builder=self, features=features)

            def _split_generators(self, dl_manager):
                return {"train": self._generate_examples()}

            def _generate_examples(self):
                for i, (pixels, value) in enumerate(examples):
                    yield i, {"image": png(pixels), label: int(value)}

    FewDigits(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    return "tfds:few_digits"


def by_content(images):
    return sorted(image.tobytes() for image in images)


def by_content_and_label(found):
    contents = (image.tobytes() for image in found.images)
    return sorted(zip(contents, found.labels.tolist(), strict=True))


def test_a_prepared_set_comes_back_without_tensorflow(tmp_path, few):
    images, labels = few
    name = prepared(tmp_path, zip(images, labels, strict=True))
    found = data.load(name, data_dir=tmp_path)
    # The order is the shuffled one of the preparation.
    assert by_content(found.images) == by_content(images)
    for image, label in zip(found.images, found.labels, strict=True):
        matches = (images == image[..., 0]).all(axis=(1, 2))
        assert labels[matches].tolist() == [label]
    assert found.names == tuple("0123456789")
    assert len(data.load(name, data_dir=tmp_path, split="train[:3]").labels) == 3
    assert "tensorflow" not in sys.modules


def test_one_bit_images_come_out_as_0_and_255(tmp_path, few):
    images, labels = few
    name = prepared(tmp_path, [(images[0] > 0, labels[0])])
    found = data.load(name, data_dir=tmp_path)
    np.testing.assert_array_equal(
        found.images[0, ..., 0], np.where(images[0] > 0, 255, 0)
    )


def test_labels_without_names_are_their_numbers(tmp_path, few):
    images, _ = few
    name = prepared(tmp_path, zip(images, [2] * 20, strict=True), names=False)
    found = data.load(name, data_dir=tmp_path)
    assert found.labels.tolist() == [2] * 20
    assert found.names == ("0", "1", "2")


def test_images_of_different_sizes_need_a_size(tmp_path, few):
    images, labels = few
    name = prepared(tmp_path, [(images[0], labels[0]), (images[1][:14], labels[1])])
    with pytest.raises(ValueError, match="give a common size"):
        data.load(name, data_dir=tmp_path)
    assert data.load(name, data_dir=tmp_path, size=8).images.shape == (2, 8, 8, 1)


def test_a_set_without_a_label_is_refused(tmp_path, few):
    name = prepared(tmp_path, zip(*few, strict=True), label="digit")
    with pytest.raises(ValueError, match=r"got \['digit', 'image'\]"):
        data.load(name, data_dir=tmp_path)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_without_raw_files_a_prepared_set_is_used(name, split):
    with tfds.testing.mock_data(num_examples=6):
        found = data.load(name, split=split)
    assert found.images.shape == (6, 28, 28, 1)
    assert found.images.dtype == np.uint8
    assert found.labels.dtype == np.int32
    assert found.names[9] == ("9" if name == "mnist" else "Ankle boot")


@pytest.mark.parametrize("split", ["train", "test", "small1", "small2"])
def test_prepared_omniglot_has_characters_as_classes(split):
    with tfds.testing.mock_data(num_examples=9):
        found = data.load("omniglot", split=split, size=35)
    assert found.images.shape == (9, 35, 35, 1)
    assert found.labels.max() + 1 == len(found.names)
    for label, alphabet in zip(found.labels, found.extra["alphabet"], strict=True):
        assert found.names[label].split("/")[0] == str(alphabet)


@pytest.mark.parametrize(
    ("name", "side", "channels", "classes"),
    [
        ("mnist", 28, 1, 10),
        ("fashion_mnist", 28, 1, 10),
        ("kmnist", 28, 1, 10),
        ("emnist", 28, 1, 62),
        ("emnist/letters", 28, 1, 37),
        ("omniglot", 105, 3, 1623),
    ],
)
def test_the_character_sets_can_be_named(name, side, channels, classes):
    with tfds.testing.mock_data(num_examples=4):
        found = data.load(f"tfds:{name}")
    assert found.images.shape == (4, side, side, channels)
    assert len(found.names) == classes


def test_any_set_with_image_and_label_can_be_named():
    with tfds.testing.mock_data(num_examples=5):
        found = data.load("tfds:cifar10")
    assert found.images.shape == (5, 32, 32, 3)
    assert len(found.names) == 10


def test_a_set_that_was_not_prepared_says_how_to():
    with pytest.raises(FileNotFoundError, match=r"array_record.*download_and_prepare"):
        data.load("tfds:mnist")


def test_an_unknown_set_is_refused():
    with pytest.raises(ValueError, match="no_such_set not found"):
        data.load("tfds:no_such_set")


def test_without_the_package_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match="pip install"):
        data.load("tfds:mnist")
    with pytest.raises(FileNotFoundError, match=r"METRICJAX_DATA_DIR.*pip install"):
        data.load("mnist")


@pytest.mark.full
@pytest.mark.skipif(
    not DATA_DIR, reason="METRICJAX_DATA_DIR names no folder of raw files"
)
def test_fashion_mnist_is_prepared_from_local_files_by_its_own_builder(tmp_path):
    pytest.importorskip("tensorflow", reason="TensorFlow prepares, and is missing")
    builder = tfds.builder(
        "fashion_mnist", data_dir=tmp_path, file_format="array_record"
    )
    config = tfds.download.DownloadConfig(manual_dir=f"{DATA_DIR}/fashion_mnist")
    builder.download_and_prepare(download_config=config)
    for split in ("train", "test"):
        found = data.load("fashion_mnist", data_dir=tmp_path, split=split)
        raw = data.load("fashion_mnist", data_dir=DATA_DIR, split=split)
        assert found.names == raw.names
        # The preparation shuffles.
        assert by_content_and_label(found) == by_content_and_label(raw)
