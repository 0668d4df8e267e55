import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import train
from metricjax.training import logs, parallel, pictures, recipes
from metricjax.training import state as states
from metricjax.training import step as steps
from tests.training.plans import TINY, drawn, fitted, losses_of, prepared, started


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The first losses on one device."""
    folder = tmp_path_factory.mktemp("alone")
    return {name: losses_of(prepared(name, folder / name), 20)[0] for name in TINY}


@pytest.mark.parametrize("recipe", sorted(TINY))
def test_the_first_losses_are_the_same_on_one_two_and_eight_devices(
    alone, recipe, tmp_path
):
    assert len(set(alone[recipe])) == 20
    for devices in (2, 8):
        many, state = losses_of(prepared(recipe, tmp_path, devices=devices), 20)
        np.testing.assert_allclose(many, alone[recipe], rtol=1e-4)
        for leaf in jax.tree.leaves(state):
            assert leaf.is_fully_replicated
            assert len(leaf.sharding.device_set) == devices


def test_a_net_with_batch_norm_and_divided_classes_has_them_too(alone, tmp_path):
    plan = prepared("arcface", tmp_path, devices=8, shard_classes=True)
    many, _ = losses_of(plan, 20)
    np.testing.assert_allclose(many, alone["arcface"], rtol=1e-4)


def test_a_run_goes_on_where_it_stopped_on_another_number_of_devices(tmp_path):
    plans = {
        devices: prepared("triplet", tmp_path / "run", devices=devices)
        for devices in (1, 8)
    }
    fitted(plans[1], tmp_path / "whole", 8)
    expected = [
        line["loss"] for line in logs.read(tmp_path / "whole") if "loss" in line
    ]
    assert len(expected) == 8
    for first, second in ((8, 1), (1, 8)):
        folder = tmp_path / f"from{first}"
        fitted(plans[first], folder, 4)
        state = fitted(plans[second], folder, 8)
        assert int(state.step) == 8
        found = [line["loss"] for line in logs.read(folder) if "loss" in line]
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_gradients_pass_through_the_batch_in_chunks(tmp_path):
    # A net without dropout, of which each chunk would draw its own.
    settings = {"encoder": "convnet", "symmetries": 1, "batch_classes": 4}
    whole, _ = losses_of(prepared("triplet", tmp_path / "a", **settings), 5)
    plan = prepared("triplet", tmp_path / "b", devices=4, chunk=8, **settings)
    chunked, _ = losses_of(plan, 5)
    np.testing.assert_allclose(chunked, whole, rtol=1e-4)
    products = convolutions(plan)
    assert any(line.startswith("f32[8,") for line in products)
    assert not any(line.startswith("f32[16,") for line in products)


def convolutions(plan):
    """Dtypes and shapes of the convolutions of a gradient, of 16 images."""
    state = plan.experiment.init(jax.random.key(1))

    def total(params):
        images = jnp.ones((16, 28, 28, 1))
        x, _ = plan.experiment.apply(params, state.model_state, images, train=True)
        return jnp.sum(x)

    program = str(jax.make_jaxpr(jax.grad(total))(state.params["encoder"]))
    lines = [line for line in program.splitlines() if "= conv_general" in line]
    return [line.partition(":")[2] for line in lines]


def test_a_chunk_has_an_image_at_least():
    with pytest.raises(ValueError, match="Expected --chunk above 0, got 0"):
        recipes.load("arcface").Settings(chunk=0)


def test_a_bfloat16_encoder_has_float32_losses_and_parameters(alone, tmp_path):
    exact = alone["arcface"][:3]
    plan = prepared("arcface", tmp_path, compute="bfloat16")
    coarse, state = losses_of(plan, 3)
    assert coarse != exact
    np.testing.assert_allclose(coarse, exact, rtol=0.03)
    before = jax.tree.map(lambda x: x.dtype, started(plan))
    assert jax.tree.map(lambda x: x.dtype, state) == before
    _, metrics = jax.eval_shape(plan.experiment.step, started(plan), drawn(plan)(0))
    assert metrics["loss"].dtype == metrics["gradient_norm"].dtype == jnp.float32
    products = convolutions(plan)
    assert products
    assert all(line.startswith("bf16[") for line in products)


def test_a_loss_that_keeps_a_memory_is_the_same_on_many_devices(rng):
    optimizer = optax.sgd(0.1)

    def loss(params, model_state, loss_state, batch, key):
        x, labels, table = batch
        sums = loss_state.at[labels].add(x)
        value = jnp.mean((x * params - table[labels]) ** 2)
        return value, steps.Outputs(model_state, sums, {})

    step = steps.make_step(loss, optimizer)
    # The table of three classes is no part of the batch: it is on every device.
    batch = rng.random(8, np.float32), np.arange(8) % 3, np.ones(3, np.float32)
    results = []
    for devices in (1, 4):
        chosen = parallel.data_parallel(step, parallel.make_mesh(devices))
        state = states.init(
            jax.random.key(0),
            jnp.ones(()),
            optimizer=optimizer,
            loss_state=jnp.zeros(3),
        )
        for _ in range(2):
            state, metrics = chosen(state, batch)
        results.append((state.params, state.loss_state, metrics))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *results)
    sums = np.zeros(3)
    np.add.at(sums, batch[1], 2.0 * batch[0])
    np.testing.assert_allclose(results[1][1], sums, rtol=1e-5)


def test_what_is_local_is_on_one_device_and_what_is_divided_stays():
    mesh = parallel.make_mesh(4)
    whole = jax.NamedSharding(mesh, jax.P())
    tree = jax.device_put({"key": jax.random.key(0), "w": jnp.arange(4)}, whole)
    divided = parallel.place(np.arange(4), mesh)
    found = parallel.local({**tree, "rows": divided, "scalar": 3})
    assert len(found["w"].sharding.device_set) == 1
    assert len(found["key"].sharding.device_set) == 1
    assert jax.random.key_data(found["key"]).tolist() == [0, 0]
    assert found["w"].tolist() == [0, 1, 2, 3]
    assert found["rows"] is divided
    assert found["scalar"] == 3


@pytest.mark.parametrize(
    ("devices", "batch", "message"),
    [
        ("8", "20", "got 20 rows; take 16 or 24 rows, or 5 of the devices"),
        ("8", "3", "got 3 rows; take 8 rows, or 3 of the devices"),
        ("9", "18", "Expected 0 to 8 devices of kind cpu, got 9"),
        ("-1", "16", "got -1; 0 takes all"),
    ],
)
def test_a_batch_that_devices_cannot_share_is_refused(
    devices, batch, message, tmp_path, capsys
):
    out = tmp_path / "new"
    arguments = ["--devices", devices, "--batch", batch, "--out", str(out)]
    assert train.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_the_flags_train_a_run_on_all_devices(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "draw", lambda *_, **__: None)
    monkeypatch.setattr(pictures, "draw_examples", lambda *_, **__: None)
    monkeypatch.setattr(train, "leave_bundles", lambda *_: None)
    flags = "--recipe supcon --encoder mlp --width 1 --dim 4 --batch-classes 8"
    counts = "--batch-examples 2 --steps 2 --evaluate-every 2 --splits 1"
    shared = [*flags.split(), *counts.split(), "--evaluated-images", "30"]
    scale = ["--chunk", "8", "--compute", "bfloat16"]
    results = []
    for devices in ("1", "0"):
        out = tmp_path / devices
        arguments = [*shared, *scale, "--devices", devices, "--out", str(out)]
        assert train.main(arguments) == 0
        results.append(json.loads((out / "results.json").read_text())[0])
    for part in ("unseen", "seen"):
        alone, many = (result[part]["trained"] for result in results)
        for name, value in alone.items():
            np.testing.assert_allclose(many[name], value, atol=0.05)
    # Without the flag it is another run: what was computed is written down.
    assert train.main([*shared, "--out", str(tmp_path / "1")]) == 2


class Rows:
    """Stands for an array, and makes its rows when they are asked for."""

    shape, dtype = (16, 3), np.float32

    def __init__(self):
        self.asked = []

    def __getitem__(self, index):
        self.asked.append(range(16)[index[0]])
        return np.arange(48, dtype=np.float32).reshape(self.shape)[index]


def test_rows_that_are_made_when_asked_for_are_made_once(rng):
    batch = Rows(), np.arange(16)
    rows, labels = parallel.place(batch, parallel.make_mesh(8))
    assert sorted(n for part in batch[0].asked for n in part) == list(range(16))
    np.testing.assert_array_equal(rows, np.arange(48).reshape(16, 3))
    assert labels.tolist() == list(range(16))
    assert rows.addressable_shards[0].data.shape == (2, 3)
