"""Memory and teacher in training, against a list of all that was ever embedded."""

import contextlib
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import train
from metricjax import losses, numerics
from metricjax.training import (
    _outcome,
    checkpoints,
    contrast,
    experiment,
    inputs,
    parallel,
    pictures,
    recipes,
)
from metricjax.training.splits import Examples
from tests.oracles import training_memory as oracle

KEY = jax.random.key(0)
FLAT: dict[str, Any] = {
    "encoder": "mlp",
    "width": 1,
    "dim": 3,
    "symmetries": 1,
    "augmentation": 0.0,
    "learning_rate": 3e-3,
}
PAIRS = {"batch_classes": 4, "batch_examples": 2}
# A batch of 8; 20 is no multiple of it, and 14 images are fewer than the memory.
STEPS = 6


@pytest.fixture
def examples(rng):
    images = rng.integers(0, 256, (14, 10, 10, 1), dtype=np.uint8)
    return Examples(images, np.arange(14, dtype=np.int32) % 5)


def built(recipe, **changes) -> Any:
    module = recipes.load(recipe)
    batch = {"batch": 4, "projection": 5, "dim": 16} if recipe == "simclr" else PAIRS
    settings = module.Settings(**{**FLAT, **batch, **changes})
    return settings, module.build(settings, (10, 10, 1), 5)


def unit(x):
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def outputs(problem, state, params, images, *, taught=False):
    """What the encoder gives in this step; it has dropout, and a teacher its own."""
    key = jax.random.split(jax.random.fold_in(state.key, state.step))[1]
    key = jax.random.fold_in(key, 1) if taught else key
    encoder = params["encoder"]
    x, _ = problem.apply(encoder, state.model_state, images, train=True, key=key)
    return np.asarray(x, np.float64)


def embedded(*arguments, **options):
    return unit(outputs(*arguments, **options))


def rows_of(x, items):
    return list(zip(x, *map(np.asarray, items), strict=True))


@pytest.mark.parametrize("start", [0, 3])
def test_a_batch_is_compared_with_itself_and_with_a_list_of_the_last(examples, start):
    settings, problem = built("supcon", memory=20, memory_start=start)
    draw, state, history = problem.batches(examples, 0), problem.init(KEY), []
    seen = set()
    for t in range(STEPS):
        images, items = draw(t)
        rows = rows_of(embedded(problem, state, state.params, images), items)
        seen |= set(items[1].tolist())
        history = (history + rows)[-20:]
        # Within the batch a row is itself by its place, an image drawn twice is not.
        own = [(x, label, i) for i, (x, label, _) in enumerate(rows)]
        expected = oracle.supcon(own, own, temperature=settings.temperature)
        if t >= start:
            expected += oracle.supcon(rows, history, temperature=settings.temperature)
        state, metrics = problem.step(state, (images, items))
        np.testing.assert_allclose(metrics["loss"], expected, rtol=2e-5)
        queue = state.loss_state.queue
        held = {(int(y), int(i)) for y, i in zip(queue.labels, queue.ids, strict=True)}
        assert held - {(-1, -1)} == {(int(y), int(i)) for _, y, i in history}
    assert len(seen) == 14, "images come back while older embeddings are there"


def test_a_loss_without_memory_is_the_program_that_it_was(examples):
    def loss(x, params, labels):
        return losses.supcon(numerics.l2_normalize(x), labels, reduction=None)

    settings, problem = built("supcon")
    plain = experiment.supervised(
        settings,
        (10, 10, 1),
        loss,
        batches=inputs.pk_batches(settings, classes=4, examples=2),
    )
    problems = problem, plain
    batches = [p.batches(examples, 0)(1) for p in problems]
    jax.tree.map(np.testing.assert_array_equal, *batches)
    states = [p.init(KEY) for p in problems]
    jax.tree.map(np.testing.assert_array_equal, *(s.params for s in states))
    assert states[0].loss_state == {}
    programs = [str(jax.make_jaxpr(p.step)(states[0], batches[0])) for p in problems]
    assert programs[0] == programs[1]


@pytest.mark.parametrize("memory", [0, 20])
def test_a_teacher_follows_by_the_formula_and_embeds_the_candidates(examples, memory):
    decay = 0.7
    settings, problem = built("supcon", memory=memory, teacher=decay)
    draw, state = problem.batches(examples, 0), problem.init(KEY)
    # As a trained encoder that is loaded: what the teacher starts from is trained.
    state = state._replace(params=jax.tree.map(lambda x: x + 0.1, state.params))
    students, history = [], []
    for t in range(STEPS):
        images, items = draw(t)
        students.append(jax.tree.map(np.asarray, state.params))
        taught = jax.tree.map(
            lambda *leaf: oracle.followed(leaf, decay=decay).astype(np.float32),
            *students,
        )
        rows = rows_of(embedded(problem, state, state.params, images), items)
        keys = rows_of(embedded(problem, state, taught, images, taught=True), items)
        history = (history + keys)[-(memory or 8) :]
        expected = oracle.supcon(rows, history, temperature=settings.temperature)
        state, metrics = problem.step(state, (images, items))
        np.testing.assert_allclose(metrics["loss"], expected, rtol=5e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7),
            state.loss_state.teacher,
            taught,
        )


def test_views_find_the_other_views_of_their_image_among_all_keys(examples):
    settings, problem = built("simclr", memory=20, teacher=0.9)
    draw, state, history = problem.batches(examples, 0), problem.init(KEY), []
    for t in range(4):
        images, (_, ids) = draw(t)
        both = np.tile(images, (2, 1, 1, 1))
        # Of the same item, and numbered by item and view.
        items = np.tile(ids, 2), np.concatenate([2 * ids, 2 * ids + 1])

        def projected(state, params, **options):
            x = outputs(problem, state, params, both, **options)  # noqa: B023
            x = np.maximum(x @ params["hidden"]["kernel"], 0.0)
            return unit(x @ params["projection"]["kernel"])

        before = jax.tree.map(jnp.array, state)
        rows = rows_of(projected(before, before.params), items)
        state, metrics = problem.step(state, draw(t))
        keys = projected(before, state.loss_state.teacher, taught=True)
        history = (history + rows_of(keys, items))[-20:]
        expected = oracle.ntxent(rows, history, temperature=settings.temperature)
        np.testing.assert_allclose(metrics["loss"], expected, rtol=5e-5)


@pytest.mark.parametrize("recipe", ["triplet", "multi_similarity", "supcon", "simclr"])
def test_a_memory_is_the_same_on_many_devices_and_in_chunks(recipe, examples):
    # A net without dropout, of which each chunk would draw its own.
    changes = {"memory": 24, "encoder": "convnet", "width": 4}
    if recipe in ("supcon", "simclr"):
        changes["teacher"] = 0.8
    _, alone = built(recipe, **changes)
    _, many = built(recipe, **changes, chunk=4)
    step = parallel.data_parallel(many.step, parallel.make_mesh(2))
    many = many._replace(step=step)
    found = []
    for problem in (alone, many):
        state, values = problem.init(KEY), []
        draw = problem.batches(examples, 0)
        for t in range(4):
            state, metrics = problem.step(state, draw(t))
            values.append(float(metrics["loss"]))
        found.append((values, state.loss_state.queue))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), *found
    )


def test_symmetries_of_an_image_are_items_of_their_own(examples):
    _, problem = built("triplet", memory=64, symmetries=4, batch_classes=8)
    images, (labels, ids) = problem.batches(examples, 0)(2)
    np.testing.assert_array_equal(images, examples.images[ids // 4])
    np.testing.assert_array_equal(labels, examples.labels[ids // 4] * 4 + ids % 4)
    _, metrics = problem.step(problem.init(KEY), (images, (labels, ids)))
    assert np.isfinite(metrics["loss"])


FLAGS = (
    "--recipe supcon --encoder mlp --width 1 --dim 4 --batch-classes 8 "
    "--batch-examples 2 --memory 40 --teacher 0.9 --steps 6 --evaluate-every 3 "
    "--splits 1 --evaluated-images 30"
)


def test_a_memory_goes_on_where_a_run_was_stopped(tmp_path, monkeypatch):
    for name in ("draw", "draw_examples"):
        monkeypatch.setattr(pictures, name, lambda *_, **__: None)
    monkeypatch.setattr(train, "leave_bundles", lambda *_: None)
    shared = FLAGS.split()
    states, evaluated, watched = [], [], _outcome.watched

    def stopping(*arguments):
        evaluated.append(arguments)
        if len(evaluated) == 2:
            raise KeyboardInterrupt
        return watched(*arguments)

    for name in ("whole", "stopped"):
        out = tmp_path / name
        if name == "stopped":
            with monkeypatch.context() as patched:
                patched.setattr(_outcome, "watched", stopping)
                assert train.main([*shared, "--out", str(out)]) == 130
            kept = checkpoints.available(out / "split0" / "checkpoints")
            assert [checkpoint.step for checkpoint in kept] == [3]
        assert train.main([*shared, "--out", str(out)]) == 0
        settings = json.loads((out / "config.json").read_text())["settings"]
        module = recipes.load("supcon")
        problem = module.build(module.Settings(**settings), (28, 28, 1), 7)
        template = problem.init(jax.random.key(0, impl="rbg"))
        restored = checkpoints.restore(out / "split0" / "checkpoints", template).state
        assert int(restored.step) == int(restored.loss_state.step) == 6
        assert isinstance(restored.loss_state, contrast.Kept)
        states.append(restored._replace(key=jax.random.key_data(restored.key)))
    jax.tree.map(np.testing.assert_array_equal, *states)
    assert (np.asarray(states[0].loss_state.queue.embeddings) != 0).any()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--recipe triplet --memory 100", "Expected --memory of at least 140"),
        ("--recipe supcon --memory -1", "Expected --memory of 0, for none, or more"),
        ("--recipe supcon --memory-start 9", "Expected --memory with --memory-start 9"),
        ("--memory 500 --memory-start 400", "Expected --memory-start in [0, 400)"),
        ("--recipe supcon --teacher 1.0", "Expected --teacher in [0, 1), got 1.0"),
        (
            "--recipe supcon --memory 500 --teacher 0.9 --memory-start 9",
            "Expected --memory-start 0 with --teacher",
        ),
        ("--recipe duplicates --memory 500", "Expected --memory 0, got 500"),
    ],
)
def test_a_memory_that_cannot_be_is_refused(flags, message, tmp_path, capsys):
    arguments = ["--out", str(tmp_path / "new"), *flags.split()]
    if "--recipe" not in flags:
        arguments += ["--recipe", "multi-similarity"]
    # Refused by the settings, which exit, or by the recipe.
    with contextlib.suppress(SystemExit):
        assert train.main(arguments) == 2
    shown = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in shown
    assert not (tmp_path / "new").exists()


def test_losses_that_compare_no_embeddings_have_no_such_flags(capsys):
    for flag in ("--memory", "--teacher"):
        with pytest.raises(SystemExit):
            train.main(["--recipe", "arcface", flag, "1"])
    with pytest.raises(SystemExit):
        train.main(["--recipe", "triplet", "--teacher", "0.9"])
    assert "--teacher" in capsys.readouterr().err
