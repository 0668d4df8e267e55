"""Raw idx files: layouts, both compressions, and every way to be damaged."""

import gzip

import numpy as np
import pytest

from metricjax import data
from metricjax.data import idx
from tests.data.conftest import damaged, whole_or_refused

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx_bytes(array):
    lengths = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + lengths + array.astype(np.uint8).tobytes()


def write(folder, images, labels, *, packed=True):
    folder.mkdir(exist_ok=True)
    for name, array in ((IMAGES, images), (LABELS, labels)):
        content = idx_bytes(array)
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(content) if packed else content)
    return folder


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("place", ["mnist", "."])
def test_files_are_found_in_both_layouts_gzipped_or_not(tmp_path, few, place, packed):
    images, labels = few
    write(tmp_path / place, images, labels, packed=packed)
    found = data.load("mnist", data_dir=tmp_path)
    np.testing.assert_array_equal(found.images[..., 0], images)
    np.testing.assert_array_equal(found.labels, labels)
    assert found.labels.dtype == np.int32
    assert found.names == tuple("0123456789")


def test_the_environment_variable_is_the_default_folder(tmp_path, few, monkeypatch):
    write(tmp_path / "fashion_mnist", *few)
    monkeypatch.setenv("METRICJAX_DATA_DIR", str(tmp_path))
    assert data.load("fashion_mnist").names[9] == "Ankle boot"


def test_the_own_folder_of_a_set_goes_before_the_common_one(tmp_path, few):
    images, labels = few
    write(tmp_path, images, labels)
    write(tmp_path / "mnist", images[:5], labels[:5])
    assert len(data.load("mnist", data_dir=tmp_path).labels) == 5


def test_the_files_of_the_other_set_are_refused(tmp_path, few):
    images, _ = few
    fashion_labels = np.array([9, 0, 0, 3, 0, 2, 7, 2])
    write(tmp_path, images[:8], fashion_labels)
    assert data.load("fashion_mnist", data_dir=tmp_path).names[0] == "T-shirt/top"
    with pytest.raises(ValueError, match="Expected mnist .* got fashion_mnist"):
        data.load("mnist", data_dir=tmp_path)


def test_missing_labels_are_named(tmp_path, few):
    write(tmp_path, *few)
    (tmp_path / f"{LABELS}.gz").unlink()
    with pytest.raises(FileNotFoundError, match=LABELS):
        data.load("mnist", data_dir=tmp_path)


def test_another_number_of_labels_is_refused(tmp_path, few):
    images, labels = few
    write(tmp_path, images, labels[:-1])
    with pytest.raises(ValueError, match=f"one label for each of the 20.*{LABELS}"):
        data.load("mnist", data_dir=tmp_path)


def test_labels_out_of_range_are_refused(tmp_path, few):
    images, labels = few
    write(tmp_path, images, labels + 1)
    with pytest.raises(ValueError, match=r"\[0, 10\).*from 1 to 10"):
        data.load("mnist", data_dir=tmp_path)


def test_a_set_without_images_is_refused(tmp_path, few):
    images, labels = few
    write(tmp_path, images[:0], labels[:0])
    with pytest.raises(ValueError, match=IMAGES):
        data.load("mnist", data_dir=tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0",
        bytes([0, 0, 8, 1]),
        bytes([0, 0, 8, 1, 0, 0]),
        bytes([0, 0, 8, 1, 0, 0, 0, 2, 7]),
        bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 7, 7]),
        bytes([0, 0, 9, 1, 0, 0, 0, 1, 7]),
        bytes([0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 1, 7]),
        b"<html>404</html>",
    ],
)
def test_a_file_that_is_not_idx_of_this_kind_is_named(tmp_path, content):
    plain, packed = tmp_path / "labels", tmp_path / "labels.gz"
    plain.write_bytes(content)
    packed.write_bytes(gzip.compress(content))
    for path in (plain, packed):
        with pytest.raises(ValueError, match=str(path)):
            idx.read(path, axes=1)


# Without a time stamp, which would get into the names of the tests.
@pytest.mark.parametrize(
    "content", [b"", b"plain text", gzip.compress(b"12", mtime=0)[:-9]]
)
def test_a_damaged_gzip_file_is_named(tmp_path, content):
    path = tmp_path / "labels.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=str(path)):
        idx.read(path, axes=1)


def test_random_damage_is_always_reported_as_damage(tmp_path, few):
    images, _ = few
    path = tmp_path / "images.gz"
    for content in damaged(gzip.compress(idx_bytes(images)), 60, seed=0):
        path.write_bytes(content)
        assert whole_or_refused(lambda p: idx.read(p, axes=3), path)


def test_an_unknown_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match="split train or test"):
        data.load("mnist", data_dir=tmp_path, split="validation")
