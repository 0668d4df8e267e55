import json
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metricjax.training import checkpoints
from metricjax.training import state as states


def example(value=0.0):
    """A state with all that a real one has: moments, a key, lists, integers."""
    params = {
        "encoder": {"layers": {0: {"kernel": jnp.full((3, 2), value)}, 1: {}}},
        "head": jnp.full(2, value + 1.0),
    }
    return states.init(
        jax.random.key(7),
        params,
        optimizer=optax.adamw(1e-3),
        model_state={"mean": jnp.full(2, value + 2.0)},
        loss_state={"cursor": jnp.asarray(3, jnp.int32)},
    )


def same(a, b):
    def plain(x):
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if is_key else x)

    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(plain(x), plain(y)), a, b)


def restore(folder, template, **options):
    restored = checkpoints.restore(folder, template, **options)
    assert restored.checkpoint is not None
    return restored.state, restored.checkpoint, restored.skipped


def steps_of(folder):
    return [checkpoint.step for checkpoint in checkpoints.available(folder)]


def test_every_part_of_a_state_comes_back(tmp_path):
    state = example(0.1)
    checkpoints.save(tmp_path, state, step=4, score=0.5, metrics={"recall": 0.25})
    state_again, checkpoint, skipped = restore(tmp_path, example())
    same(state_again, state)
    assert skipped == ()
    assert (checkpoint.step, checkpoint.score) == (4, 0.5)
    assert checkpoint.metrics == {"recall": 0.25}


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_keys_of_every_generator_come_back(tmp_path, impl):
    keys = {impl: jax.random.key(3, impl=impl)}
    checkpoints.save(tmp_path, keys, step=1)
    template = {impl: jax.random.key(0, impl=impl)}
    restored = checkpoints.restore(tmp_path, template)
    same(restored.state, keys)
    assert jax.random.key_impl(restored.state[impl]) == jax.random.key_impl(keys[impl])


def test_an_empty_or_missing_folder_gives_nothing(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        assert checkpoints.restore(folder, example()) == (None, None, ())
        assert checkpoints.available(folder) == []


def test_the_last_two_and_the_best_are_kept(tmp_path):
    state = {"w": jnp.zeros(2)}
    scores = [0.1, 0.9, 0.3, None, 0.2]
    for step, score in enumerate(scores):
        checkpoints.save(tmp_path, state, step=step, score=score)
    assert steps_of(tmp_path) == [1, 3, 4]
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{i:08d}" for i in (1, 3, 4)]


def test_of_equal_scores_the_earlier_one_is_the_best(tmp_path):
    for step in range(4):
        checkpoints.save(tmp_path, {"w": jnp.full(2, step)}, step=step, score=0.5)
    restored = checkpoints.restore(tmp_path, {"w": jnp.zeros(2, int)}, best=True)
    assert restored.state["w"].tolist() == [0, 0]
    assert steps_of(tmp_path) == [0, 2, 3]


def test_a_step_saved_again_replaces_the_old_one(tmp_path):
    for value in (1, 2):
        checkpoints.save(tmp_path, {"w": jnp.full(1, value)}, step=5)
    restored = checkpoints.restore(tmp_path, {"w": jnp.zeros(1, int)})
    assert restored.state["w"].tolist() == [2]


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [truncate, flip, lambda path: path.unlink()])
@pytest.mark.parametrize("which", ["record", "largest file"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, damage, which):
    for step in (1, 2):
        state = {"w": jnp.arange(500.0) + step}
        checkpoints.save(tmp_path, state, step=step, score=float(step))
    last = tmp_path / "00000002"
    files = [path for path in (last / "state").rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    damage(last / "checkpoint.json" if which == "record" else largest)
    for best in (False, True):
        state, checkpoint, skipped = restore(tmp_path, {"w": jnp.zeros(500)}, best=best)
        assert checkpoint.step == 1
        np.testing.assert_array_equal(state["w"], np.arange(500.0) + 1)
    skipped = checkpoints.restore(tmp_path, {"w": jnp.zeros(500)}).skipped
    assert len(skipped) == 1
    assert "00000002 was cut short" in skipped[0]


def test_a_checkpoint_without_its_list_of_files_is_no_checkpoint(tmp_path):
    checkpoints.save(tmp_path, {"w": jnp.ones(2)}, step=1)
    # What a kill leaves behind: arrays written, the list not yet.
    shutil.copytree(tmp_path / "00000001", tmp_path / "00000002")
    (tmp_path / "00000002" / "checkpoint.json").unlink()
    assert steps_of(tmp_path) == [1]
    assert restore(tmp_path, {"w": jnp.zeros(2)})[1].step == 1
    checkpoints.save(tmp_path, {"w": jnp.full(2, 3.0)}, step=2)
    assert checkpoints.restore(tmp_path, {"w": jnp.zeros(2)}).state["w"].tolist() == [
        3,
        3,
    ]


def test_a_list_that_names_other_files_is_not_believed(tmp_path):
    checkpoints.save(tmp_path, {"w": jnp.ones(2)}, step=1)
    record = tmp_path / "00000001" / "checkpoint.json"
    content = json.loads(record.read_text())
    content["files"]["extra"] = "0"
    record.write_text(json.dumps(content))
    restored = checkpoints.restore(tmp_path, {"w": jnp.zeros(2)})
    assert restored.state is None
    assert len(restored.skipped) == 1


def test_a_checkpoint_counts_when_its_files_are_there(tmp_path, monkeypatch):
    checksums, written = checkpoints._checksums, threading.Event()

    def late(folder):
        assert written.wait(60)
        return checksums(folder)

    with checkpoints.open_saver(tmp_path) as saver:
        for step in (1, 2):
            saver.save({"w": jnp.ones(2)}, step=step)
        saver.wait()
        monkeypatch.setattr(checkpoints, "_checksums", late)
        state = {"w": jnp.full(2, 3.0)}
        saver.save(state, step=3)
        # What a kill would leave now: all that was there before.
        assert steps_of(tmp_path) == [1, 2]
        # The state may go, as it does in a step that donates it.
        state["w"].delete()
        written.set()
        saver.wait()
        assert steps_of(tmp_path) == [2, 3]
    assert restore(tmp_path, {"w": jnp.zeros(2)})[0]["w"].tolist() == [3, 3]


def test_what_cannot_be_written_is_told_later(tmp_path, monkeypatch):
    def full(folder):
        raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr(checkpoints, "_checksums", full)

    def save(*steps):
        with checkpoints.open_saver(tmp_path) as saver:
            for step in steps:
                done.append(step)
                saver.save({"w": jnp.ones(2)}, step=step)

    for steps in ((1, 2, 3), (1,)):
        done = []
        with pytest.raises(OSError, match="No space left"):
            save(*steps)
        # By the next one, or at the end.
        assert done == list(steps[:2])
    assert steps_of(tmp_path) == []


def test_a_part_of_a_state_is_restored(tmp_path):
    state = example(0.5)
    checkpoints.save(tmp_path, state, step=1)
    template = {"params": {"encoder": jax.eval_shape(example).params["encoder"]}}
    found = restore(tmp_path, template)[0]
    same(found, {"params": {"encoder": state.params["encoder"]}})


def test_rows_of_padding_come_and_go(tmp_path):
    rows = {"head": jnp.arange(6.0).reshape(3, 2), "rest": jnp.ones(2)}
    checkpoints.save(tmp_path, rows, step=1)
    longer = {"head": jnp.ones((4, 2)), "rest": jnp.zeros(2)}
    found = restore(tmp_path, longer, padded=["head"])[0]
    assert found["head"].tolist() == [[0, 1], [2, 3], [4, 5], [0, 0]]
    checkpoints.save(tmp_path, found, step=2)
    same(restore(tmp_path, rows, padded=["head"])[0], rows)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_checkpoint_of_other_arrays_is_refused(tmp_path):
    checkpoints.save(tmp_path, {"w": jnp.ones(2)}, step=1)
    with pytest.raises(ValueError, match="Expected v in the checkpoint"):
        checkpoints.restore(tmp_path, {"v": jnp.ones(2)})
    with pytest.raises(ValueError, match="not compatible with the stored shape"):
        checkpoints.restore(tmp_path, {"w": jnp.ones(3)})
