"""Images that are read or decoded when they are indexed."""

import threading

import numpy as np
import pytest

from metricjax import data
from metricjax.data import deferred, image_files, inspection, pixels

Image = pytest.importorskip("PIL.Image")
INDICES = {
    "one": 2,
    "from behind": -1,
    "slice": slice(1, 4),
    "nothing": slice(2, 2),
    "every other": slice(None, None, 2),
    "list": [3, 0],
    "repeated": np.array([4, 4, 0, 4]),
    "table": np.array([[4, 1], [0, 3]]),
    "mask": np.array([True, False] * 2 + [True]),
    "slices": (slice(1, 3), slice(None), slice(2, 9), slice(0, 1)),
    "one pixel": (3, 4, 5),
    "rows of some": (np.array([4, 2]), slice(5, 7)),
}


@pytest.fixture
def paths(people):
    return image_files.find_identities(people).paths


@pytest.fixture
def whole(people):
    return data.load(f"folder:{people}").images


def same(found, expected):
    assert type(found) is type(expected)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


CHOSEN = np.array([7, 3, 19, 0, 12])


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_images_that_are_not_there_are_indexed_as_an_array(
    people, paths, whole, tmp_path, index
):
    kept = pixels.decode(paths, room=0, cache=tmp_path / "cache").images
    streamed = pixels.decode(paths, stream=True).images
    expected = whole[CHOSEN]
    for rows in (deferred.on_disk(kept, CHOSEN), streamed.select(CHOSEN)):
        assert (rows.shape, rows.ndim, rows.dtype) == (expected.shape, 4, np.uint8)
        assert len(rows) == 5
        same(rows[index], expected[index])
        same(np.asarray(rows), expected)
        same(deferred.Part(rows, slice(1, 3))[index], expected[index])
        if isinstance(index, slice | list):
            chosen = deferred.Later(rows)[index]
            same(chosen[::-1], expected[index][::-1])


def test_what_is_out_of_range_or_no_copy_is_refused(paths):
    rows = pixels.decode(paths, stream=True).images
    with pytest.raises(IndexError):
        rows[20]
    with pytest.raises(IndexError):
        rows[np.array([True, False])]
    with pytest.raises(ValueError, match="Expected leave to copy"):
        np.asarray(rows, copy=False)


def test_only_what_is_indexed_is_decoded_and_in_threads(paths, monkeypatch):
    rows = pixels.decode(paths, stream=True).images.select(np.arange(19, -1, -1))
    seen, open_in_thread = [], image_files.open_in_thread

    def watched(path):
        seen.append((path.name, threading.current_thread()))
        return open_in_thread(path)

    monkeypatch.setattr(image_files, "open_in_thread", watched)
    part = deferred.Part(rows, slice(4, 8))
    assert sorted(name for name, _ in seen) == ["12.png", "13.png", "14.png", "15.png"]
    assert threading.main_thread() not in {thread for _, thread in seen}
    del seen[:]
    assert part[5:7].shape == part[5:7, :, :, :].shape == (2, 28, 28, 1)
    assert seen == []
    part[7:9]
    assert sorted(name for name, _ in seen) == ["11.png", "12.png"]
    del seen[:]
    # An image that a batch has three times is decoded once.
    rows[[2, 2, 5, 2]]
    assert sorted(name for name, _ in seen) == ["14.png", "17.png"]


@pytest.mark.parametrize("size", [None, (14, 10)])
def test_streamed_images_are_those_that_memory_would_hold(people, paths, few, size):
    (people / "p3" / "bad.png").write_bytes(b"")
    colour = np.stack([few[0][0], few[0][1], few[0][2]], axis=-1)
    Image.fromarray(colour).save(people / "p4" / "colour.png")
    paths = image_files.find_identities(people).paths
    plain, found = (pixels.decode(paths, size=size, stream=s) for s in (False, True))
    for name in ("rows", "digests", "sizes", "grey"):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name))
    assert found.problems == plain.problems
    assert isinstance(found.images, deferred.Rows)
    assert found.images.shape == plain.images.shape
    assert plain.images.shape[3] == 3
    np.testing.assert_array_equal(found.images[:], plain.images)
    files = image_files.find_identities(people)
    reports = [
        inspection.described(inspection.inspect(files, d)) for d in (plain, found)
    ]
    assert reports[0] == reports[1]


def test_what_was_found_is_kept_for_the_next_time_and_no_pixel(paths, tmp_path):
    cache, done = tmp_path / "cache", []
    options = {"stream": True, "room": 0, "cache": cache, "advance": done.append}
    first = pixels.decode(paths, **options)
    assert sum(done) == 20
    files = [path.name for path in cache.rglob("*") if path.is_file()]
    assert files == ["facts.npz"]
    again = pixels.decode(paths, **options, size=(5, 5))
    assert sum(done) == 20
    np.testing.assert_array_equal(again.digests, first.digests)
    assert again.images.shape == (20, 5, 5, 1)
    # Of the array with pixels it is no part.
    kept = pixels.decode(paths, room=0, cache=cache)
    assert isinstance(kept.images, np.memmap)
    np.testing.assert_array_equal(kept.images, first.images)


def test_images_of_several_sizes_need_a_common_one(people, few):
    Image.fromarray(few[0][0][:14]).save(people / "p2" / "x.png")
    with pytest.raises(ValueError, match=r"28, 28\] in .*14, 28\] in .*x\.png; give a"):
        data.load(f"folder:{people}", stream=True)
    found = data.load(f"folder:{people}", stream=True, size=20).images
    expected = data.load(f"folder:{people}", size=20).images
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("harm", ["gone", "cut", "colour"])
def test_a_file_spoilt_since_then_is_named(people, paths, harm, few):
    rows = pixels.decode(paths, stream=True).images
    if harm == "gone":
        paths[6].unlink()
    elif harm == "cut":
        paths[6].write_bytes(paths[6].read_bytes()[:60])
    else:
        Image.fromarray(np.stack([few[0][0]] * 3, axis=-1)).save(paths[6])
    assert rows[[1, 5, 7]].shape == (3, 28, 28, 1)
    with pytest.raises(OSError, match="06.png.*start the same command again"):
        rows[4:8]


def test_a_list_of_image_files_is_streamed_and_other_data_are_not(people, tmp_path):
    lines = ["path,label", *(f"people/p{i // 4}/{i:02}.png,{i % 2}" for i in range(6))]
    listed = tmp_path / "list.csv"
    listed.write_text("\n".join(lines))
    found, plain = (data.load(f"csv:{listed}", stream=s) for s in (True, False))
    assert isinstance(found.images, deferred.Rows)
    np.testing.assert_array_equal(found.images, plain.images)
    np.testing.assert_array_equal(found.labels, plain.labels)
    listed.write_text("text,label\na,b\nc,d")
    for name in (f"csv:{listed}", "digits"):
        with pytest.raises(ValueError, match="to stream"):
            data.load(name, stream=True)
