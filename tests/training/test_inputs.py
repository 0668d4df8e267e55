"""Batches that are read ahead of time, of images that are not in memory."""

import sys
import threading

import jax
import numpy as np
import pytest

from metricjax import data
from metricjax.data import deferred, image_files
from metricjax.training import inputs, parallel, recipes, splits
from metricjax.training.settings import Settings
from metricjax.training.splits import Examples

Image = pytest.importorskip("PIL.Image")
PATIENCE = 30.0


class Watched:
    """A draw that notes what it was asked for, and lets others wait for a step."""

    def __init__(self, *, fails=()):
        self.steps, self.threads = [], set()
        self._fails, self._changed = fails, threading.Condition()

    def __call__(self, t):
        with self._changed:
            self.steps.append(t)
            self.threads.add(threading.current_thread())
            self._changed.notify_all()
        if t in self._fails:
            raise OSError(f"Expected image {t}.png, got nothing.")
        return np.full(3, t), {"step": t}

    def wait_for(self, t):
        with self._changed:
            assert self._changed.wait_for(lambda: t in self.steps, PATIENCE)


def test_two_steps_are_made_ahead_in_a_thread_and_no_more():
    watched = Watched()
    draw = inputs.ahead(watched, steps=7)
    draw(0)
    assert watched.steps == [0], "a single step needs no thread"
    assert watched.threads == {threading.current_thread()}
    for t in range(1, 7):
        assert draw(t)[1] == {"step": t}
        last = min(t + 2, 6)
        watched.wait_for(last)
        assert watched.steps == list(range(last + 1))
    assert len(watched.threads) == 2


@pytest.mark.parametrize("order", [[4, 5, 6, 7], [0, 1, 2, 0, 1, 5, 6, 6, 3], [9, 10]])
def test_any_step_may_be_asked_for_at_any_time(order):
    watched = Watched()
    draw = inputs.ahead(watched, steps=8)
    for t in order:
        values, tree = draw(t)
        assert values.tolist() == [t] * 3
        assert tree == {"step": t}


def test_an_error_is_raised_where_its_batch_is_asked_for():
    watched = Watched(fails=(3,))
    draw = inputs.ahead(watched)
    for t in range(3):
        draw(t)
    watched.wait_for(3)
    for _ in range(2):
        with pytest.raises(OSError, match=r"Expected image 3\.png"):
            draw(3)
    assert [draw(t)[1]["step"] for t in (4, 5)] == [4, 5]


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    draw = inputs.ahead(Watched())
    draw(0)
    with pytest.raises(ImportError, match="Expected the package grain"):
        draw(1)


# --- images of files ------------------------------------------------------------------


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Ten identities of six real digits, as files."""
    digits = data.load("digits")
    root = tmp_path_factory.mktemp("people")
    for digit in range(10):
        folder = root / f"d{digit}"
        folder.mkdir()
        for i, row in enumerate(np.flatnonzero(digits.labels == digit)[:6]):
            Image.fromarray(digits.images[row, ..., 0]).save(folder / f"{i}.png")
    return root


def examples_of(people, *, stream):
    dataset = data.load(f"folder:{people}", stream=stream)
    extra = {"alphabet": dataset.labels // 5}
    dataset = dataset._replace(extra=extra)
    return splits._leave(dataset, np.arange(60) % 7 > 0)


TINY = {
    "siamese": {"pairs": 8, "groups": "alphabet"},
    "omniglot": {"data": "digits", "batch": 9},
    "omniglot_koch": {"data": "digits", "batch_classes": 3, "batch_examples": 3},
    "supcon": {"batch_classes": 5, "batch_examples": 6, "memory": 64},
    "arcface": {"batch": 50},
}


@pytest.mark.parametrize("recipe", sorted(TINY))
def test_a_recipe_draws_the_same_from_files_as_from_memory(people, recipe):
    module = recipes.load(recipe)
    settings = module.Settings(encoder="mlp", width=1, dim=4, **TINY[recipe])
    problem = module.build(settings, (28, 28, 1), 10)
    streamed, held = (examples_of(people, stream=s) for s in (True, False))
    assert isinstance(streamed.images, deferred.Rows)
    assert isinstance(held.images, np.ndarray)
    draws = [problem.batches(examples, 3) for examples in (streamed, held)]
    for t in (0, 1, 2, 3, 7, 8):
        first, second = (draw(t) for draw in draws)
        assert type(first[0]) is np.ndarray
        jax.tree.map(np.testing.assert_array_equal, first, second)


def test_images_in_memory_are_drawn_as_ever(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    examples = Examples(np.zeros((6, 8, 8, 1), np.uint8), np.arange(6) % 3)

    def draw(t):
        return t

    def batches(given, seed):
        assert given is examples
        assert seed == 5
        return draw

    assert inputs.streamed(batches)(examples, 5) is draw


def test_each_process_decodes_its_own_rows_and_the_devices_get_the_batch(
    people, monkeypatch
):
    examples, seen = examples_of(people, stream=True), []
    open_in_thread = image_files.open_in_thread
    plain = inputs.shuffled_batches(Settings(symmetries=1), batch=16)
    expected = [plain(examples_of(people, stream=False), 0)(t) for t in range(3)]

    def watched(path):
        seen.append(path)
        return open_in_thread(path)

    monkeypatch.setattr(image_files, "open_in_thread", watched)
    decoded = []
    for process in range(2):
        own = slice(8 * process, 8 * process + 8)
        batches = inputs.streamed(plain, steps=3, rows=lambda count, own=own: own)
        draw = batches(examples, 0)
        for t in range(3):
            images, labels = draw(t)
            np.testing.assert_array_equal(labels, expected[t][1])
            assert (images.shape, images.dtype) == ((16, 28, 28, 1), np.uint8)
            count = len(seen)
            np.testing.assert_array_equal(images[own], expected[t][0][own])
            if t == 2:
                assert len(seen) == count, "they were read when they were drawn"
        decoded.append(set(seen[-8:]))
        del seen[:]
    assert len(decoded[0]) == len(decoded[1]) == 8
    assert not decoded[0] & decoded[1]
    # What is asked for beyond them is right too.
    placed = parallel.place((images, labels), parallel.make_mesh(4))
    np.testing.assert_array_equal(placed[0], expected[2][0])
    np.testing.assert_array_equal(np.asarray(images), expected[2][0])


@pytest.mark.parametrize(("processes", "count"), [(1, 6), (4, 16), (3, 8)])
def test_the_rows_of_all_processes_are_disjoint_and_the_whole(
    monkeypatch, processes, count
):
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    rows = []
    for index in range(processes):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        rows += range(count)[inputs.own_rows(count)]
    assert rows == list(range(count))


def test_many_processes_get_what_stands_for_the_batch(people, monkeypatch):
    examples = examples_of(people, stream=True)
    batches = inputs.streamed(inputs.shuffled_batches(Settings(), batch=6))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    images, _ = batches(examples, 0)(0)
    assert isinstance(images, deferred.Part)
    assert images.shape == (6, 28, 28, 1)


def test_a_file_that_is_spoilt_during_training_is_named(people, tmp_path):
    folder = tmp_path / "people"
    for place in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes((people / "d3" / "1.png").read_bytes())
    examples = splits.take(data.load(f"folder:{folder}"), np.arange(4))
    streamed = data.load(f"folder:{folder}", stream=True)
    given = splits._leave(streamed, np.arange(4))
    np.testing.assert_array_equal(given.images, examples.images)
    settings = Settings(symmetries=1)
    batches = inputs.streamed(inputs.shuffled_batches(settings, batch=4))
    draw = batches(given, 0)
    for t in range(2):
        draw(t)
    (folder / "b" / "1.png").write_bytes(b"")
    with pytest.raises(OSError, match=r"b/1\.png"):
        [draw(t) for t in range(2, 8)]
