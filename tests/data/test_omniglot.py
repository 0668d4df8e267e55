"""The Omniglot zips."""

import io
import zipfile

import numpy as np
import pytest

from metricjax import data
from metricjax.data import omniglot
from tests.data.conftest import damaged, whole_or_refused

Image = pytest.importorskip("PIL.Image")

# Alphabet, character, drawer; stored in another order than the sorted one.
MEMBERS = [
    ("Greek", 2, 1),
    ("Greek", 1, 2),
    ("Greek", 1, 1),
    ("Angelic", 7, 2),
    ("Angelic", 7, 1),
]


def drawing(seed):
    """Ink is False on a page of True, as in the files."""
    return np.random.default_rng(seed).random((105, 105)) > 0.1


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def zip_bytes(drawings, *, top="images_background"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(f"{top}/readme.txt", "not an image")
        for (alphabet, character, drawer), pixels in drawings:
            name = f"{top}/{alphabet}/character{character:02d}/0001_{drawer:02d}.png"
            file.writestr(name, png(pixels))
    return buffer.getvalue()


@pytest.fixture
def drawings():
    return [(member, drawing(seed)) for seed, member in enumerate(MEMBERS)]


@pytest.mark.parametrize("place", ["omniglot", "."])
def test_characters_are_classes_and_ink_is_bright(tmp_path, drawings, place):
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "images_background.zip").write_bytes(zip_bytes(drawings))
    found = data.load("omniglot", data_dir=tmp_path)
    assert found.names == (
        "Angelic/character07",
        "Greek/character01",
        "Greek/character02",
    )
    assert found.labels.tolist() == [0, 0, 1, 1, 2]
    assert found.extra["alphabet"].tolist() == [0, 0, 1, 1, 1]
    assert found.extra["drawer"].tolist() == [1, 2, 1, 2, 1]
    for image, (_, pixels) in zip(found.images, reversed(drawings), strict=True):
        np.testing.assert_array_equal(image[..., 0], np.where(pixels, 0, 255))


@pytest.mark.parametrize(
    ("split", "name"),
    [
        ("test", "images_evaluation"),
        ("small1", "images_background_small1"),
        ("small2", "images_background_small2"),
    ],
)
def test_each_split_has_its_zip(tmp_path, drawings, split, name):
    (tmp_path / f"{name}.zip").write_bytes(zip_bytes(drawings[:2], top=name))
    assert len(data.load("omniglot", data_dir=tmp_path, split=split).labels) == 2


def test_a_third_of_the_size_is_the_exact_mean_of_blocks(tmp_path, drawings):
    (tmp_path / "images_background.zip").write_bytes(zip_bytes(drawings))
    full = data.load("omniglot", data_dir=tmp_path).images[..., 0]
    small = data.load("omniglot", data_dir=tmp_path, size=35).images[..., 0]
    means = full.astype(np.float64).reshape(-1, 35, 3, 35, 3).mean(axis=(2, 4))
    assert np.abs(small - means).max() <= 0.5


def test_another_size_of_image_is_refused_by_name(tmp_path):
    path = tmp_path / "images_background.zip"
    path.write_bytes(zip_bytes([(MEMBERS[0], drawing(0)[:50])]))
    with pytest.raises(ValueError, match=r"105 x 105 .*Greek/character02/0001_01\.png"):
        data.load("omniglot", data_dir=tmp_path)


def test_a_zip_of_other_things_is_refused(tmp_path):
    path = tmp_path / "images_background.zip"
    path.write_bytes(zip_bytes([]))
    with pytest.raises(ValueError, match=str(path)):
        data.load("omniglot", data_dir=tmp_path)


def test_an_unknown_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match="train, test, small1, small2"):
        data.load("omniglot", data_dir=tmp_path, split="evaluation")


def test_random_damage_is_always_reported_as_damage(tmp_path, drawings):
    path = tmp_path / "images_background.zip"

    def read(path):
        return omniglot.load("omniglot", path, "train").images

    for content in [b"", *damaged(zip_bytes(drawings), 60, seed=0)]:
        path.write_bytes(content)
        assert whole_or_refused(read, path)
