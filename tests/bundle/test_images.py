import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from metricjax import bundle

SHAPE = (28, 28, 1)


def test_images_are_read_at_the_size_and_in_the_colours_of_the_encoder(
    tmp_path, digits, picture
):
    grey = picture(tmp_path / "a.png", digits[3, 0])
    np.testing.assert_array_equal(bundle.read_image(grey, SHAPE)[..., 0], digits[3, 0])
    small = bundle.read_image(grey, (14, 7, 3))
    assert small.shape == (14, 7, 3)
    np.testing.assert_array_equal(small[..., 0], small[..., 2])
    colour = np.stack([digits[i, 0] for i in range(3)], axis=-1)
    path = picture(tmp_path / "b.bmp", colour)
    expected = np.asarray(Image.fromarray(colour).convert("L"))
    np.testing.assert_array_equal(bundle.read_image(path, SHAPE)[..., 0], expected)
    np.testing.assert_array_equal(bundle.read_image(path, (28, 28, 3)), colour)


def test_content_and_not_suffix_tells_what_a_file_is(tmp_path, digits, picture):
    path = picture(tmp_path / "a.png", digits[0, 0]).rename(tmp_path / "a.jpg")
    assert bundle.read_image(path, SHAPE).shape == SHAPE
    path.rename(tmp_path / "a.dat")
    assert bundle.read_image(tmp_path / "a.dat", SHAPE).shape == SHAPE
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match=r"image file in .*text\.png"):
        bundle.read_image(tmp_path / "text.png", SHAPE)


def test_identities_come_in_order_with_their_files(folder):
    (folder / "d0" / "notes.txt").write_text("x")
    (folder / "d0" / ".hidden.png").write_text("x")
    (folder / ".git").mkdir()
    (folder / "d1" / "deeper").mkdir()
    (folder / "d1" / "5.png").rename(folder / "d1" / "deeper" / "5.PNG")
    found = bundle.find_identities(folder)
    assert found.names == tuple(f"d{i // 6}" for i in range(30))
    assert [path.name for path in found.paths[:6]] == [f"{i}.png" for i in range(6)]
    assert found.paths[11] == folder / "d1" / "deeper" / "5.PNG"
    assert found.problems == ()
    assert [path.name for path in found.ignored] == ["notes.txt"]
    every = bundle.find_images(folder)
    assert every.paths == found.paths
    assert set(every.names) == {""}


def test_what_cannot_be_used_is_a_problem_in_one_sentence(folder, tmp_path, ready):
    (tmp_path / "secret.png").write_bytes((folder / "d0" / "0.png").read_bytes())
    (folder / "d0" / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "d0" / "inner.png").symlink_to(folder / "d0" / "1.png")
    (folder / "d1" / "loop").symlink_to(folder)
    (folder / "friend").symlink_to(tmp_path)
    (folder / "nowhere.png").symlink_to(folder / "gone")
    (folder / "empty").mkdir()
    (folder / "loose.png").write_bytes(b"")
    (folder / "d2" / "broken.png").symlink_to(folder / "gone.png")
    (folder / "d3" / "zero.png").write_bytes(b"")
    (folder / "d3" / "cut.png").write_bytes((folder / "d3" / "0.png").read_bytes()[:90])
    os.mkfifo(folder / "d4" / "pipe.png")
    (folder / "d4" / "folder.png").mkdir()
    found = bundle.embed_files(ready, bundle.find_identities(folder))
    expected = [
        "d0/link.png is a link that leads out of",
        "d1/loop is a link to a folder",
        "empty has no image",
        "friend is a link to a folder",
        "loose.png lies beside the folders",
        "d2/broken.png cannot be opened: No such file",
        "d3/cut.png",
        "d3/zero.png",
        "d4/pipe.png, got no regular file",
    ]
    assert len(found.problems) == len(expected)
    for part in expected:
        assert sum(f"{folder}/{part}" in problem for problem in found.problems) == 1, (
            part
        )
    assert len(found.paths) == 31  # all the good ones, and the link inside
    assert found.names.count("d0") == 7


def test_links_are_followed_where_the_folder_itself_is_one(folder, tmp_path):
    (tmp_path / "alias").symlink_to(folder)
    (folder / "d0" / "inner.png").symlink_to(folder / "d0" / "1.png")
    found = bundle.find_identities(tmp_path / "alias")
    assert len(found.paths) == 31
    assert found.problems == ()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_a_problem(folder, ready):
    (folder / "d0" / "0.png").chmod(0)
    (folder / "d1").chmod(0)
    try:
        found = bundle.embed_files(ready, bundle.find_identities(folder))
    finally:
        (folder / "d1").chmod(0o700)
    assert len(found.problems) == 2
    assert all("Permission denied" in problem for problem in found.problems)
    assert len(found.paths) == 23


def bomb(width, height):
    """A PNG of a few hundred bytes that claims to be of this size."""

    def chunk(kind, content):
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100_000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [10_000, 40_000])
def test_a_small_file_that_unpacks_to_something_gigantic_is_refused(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(side, side))
    assert path.stat().st_size < 1000
    with pytest.raises(ValueError, match=rf"{path}.*pixels"):
        bundle.read_image(path, SHAPE)


def test_embeddings_that_are_nan_or_zero_are_problems_of_their_files(folder, ready):
    def apply(params, state, images, *, train, key=None):
        embeddings, state = ready.apply(params, state, images, train=train)
        bright = images[:, 14, 14, 0] > 128
        return np.nan * embeddings * bright[:, None] + embeddings, state

    odd = ready._replace(apply=lambda *args, **kw: apply(*args, **kw))
    zeros = ready._replace(
        apply=lambda p, s, x, **kw: (0 * ready.apply(p, s, x, **kw)[0], s)
    )
    files = bundle.find_identities(folder)
    found = bundle.embed_files(odd, files)
    assert 0 < len(found.problems) == 30 - len(found.paths)
    assert np.isfinite(found.embeddings).all()
    assert "has an embedding of NaN or zeros" in found.problems[0]
    assert len(bundle.embed_files(zeros, files).problems) == 30


def test_files_are_embedded_batch_by_batch(folder, ready, monkeypatch):
    monkeypatch.setattr("metricjax.bundle._images.BATCH", 7)
    sizes, done = [], []
    embed = bundle.embedder(ready)

    def counted(images):
        sizes.append(len(images))
        return embed(images)

    files = bundle.find_identities(folder)
    found = bundle.embed_files(ready, files, embed=counted, advance=done.append)
    assert sizes == [0, 7, 7, 7, 7, 2]
    assert done == [7, 7, 7, 7, 2]
    whole = np.stack([bundle.read_image(path, SHAPE) for path in files.paths])
    np.testing.assert_allclose(found.embeddings, embed(whole), atol=1e-6)


def test_folders_without_what_is_wanted_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="got no such folder"):
        bundle.find_identities(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="got 0 images and no sub-folder"):
        bundle.find_identities(tmp_path)
    with pytest.raises(ValueError, match="Expected images in"):
        bundle.find_images(tmp_path)
