"""Weights come in whole from everywhere; frozen layers stay as they are, to the bit."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import linen, nnx

from metricjax import bundle, data, encoders, heads, losses
from metricjax.training import checkpoints, finetune, state, step

SHAPE = (28, 28, 1)
LAST = ["encoder/*", "!encoder/embedding*"]


@pytest.fixture(scope="module")
def encoder():
    def build(rngs):
        return encoders.ResNet(width=2, dim=4, rngs=rngs)

    return encoders.deferred(build)


@pytest.fixture(scope="module")
def weights(encoder):
    """Trained-looking weights: no state leaf is what a fresh encoder has."""
    params, kept = jax.device_get(encoder.init(jax.random.key(3, impl="rbg")))
    return params, jax.tree.map(lambda leaf: leaf + np.float32(0.5), kept)


@pytest.fixture(scope="module")
def template(encoder):
    return encoder.init(jax.random.key(4, impl="rbg"))


def named(tree):
    leaves = jax.tree.leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in leaves
    }


def assert_equal(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


# frozen_paths


PARAMS = {"encoder": {"stem": {"kernel": 1}, "stem_norm": {"scale": 1}}, "head": 1}


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([], []),
        (["encoder/stem"], ["encoder/stem/kernel"]),
        (["encoder/stem*"], ["encoder/stem/kernel", "encoder/stem_norm/scale"]),
        (["*/scale", "head"], ["encoder/stem_norm/scale", "head"]),
        (["*", "!encoder/stem_????"], ["encoder/stem/kernel", "head"]),
    ],
)
def test_patterns_name_paths_and_what_is_below_them(patterns, expected):
    assert finetune.frozen_paths(PARAMS, patterns) == expected


def test_a_pattern_that_matches_nothing_lists_what_there_is():
    with pytest.raises(ValueError, match="'encoder/block9'.*encoder/stem_norm/scale"):
        finetune.frozen_paths(PARAMS, ["encoder/stem", "encoder/block9"])
    with pytest.raises(ValueError, match="'!encoder/embedding'"):
        finetune.frozen_paths(PARAMS, ["encoder/*", "!encoder/embedding"])


def test_patterns_that_choose_nothing_or_everything_are_refused():
    with pytest.raises(ValueError, match="take back all"):
        finetune.frozen_paths(PARAMS, ["encoder/stem", "!encoder/*"])
    with pytest.raises(ValueError, match="leave something to train"):
        finetune.freeze(optax.sgd(0.1), ["*"], PARAMS)
    with pytest.raises(TypeError, match="the string 'encoder/stem'"):
        finetune.frozen_paths(PARAMS, "encoder/stem")


# freeze and frozen_encoder


def train(apply, optimizer, params, kept, steps=5):
    images, labels = data.load("digits")[:2]
    batch = images[::40], labels[::40]

    def loss(embeddings, params, labels):
        return losses.arcface(embeddings, params["head"], labels, reduction=None)

    function = step.make_step(step.supervised(apply, loss), optimizer)
    run = state.init(jax.random.key(0), params, optimizer=optimizer, model_state=kept)
    for _ in range(steps):
        run, metrics = function(run, batch)
    return run, metrics


def test_frozen_layers_are_bit_identical_after_training_and_others_are_not(
    encoder, weights
):
    head = heads.init_class_weights(jax.random.key(1), 10, 4)
    before = {"encoder": weights[0], "head": np.asarray(head)}
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(1e-2, weight_decay=0.1)
    )
    run, _ = train(
        finetune.frozen_encoder(encoder.apply, LAST, hold_state=True),
        finetune.freeze(optimizer, LAST, before),
        jax.tree.map(jnp.array, before),
        jax.tree.map(jnp.array, weights[1]),
    )
    frozen = finetune.frozen_paths(before, LAST)
    after, start = named(run.params), named(before)
    assert len(frozen) == 30
    for path, value in after.items():
        same = np.array_equal(value, start[path])
        assert same == (path in frozen), path
    after, start = named(run.model_state), named(weights[1])
    moved = {path for path in after if not np.array_equal(after[path], start[path])}
    assert moved == {"embedding_norm/mean", "embedding_norm/var"}


def test_statistics_of_frozen_layers_follow_the_images_unless_held(encoder, weights):
    images = np.linspace(0, 1, 4 * 28 * 28, dtype=np.float32).reshape(4, *SHAPE)
    kept = jax.tree.map(jnp.array, weights[1])

    @jax.jit
    def states(params):
        return [
            apply(params, kept, images, train=True)[1]
            for apply in (
                encoder.apply,
                finetune.frozen_encoder(encoder.apply, LAST),
                finetune.frozen_encoder(encoder.apply, ["encoder"], hold_state=True),
            )
        ]

    plain, following, held = states(weights[0])
    assert_equal(following, plain)
    assert_equal(held, weights[1])
    assert not np.array_equal(plain["stem_norm"]["mean"], held["stem_norm"]["mean"])


def test_nothing_is_kept_for_frozen_parameters(weights):
    params = {"encoder": weights[0]}
    optimizer = finetune.freeze(optax.adam(1e-3), LAST, params)
    kept = optimizer.init(params)
    trained = set(named(params)) - set(finetune.frozen_paths(params, LAST))
    sizes = sum(named(params)[path].size for path in trained)
    assert sum(np.size(leaf) for leaf in jax.tree.leaves(kept)) == 2 * sizes + 1


def test_without_patterns_training_is_as_before(encoder, weights):
    params = {"encoder": weights[0], "head": np.ones((10, 4), np.float32)}
    runs = []
    for apply, optimizer in [
        (encoder.apply, optax.sgd(0.1)),
        (
            finetune.frozen_encoder(encoder.apply, []),
            finetune.freeze(optax.sgd(0.1), [], params),
        ),
    ]:
        fresh = jax.tree.map(jnp.array, (params, weights[1]))
        run, _ = train(apply, optimizer, *fresh, steps=2)
        runs.append((run.params, run.model_state))
    jax.tree.map(np.testing.assert_array_equal, *runs)


def test_a_frozen_encoder_passes_no_gradient_to_frozen_weights(encoder, weights):
    apply = finetune.frozen_encoder(encoder.apply, LAST)
    kept = jax.tree.map(jnp.array, weights[1])
    images = np.ones((4, *SHAPE), np.float32) * np.arange(4)[:, None, None, None]

    def loss(params):
        return jnp.sum(apply(params, kept, images, train=True)[0] ** 3)

    found = named(jax.jit(jax.grad(loss))(weights[0]))
    for path, gradient in found.items():
        assert np.any(gradient) == path.startswith("embedding"), path


# load_params


@pytest.fixture(scope="module")
def ready(weights):
    arguments = {"image_shape": list(SHAPE), "width": 2, "dim": 4}
    architecture = {"encoder": "ResNet", "arguments": arguments}
    return bundle.make(architecture, *weights, image_shape=SHAPE)


@pytest.fixture(scope="module")
def training_state(weights):
    params = {"encoder": weights[0], "head": np.ones((10, 4), np.float32)}
    return state.init(
        jax.random.key(0, impl="rbg"),
        jax.tree.map(jnp.array, params),
        optimizer=optax.adamw(1e-3),
        model_state=weights[1],
    )


def save_run(path, training_state):
    """A run's folder, whose better checkpoint is the first."""
    folder = path / "split1" / "checkpoints"
    better = jax.tree.map(lambda leaf: leaf + 1, training_state.params)
    for t, params, score in ((1, better, 0.9), (2, training_state.params, 0.8)):
        checkpoints.save(
            folder, training_state._replace(params=params), step=t, score=score
        )
    (path / "config.json").write_text(json.dumps({"recipe": "arcface"}))
    return folder


def test_a_bundle_a_file_and_memory_give_the_same_weights(
    tmp_path, ready, weights, template
):
    bundle.save(tmp_path / "faces", ready)
    bundle.save_safetensors(tmp_path / "faces.safetensors", ready)
    for source in (
        tmp_path / "faces",
        str(tmp_path / "faces.safetensors"),
        weights,
        ready,
        encoders.Functional(ready.apply, *weights),
    ):
        for filled in (None, template, jax.eval_shape(lambda: template)):
            assert_equal(finetune.load_params(source, filled), weights)


def test_runs_checkpoints_and_orbax_folders_give_the_same_weights(
    tmp_path, training_state, weights, template
):
    folder = save_run(tmp_path / "run", training_state)
    assert_equal(finetune.load_params(tmp_path / "run", split=1), weights)
    for source in (folder, folder / "00000002", folder / "00000002" / "state"):
        assert_equal(finetune.load_params(source), weights)
    params, _ = finetune.load_params(folder, template, best=True)
    assert_equal(params, jax.tree.map(lambda leaf: leaf + 1, weights[0]))


def test_positions_in_lists_survive_files(tmp_path):
    _, params, kept = encoders.functional(
        encoders.MLP(image_shape=(2, 2, 1), hidden=(3,), dim=2, rngs=nnx.Rngs(0))
    )
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "orbax", {"params": params, "state": kept})
    arguments = {"image_shape": [2, 2, 1], "hidden": [3], "dim": 2}
    ready = bundle.make(
        {"encoder": "MLP", "arguments": arguments}, params, kept, image_shape=(2, 2, 1)
    )
    bundle.save_safetensors(tmp_path / "mlp.safetensors", ready)
    for name in ("orbax", "mlp.safetensors"):
        assert_equal(finetune.load_params(tmp_path / name), (params, kept))


def test_linen_variables_saved_by_orbax_are_params_and_the_rest(tmp_path):
    module = linen.BatchNorm(use_running_average=True)
    variables = module.init(jax.random.key(0), jnp.ones((2, 3)))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "linen", variables)
    model = encoders.from_linen(module, variables)
    found = finetune.load_params(tmp_path / "linen")
    assert_equal(found, (model.params, model.state))


def test_a_damaged_checkpoint_is_passed_over_and_said(tmp_path, training_state):
    folder = save_run(tmp_path, training_state)
    next((folder / "00000002" / "state" / "d").iterdir()).write_bytes(b"cut")
    with pytest.warns(UserWarning, match="00000002 was cut short"):
        params, _ = finetune.load_params(tmp_path, split=1)
    expected = named(training_state.params["encoder"])
    for path, value in named(params).items():
        np.testing.assert_array_equal(value, expected[path] + 1)


def test_an_embedding_of_another_size_keeps_its_own_values(weights):
    larger = encoders.deferred(
        lambda rngs: encoders.ResNet(width=2, dim=6, rngs=rngs)
    ).init(jax.random.key(5, impl="rbg"))
    params, kept = finetune.load_params(weights, larger, fresh=["embedding*"])
    for found, old, new in zip((params, kept), weights, larger, strict=True):
        old, new = named(old), named(new)
        for path, value in named(found).items():
            source = new if path.startswith("embedding") else old
            np.testing.assert_array_equal(value, source[path])


def test_all_leaves_that_do_not_fit_are_listed(weights):
    params = {**weights[0], "extra": np.ones(2)}
    del params["stem"]
    wrong = {**params, "embedding": {"kernel": np.ones((5, 4))}}
    with pytest.raises(ValueError, match="got 3 leaves") as error:
        finetune.load_params((wrong, weights[1]), weights)
    for line in (
        "embedding/kernel: expected [256, 4], got [5, 4]",
        "extra: expected none, got [2]",
        "stem/kernel: expected [5, 5, 1, 2], got none",
    ):
        assert line in str(error.value).splitlines()


def test_dtypes_of_the_template_are_taken_over(weights):
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), weights)
    params, _ = finetune.load_params(weights, half)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    assert_equal(params, half[0])


def test_loaded_weights_are_copies(weights):
    source = jax.tree.map(jnp.array, weights)
    fresh = jax.tree.map(jnp.array, weights)
    for patterns in ([], ["*"]):
        loaded = finetune.load_params(source, fresh, fresh=patterns)
        jax.jit(lambda tree: jax.tree.map(jnp.negative, tree), donate_argnums=0)(loaded)
        assert_equal((source, fresh), (weights, weights))


@pytest.mark.parametrize(
    ("fresh", "match"),
    [
        (["embeding"], "'embeding', which matches none"),
        (["embedding"], "its shape alone"),
    ],
)
def test_fresh_leaves_must_exist_and_have_values(weights, fresh, match):
    with pytest.raises(ValueError, match=match):
        finetune.load_params(weights, jax.eval_shape(lambda: weights), fresh=fresh)


def test_fresh_leaves_need_a_template(weights):
    with pytest.raises(ValueError, match="Expected `template`"):
        finetune.load_params(weights, fresh=["embedding"])


def test_what_holds_no_weights_is_refused(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    with pytest.raises(FileNotFoundError, match="nothing there"):
        finetune.load_params(tmp_path / "missing")
    with pytest.raises(ValueError, match="read it yourself"):
        finetune.load_params(tmp_path)
    with pytest.raises(TypeError, match="got dict"):
        finetune.load_params({"params": {}})  # pyright: ignore[reportArgumentType]
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="intact checkpoint"):
        finetune.load_params(tmp_path)
    safetensors.save_file({"conv.weight": np.ones(2)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="got conv.weight in"):
        finetune.load_params(tmp_path / "a.safetensors")
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "other", {"weights": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"got \['weights'\]"):
        finetune.load_params(tmp_path / "other")


def test_without_safetensors_the_message_says_what_to_install(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match=r"metricjax\[export\]"):
        finetune.load_params(path)
