"""Image files decoded into one array, in memory or on disk."""

import os
from typing import Any

import numpy as np
import pytest

from metricjax import data
from metricjax.data import folders, image_files, inspection, pixels

Image = pytest.importorskip("PIL.Image")


def decode(root, cache=None, **options) -> Any:
    """In memory without a cache, else on disk."""
    room = None if cache is None else 0
    paths = image_files.find_identities(root).paths
    return pixels.decode(paths, room=room, cache=cache, **options)


def same(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    return True


@pytest.mark.parametrize("size", [None, (14, 10)])
def test_a_file_on_disk_holds_what_memory_would(people, tmp_path, few, size):
    (people / "p3" / "bad.png").write_bytes(b"")
    plain = decode(people, size=size)
    assert not isinstance(plain.images, np.memmap)
    cache = tmp_path / "cache"
    done = []
    first = decode(people, cache, size=size, advance=done.append)
    assert sum(done) == 21
    assert isinstance(first.images, np.memmap)
    assert same(first, plain)
    if size is None:
        np.testing.assert_array_equal(first.images[..., 0], few[0])
    again = decode(people, cache, size=size, advance=done.append)
    assert sum(done) == 21, "reopened, not decoded again"
    assert same(again, plain)
    assert "bad.png" in again.problems[0]
    with pytest.raises(ValueError, match="read-only"):
        again.images[0] = 0


def test_a_changed_renamed_or_added_file_is_read_anew(people, tmp_path, few):
    cache = tmp_path / "cache"
    decode(people, cache)
    path = people / "p0" / "00.png"
    before = path.stat()
    Image.fromarray(few[0][9]).save(path)
    found = decode(people, cache).images
    np.testing.assert_array_equal(found[0, ..., 0], few[0][9])
    # The same size at another time is another file too.
    Image.fromarray(few[0][0]).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 7))
    np.testing.assert_array_equal(decode(people, cache).images[0, ..., 0], few[0][0])
    path.rename(people / "p0" / "99.png")
    np.testing.assert_array_equal(decode(people, cache).images[3, ..., 0], few[0][0])
    assert decode(people, cache, size=(7, 7)).images.shape == (20, 7, 7, 1)


def test_what_was_broken_off_leaves_nothing(people, tmp_path):
    cache, seen = tmp_path / "cache", []

    def stop(count):
        seen.append(count)
        if len(seen) == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode(people, cache, advance=stop)
    assert list(cache.iterdir()) == []
    assert len(decode(people, cache).rows) == 20
    assert len(list(cache.iterdir())) == 1


def test_images_of_several_sizes_are_told_and_not_kept(people, tmp_path, few):
    Image.fromarray(few[0][0][:14]).save(people / "p2" / "x.png")
    for cache in (None, tmp_path / "cache"):
        found = decode(people, cache)
        assert found.images is None
        assert found.sizes[:, 0].tolist().count(14) == 1
    assert list((tmp_path / "cache").iterdir()) == []
    files = image_files.find_identities(people)
    with pytest.raises(ValueError, match=r"28, 28\] in .*14, 28\] in .*x\.png; give a"):
        folders.assembled(files, found, people)


def test_large_sets_go_to_disk_by_themselves(people, tmp_path, monkeypatch):
    plain = data.load(f"folder:{people}")
    monkeypatch.setattr(pixels, "memory_room", lambda: 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    found = data.load(f"folder:{people}")
    assert isinstance(found.images, np.memmap)
    np.testing.assert_array_equal(found.images, plain.images)
    np.testing.assert_array_equal(found.labels, plain.labels)
    assert len(list((tmp_path / "home/metricjax/images").iterdir())) == 1


def test_room_is_a_share_of_the_free_memory():
    assert 0 < pixels.memory_room() <= 256 * 2**20


def inspected(root):
    files = image_files.find_identities(root)
    return inspection.inspect(files, pixels.decode(files.paths))


def test_the_report_counts_what_is_there(people, few):
    (people / "p1" / "notes.txt").write_text("x")
    (people / "p1" / "cut.png").write_bytes((people / "p1/04.png").read_bytes()[:60])
    (people / "p9").mkdir()
    Image.fromarray(np.stack([few[0][0]] * 3, axis=-1)[:20]).save(people / "p9/c.png")
    found = inspected(people)
    assert found.names == ("p0", "p1", "p2", "p3", "p4", "p9")
    assert found.counts == (4, 4, 4, 4, 4, 1)
    assert found.alone == ("p9",)
    assert len(found.problems) == 1
    assert "cut.png" in found.problems[0]
    assert [path.name for path in found.ignored] == ["notes.txt"]
    assert found.sizes == (((28, 28), 20), ((20, 28), 1))
    assert found.grey == 20
    assert found.batch == (2, 4)
    assert found.repeated == found.shared == ()


def test_equal_pictures_are_found_whatever_their_format_and_identity(people, few):
    Image.fromarray(few[0][0]).save(people / "p0" / "copy.bmp")
    Image.fromarray(few[0][5]).save(people / "p4" / "other.pgm")
    # Equal once shrunk to one size, but not the same picture.
    Image.fromarray(few[0][9][::-1]).save(people / "p2" / "turned.png")
    found = inspected(people)
    assert [[path.name for path in group] for group in found.repeated] == [
        ["00.png", "copy.bmp"]
    ]
    assert [[path.name for path in group] for group in found.shared] == [
        ["05.png", "other.pgm"]
    ]
    rows = dict(inspection.described(found))
    assert "p1/05.png = " in rows["same picture of two identities"]


def test_names_that_steer_a_terminal_or_no_encoding_holds_are_written_out(people):
    (people / "p0").rename(people / "evil\x1b[2J")
    for path in sorted((people / "evil\x1b[2J").iterdir())[1:]:
        path.unlink()
    (people / "p1").rename(os.fsdecode(os.fsencode(people) + b"/\xff\xfe"))
    (people / "p2").rename(people / ("Ж" * 100))
    text = str(inspection.described(inspected(people)))
    assert "\x1b" not in text
    text.encode()


@pytest.mark.parametrize(
    ("counts", "batch"),
    [([10] * 40, (20, 5)), ([2, 2], (2, 2)), ([1, 1], None), ([3] * 1000, (42, 3))],
)
def test_batches_suggested_fit_the_data(counts, batch):
    assert inspection._suggested([count for count in counts if count > 1]) == batch
