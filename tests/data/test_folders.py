"""Folders of image files, one sub-folder for each identity."""

import io

import numpy as np
import pytest

from metricjax import data
from metricjax.data import image_files
from tests.data.conftest import damaged, whole_or_refused

Image = pytest.importorskip("PIL.Image")


def write(path, pixels, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels)).save(path, **kwargs)


@pytest.mark.parametrize("suffix", ["png", "pgm", "bmp", "PNG"])
def test_identities_and_files_come_in_the_order_of_their_names(tmp_path, few, suffix):
    images, _ = few
    places = ["bob/2", "bob/1", "amy/deeper/1", "zoe/1"]
    for place, image in zip(places, images, strict=False):
        write(tmp_path / f"{place}.{suffix}", image)
    (tmp_path / "bob" / "notes.txt").write_text("not an image")
    (tmp_path / "bob" / ".hidden.png").write_text("not an image")
    (tmp_path / ".git").mkdir()
    found = data.load(f"folder:{tmp_path}")
    assert found.names == ("amy", "bob", "zoe")
    assert found.labels.tolist() == [0, 1, 1, 2]
    np.testing.assert_array_equal(found.images[..., 0], images[[2, 1, 0, 3]])


def test_jpeg_files_come_back_about_as_they_were(tmp_path):
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    write(tmp_path / "a" / "1.jpg", ramp, quality=95)
    write(tmp_path / "a" / "2.jpeg", ramp, quality=95)
    images = data.load(f"folder:{tmp_path}").images[..., 0]
    assert np.abs(images.astype(int) - ramp).max() <= 4


def test_grey_images_become_colour_beside_a_colour_image(tmp_path, few):
    images, _ = few
    colour = np.stack([images[0], images[1], images[2]], axis=-1)
    write(tmp_path / "a" / "1.png", images[0])
    write(tmp_path / "b" / "1.png", colour)
    found = data.load(f"folder:{tmp_path}").images
    np.testing.assert_array_equal(found[0], np.repeat(images[0][..., None], 3, -1))
    np.testing.assert_array_equal(found[1], colour)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright_as_pillow_does(tmp_path, few, orientation):
    ops = pytest.importorskip("PIL.ImageOps")
    image = Image.fromarray(few[0][0][:20])
    exif = image.getexif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    image.save(path, exif=exif)
    with Image.open(path) as file:
        expected = np.asarray(ops.exif_transpose(file))
    np.testing.assert_array_equal(image_files.read(path)[..., 0], expected)
    assert (expected.shape == (28, 20)) == (orientation >= 5)


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3), ("CMYK", 3)],
)
def test_every_mode_becomes_grey_or_colour_bytes(tmp_path, mode, channels):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new("L", (8, 6), 255).convert(mode).save(path)
    pixels = image_files.read(path)
    assert pixels.shape == (6, 8, channels)
    assert pixels.dtype == np.uint8
    assert pixels.min() == 255


def test_sixteen_bit_images_are_scaled_and_not_clipped(tmp_path):
    values = np.array([[0, 256, 32768, 65535]], np.uint16)
    write(tmp_path / "a.png", values)
    assert image_files.read(tmp_path / "a.png")[0, :, 0].tolist() == [0, 1, 128, 255]


def test_a_common_size_joins_images_of_different_sizes(tmp_path, few):
    images, _ = few
    write(tmp_path / "a" / "1.png", images[0])
    write(tmp_path / "a" / "2.png", images[1][:14])
    with pytest.raises(ValueError, match=r"2\.png; give a common size"):
        data.load(f"folder:{tmp_path}")
    assert data.load(f"folder:{tmp_path}", size=14).images.shape == (2, 14, 14, 1)
    assert data.load(f"folder:{tmp_path}", size=(7, 9)).images.shape == (2, 7, 9, 1)


def test_a_missing_or_empty_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        data.load(f"folder:{tmp_path}/nowhere")
    with pytest.raises(FileNotFoundError, match=f"sub-folder.*{tmp_path}"):
        data.load(f"folder:{tmp_path}")
    (tmp_path / "bob").mkdir()
    with pytest.raises(ValueError, match=f"{tmp_path}/bob has no image"):
        data.load(f"folder:{tmp_path}")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "PPM"])
def test_random_damage_is_always_reported_as_damage(tmp_path, few, format):
    buffer, path = io.BytesIO(), tmp_path / "a.png"
    Image.fromarray(few[0][0]).save(buffer, format)
    for content in [b"", *damaged(buffer.getvalue(), 60, seed=0)]:
        path.write_bytes(content)
        assert whole_or_refused(lambda p: image_files.read(p, size=(8, 8)), path)


def test_an_image_that_claims_to_be_gigantic_is_refused(tmp_path, few):
    path = tmp_path / "a.bmp"
    write(path, few[0][0])
    content = bytearray(path.read_bytes())
    content[18:26] = (60_000).to_bytes(4, "little") * 2
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=f"{path}.*pixels"):
        image_files.read(path)
