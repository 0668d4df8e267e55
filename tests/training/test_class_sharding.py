"""Class weights divided among eight devices, as `--shard-classes` does it."""

import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import train
from metricjax import losses
from metricjax.training import experiment as experiments
from metricjax.training import logs, parallel, pictures, recipes, run
from tests import compiled
from tests.losses.test_class_shards import sizes_of
from tests.training.plans import drawn, fitted, losses_of, prepared, started

FLAT = {"encoder": "mlp", "batch": 16}
# Seven classes: eight devices pad them, and so do two.
FEW = {**FLAT, "symmetries": 1}


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        ("arcface", {**FLAT, "warm_up": 0.5, "steps": 20}),
        ("arcface", FEW),
        ("subcenter", FEW),
        ("adaface", FEW),
    ],
)
def test_the_first_losses_are_those_of_one_device(recipe, changes, tmp_path):
    alone, state = losses_of(prepared(recipe, tmp_path, **changes), 10)
    assert len(set(alone)) == 10
    plan = prepared(recipe, tmp_path, devices=8, shard_classes=True, **changes)
    many, divided = losses_of(plan, 10)
    np.testing.assert_allclose(many, alone, rtol=1e-4)
    rows = state.params["head"].shape[0]
    found = np.asarray(divided.params["head"])
    np.testing.assert_allclose(found[:rows], state.params["head"], atol=1e-3)
    assert not found[rows:].any()


def test_each_device_has_its_classes_and_what_the_optimiser_keeps_of_them(tmp_path):
    plan = prepared(
        "arcface", tmp_path, devices=8, shard_classes=True, accumulate=2, **FLAT
    )
    state = losses_of(plan, 2)[1]
    divided = {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree.leaves_with_path(state)
        if not leaf.is_fully_replicated
    }
    # The weights, two moments, and the gradient that is accumulated.
    assert len(divided) == 4
    for name, leaf in divided.items():
        assert name.endswith("['head']")
        assert leaf.shape == (56, 8)
        assert leaf.addressable_shards[0].data.shape == (7, 8)


def test_neither_class_weights_nor_logits_are_sent(tmp_path):
    batch, dim = 16, 32
    plan = prepared("arcface", tmp_path, **{**FLAT, "dim": dim})
    mesh = parallel.make_mesh(8)
    divide = plan.experiment.class_sharded
    assert divide is not None
    experiment = divide(mesh)
    shapes = jax.eval_shape(experiment.init, jax.random.key(0))
    where = parallel.layout(shapes, mesh, divided=["head"])
    rows = jax.NamedSharding(mesh, jax.P("data"))

    def placed(x, place):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)

    images = jax.tree.map(lambda x: placed(x, rows), drawn(plan)(0))
    arguments = jax.tree.map(placed, shapes, where), images
    whole = jax.NamedSharding(mesh, jax.P())
    program = jax.jit(experiment.step, out_shardings=(where, whole))
    text = program.lower(*arguments).compile().as_text() or ""
    # Labels and embeddings, but no images, which are changed where they are.
    assert set(sizes_of(text, "all-gather")) == {batch, batch * dim}
    assert not sizes_of(text, "all-to-all")


def test_each_device_makes_its_part_of_a_large_head_alone(monkeypatch):
    monkeypatch.setattr(experiments, "_MANY", 2**16)
    module = recipes.load("subcenter")
    settings = module.Settings(encoder="mlp", width=1, dim=16, symmetries=1)
    problem = module.build(settings, (8, 8, 1), 1367)
    key = jax.random.key(0, impl="rbg")
    alone = jax.jit(problem.init)(key)
    size = alone.params["head"].size
    for devices in (2, 8):
        mesh = parallel.make_mesh(devices)
        experiment = problem.class_sharded(mesh)
        shapes = jax.eval_shape(experiment.init, key)
        where = parallel.layout(shapes, mesh, divided=["head"])
        program = jax.jit(experiment.init, out_shardings=where).lower(key).compile()
        arrays = re.findall(r"\w\[([\d,]+)\]", program.as_text() or "")
        largest = max(math.prod(map(int, shape.split(","))) for shape in arrays)
        assert size / devices <= largest < 1.01 * size / devices
        state = parallel.start(experiment.init, key, where)
        names = jax.tree.map(lambda x, place: x.sharding == place, state, where)
        assert all(jax.tree.leaves(names))
        assert_same_classes(state, alone)


def assert_same_classes(state, expected):
    """Equality to the bit; further classes are rows of zeros."""
    for found, x in zip(*map(jax.tree.leaves, (state, expected)), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            found, x = jax.random.key_data(found), jax.random.key_data(x)
        found, rows = np.asarray(found), len(x) if x.ndim else None
        np.testing.assert_array_equal(found[:rows] if rows else found, x)
        assert rows is None or not found[rows:].any()


def losses_in(folder):
    return [line["loss"] for line in logs.read(folder) if "loss" in line]


def test_a_run_goes_on_with_and_without_divided_classes(tmp_path):
    layouts = {
        "one": {"devices": 1},
        "eight": {"devices": 8, "shard_classes": True},
        "four": {"devices": 4, "shard_classes": True},
        "all": {"devices": 2},
    }
    plans = {
        name: prepared("arcface", tmp_path / "run", **layout, **FEW)
        for name, layout in layouts.items()
    }
    fitted(plans["one"], tmp_path / "whole", 8)
    expected = losses_in(tmp_path / "whole")
    for first, second in (
        ("eight", "one"),
        ("one", "eight"),
        ("eight", "four"),
        ("four", "all"),
    ):
        folder = tmp_path / f"{first}-{second}"
        fitted(plans[first], folder, 4)
        state = fitted(plans[second], folder, 8)
        assert int(state.step) == 8
        np.testing.assert_allclose(losses_in(folder), expected, rtol=1e-4)


@pytest.mark.parametrize("recipe", ["triplet", "center", "proxy_anchor", "siamese"])
def test_a_recipe_without_classes_to_divide_is_refused(recipe, tmp_path, capsys):
    flags = ["--recipe", recipe, "--shard-classes", "--out", str(tmp_path / "new")]
    assert train.main([*flags, "--devices", "2"]) == 2
    error = capsys.readouterr().err
    assert f"for --shard-classes, got recipe {recipe}" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_the_flag_trains_a_run_whose_encoder_can_be_used(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "draw", lambda *_, **__: None)
    monkeypatch.setattr(pictures, "draw_examples", lambda *_, **__: None)
    monkeypatch.setattr(train, "leave_bundles", lambda *_: None)
    net = "--encoder mlp --width 1 --dim 4 --batch 16 --symmetries 1"
    counts = "--steps 2 --evaluate-every 2 --splits 1 --evaluated-images 30"
    flags = [*net.split(), *counts.split(), "--out", str(tmp_path)]
    assert train.main([*flags, "--devices", "0", "--shard-classes"]) == 0
    assert len(json.loads((tmp_path / "results.json").read_text())) == 1
    apply, params, state = run.trained_encoder(tmp_path)
    images = jnp.zeros((2, 28, 28, 1))
    assert apply(params, state, images, train=False)[0].shape == (2, 4)


def test_classes_that_are_padding_change_no_loss(rng):
    x = jnp.asarray(rng.normal(size=(8, 5)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(10, 5)), jnp.float32)
    y = jnp.arange(8, dtype=jnp.int32)

    def loss(x, w, y, margin, **options):
        return losses.cosface(x, w, y, margin=margin, reduction=None, **options)

    mesh = parallel.make_mesh(8)
    assert parallel.padded_classes(10, mesh) == 16
    padded = jnp.concatenate([w, jnp.ones((6, 5))])
    divided = parallel.class_sharded(loss, mesh, classes=10)

    def mean(w, total):
        return jnp.mean(total(x, w, y, 0.2).total)

    found = compiled.call(jax.value_and_grad(mean), padded, total=divided)
    expected = compiled.call(jax.value_and_grad(mean), w, total=loss)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(found[1][:10], expected[1], rtol=1e-4, atol=1e-7)
    assert not found[1][10:].any()


def test_a_state_is_spread_once(tmp_path):
    plan = prepared("arcface", tmp_path, devices=4, shard_classes=True, **FLAT)
    state = started(plan)
    again = parallel.spread(state, plan.layout)
    for before, after in zip(*map(jax.tree.leaves, (state, again)), strict=True):
        assert before is after


def test_recipes_of_margin_softmax_can_divide_their_classes():
    able = set()
    for name in recipes.names():
        recipe = recipes.load(name)
        problem = recipe.build(recipe.Settings(), (28, 28, 1), 7)
        if problem.class_sharded is not None:
            able.add(name)
    assert able == {
        "adaface",
        "arcface",
        "combined",
        "cosface",
        "normface",
        "sphereface",
        "subcenter",
    }
