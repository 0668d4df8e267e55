"""Arrays in .npz files."""

import io

import numpy as np
import pytest

from metricjax import data
from tests.data.conftest import damaged, whole_or_refused


def load(tmp_path, **arrays):
    path = tmp_path / "set.npz"
    np.savez_compressed(path, **arrays)
    return data.load(f"npz:{path}")


def test_images_labels_and_names_come_back(tmp_path, few):
    images, labels = few
    found = load(tmp_path, images=images, labels=labels, names=list("abcdefghij"))
    np.testing.assert_array_equal(found.images, images[..., None])
    np.testing.assert_array_equal(found.labels, labels)
    assert found.names == tuple("abcdefghij")


def test_labels_without_names_are_numbered_in_sorted_order(tmp_path, few):
    images, _ = few
    found = load(tmp_path, images=images[:3], labels=[1003, 7, 1003])
    assert found.labels.tolist() == [1, 0, 1]
    assert found.names == ("7", "1003")
    found = load(tmp_path, images=images[:3], labels=["mia", "bob", "mia"])
    assert found.labels.tolist() == [1, 0, 1]
    assert found.names == ("bob", "mia")


def test_images_by_class_and_example_need_no_labels(tmp_path, few):
    images, labels = few
    found = load(tmp_path, images=images.reshape(10, 2, 28, 28))
    np.testing.assert_array_equal(found.images[..., 0], images)
    np.testing.assert_array_equal(found.labels, labels)
    colour = np.repeat(images.reshape(10, 2, 28, 28)[..., None], 3, axis=-1)
    assert load(tmp_path, images=colour).images.shape == (20, 28, 28, 3)


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"x": [1]}, r"got \['x'\]"),
        ({"images": np.zeros((2, 4, 4), np.uint8)}, "Expected `labels`"),
        ({"images": np.zeros((2, 4, 4)), "labels": [0, 1]}, "uint8"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": [0]}, "one label for"),
        (
            {"images": np.zeros((2, 4, 4), np.uint8), "labels": np.eye(2, dtype=int)},
            "one-hot",
        ),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": [0.0, 1.0]}, "float64"),
        ({"images": np.zeros((2, 4, 4, 2), np.uint8), "labels": [0, 1]}, "channels"),
        ({"images": np.zeros((0, 4, 4), np.uint8), "labels": np.arange(0)}, "shape"),
        (
            {"images": np.zeros((2, 4, 4), np.uint8), "labels": [0, 1], "names": ["a"]},
            r"\[0, 1\)",
        ),
        (
            {
                "images": np.zeros((2, 4, 4), np.uint8),
                "labels": [-1, 0],
                "names": ["a"],
            },
            "from -1 to 0",
        ),
        (
            {"images": np.zeros((1, 4, 4), np.uint8), "labels": np.array([None])},
            "pickle",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays, match):
    with pytest.raises(ValueError, match=match) as caught:
        load(tmp_path, **arrays)
    assert str(tmp_path / "set.npz") in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.npz"):
        data.load(f"npz:{tmp_path}/none.npz")


def test_a_file_with_one_bare_array_is_refused(tmp_path, few):
    path = tmp_path / "set.npy"
    np.save(path, few[0])
    with pytest.raises(ValueError, match="plain arrays"):
        data.load(f"npz:{path}")


def test_random_damage_is_always_reported_as_damage(tmp_path, few):
    images, labels = few
    buffer, path = io.BytesIO(), tmp_path / "set.npz"
    np.savez_compressed(buffer, images=images, labels=labels)
    for content in [b"", *damaged(buffer.getvalue(), 120, seed=0)]:
        path.write_bytes(content)
        assert whole_or_refused(lambda p: data.load(f"npz:{p}").images, path)
