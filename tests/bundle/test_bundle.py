import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metricjax import _sealed, bundle, encoders, gallery


@pytest.fixture(scope="module")
def images(digits):
    return digits[:, :3].reshape(-1, 28, 28, 1)


def reference(ready, images):
    embeddings = ready.apply(ready.params, ready.state, images, train=False)[0]
    embeddings = np.asarray(embeddings, np.float64)
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


@pytest.mark.parametrize("count", [0, 1, 3, 5, 30])
def test_embeddings_are_those_of_the_encoder_at_unit_length(ready, images, count):
    found = bundle.embedder(ready)(images[:count])
    assert found.shape == (count, 8)
    assert found.dtype == np.float32
    if count:
        expected = reference(ready, images[:count])
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_any_number_of_images_needs_few_programs(ready, images):
    traced = []

    def apply(*args, **kwargs):
        traced.append(args[2].shape[0])
        return ready.apply(*args, **kwargs)

    embed = bundle.embedder(ready._replace(apply=apply))
    for count in (1, 2, 4, 7, 13, 30, 29):
        embed(images[:count])
    assert traced == [1, 4, 16, 64]
    many = np.tile(images, (9, 1, 1, 1))
    assert embed(many).shape == (270, 8)
    assert traced[4:] == [256]


def test_a_bundle_comes_back_whole_and_embeds_the_same(tmp_path, ready, images):
    embed = bundle.embedder(ready)
    x, labels = embed(images), np.repeat(np.arange(10), 3)
    whole = ready._replace(
        calibration=gallery.calibrate(x, labels, far=0.1),
        calibrated_on=("a", "b"),
        gallery=gallery.enroll(x, list(map(str, labels)), encoder=mark(ready)),
    )
    for saved in (ready, whole, ready):
        bundle.save(tmp_path / "b", saved)
        found = bundle.load(tmp_path / "b")
        np.testing.assert_array_equal(bundle.embedder(found)(images), x)
        assert mark(found) == mark(saved)
        for name in ("architecture", "image_shape", "trained_on", "calibrated_on"):
            assert getattr(found, name) == getattr(saved, name)
        assert found.calibration == saved.calibration
        jax.tree.map(np.testing.assert_array_equal, found.gallery, saved.gallery)
    assert len(list((tmp_path / "b").iterdir())) == 2


def mark(ready):
    return bundle.fingerprint(ready)


def test_saving_a_new_gallery_leaves_the_weights_file_alone(tmp_path, ready, images):
    bundle.save(tmp_path / "b", ready)
    weights = next((tmp_path / "b").glob("weights-*"))
    x = bundle.embedder(ready)(images[:1])
    people = gallery.enroll(x, ["a"], encoder=mark(ready))
    bundle.save(tmp_path / "b", ready._replace(gallery=people))
    assert weights.exists()
    found = bundle.load(tmp_path / "b").gallery
    assert found is not None
    assert found.names == ("a",)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64", "int8"])
def test_weights_of_every_dtype_come_back_to_the_bit(tmp_path, dtype):
    def apply(params, state, images, *, train, key=None):
        return encoders.as_float(images).reshape(images.shape[0], -1), state

    values = np.linspace(-3, 3, 7).astype(jnp.dtype(dtype))
    params = {"layers": {0: {"w": values}, 1: {"w": values[:0]}}, "s": values[0]}
    ready = bundle.make({}, params, {}, image_shape=(2, 2, 1), apply=apply)
    bundle.save(tmp_path / "b", ready)
    found = bundle.load(tmp_path / "b", apply=apply).params
    jax.tree.map(np.testing.assert_array_equal, found, params)
    assert found["layers"][0]["w"].dtype == values.dtype


def test_an_encoder_of_your_own_has_to_be_given_again(tmp_path):
    def apply(params, state, images, *, train, key=None):
        return encoders.as_float(images).reshape(images.shape[0], -1) @ params["w"], {}

    params = {"w": np.ones((4, 2), np.float32)}
    ready = bundle.make({"mine": 1}, params, {}, image_shape=(2, 2, 1), apply=apply)
    bundle.save(tmp_path / "b", ready)
    with pytest.raises(ValueError, match="pass `apply`"):
        bundle.load(tmp_path / "b")
    assert bundle.load(tmp_path / "b", apply=apply).architecture == {"mine": 1}


@pytest.mark.parametrize("kind", ["ConvNet", "ResNet"])
def test_every_encoder_of_the_library_is_rebuilt(tmp_path, kind, images, rng):
    arguments = {"image_shape": [28, 28, 1], "width": 2, "dim": 4}
    build = getattr(encoders, kind)
    apply, init = encoders.deferred(lambda rngs: build(**arguments, rngs=rngs))
    params, state = jax.tree.map(
        # Not below zero, because there are variances among the batch statistics.
        lambda leaf: abs(rng.normal(size=leaf.shape)).astype(leaf.dtype),
        jax.eval_shape(init, jax.random.key(0)),
    )
    architecture = {"encoder": kind, "arguments": arguments}
    ready = bundle.make(architecture, params, state, image_shape=(28, 28, 1))
    bundle.save(tmp_path / "b", ready)
    found = bundle.load(tmp_path / "b")
    expected = reference(ready._replace(apply=apply), images[:4])
    np.testing.assert_allclose(bundle.embedder(found)(images[:4]), expected, atol=1e-5)


def test_a_fingerprint_tells_encoders_apart_and_nothing_else(ready):
    same = ready._replace(trained_on=(), calibrated_on=("x",))
    assert mark(same) == mark(ready)
    params = jax.tree.map(np.copy, ready.params)
    params["embedding"]["bias"][0] += 1e-6
    others = [
        ready._replace(params=params),
        ready._replace(image_shape=(28, 14, 2)),
        ready._replace(architecture={"encoder": "MLP"}),
        ready._replace(params=ready.state, state=ready.params),
    ]
    assert len({mark(other) for other in [ready, *others]}) == 5


def test_a_gallery_of_another_encoder_is_not_stored(tmp_path, ready):
    people = gallery.enroll(np.ones((1, 8)), ["a"], encoder="another")
    with pytest.raises(ValueError, match="enroll the images again"):
        bundle.save(tmp_path / "b", ready._replace(gallery=people))
    assert not (tmp_path / "b").exists()


def test_weights_that_do_not_fit_the_architecture_are_refused(ready):
    shape = ready.image_shape
    fewer = {**ready.params, "embedding": {}}
    with pytest.raises(ValueError, match=r"embedding/bias of shape \(8,\), got None"):
        bundle.make(ready.architecture, fewer, ready.state, image_shape=shape)
    more = {**ready.params, "extra": np.ones(2)}
    with pytest.raises(ValueError, match="extra of shape None, got"):
        bundle.make(ready.architecture, more, ready.state, image_shape=shape)
    with pytest.raises(ValueError, match="nested dicts"):
        bundle.fingerprint(ready._replace(params=[np.ones(2)]))


@pytest.mark.parametrize(
    "architecture",
    [
        {"encoder": "Transformer", "arguments": {}},
        {"encoder": "functional", "arguments": {}},
        {"encoder": "MLP", "arguments": {"depth": 3}},
        {"encoder": "MLP"},
        {"recipe": "os", "settings": {}, "classes": 2},
        {"recipe": "arcface", "settings": {"no_such": 1}, "classes": 2},
        {},
    ],
)
def test_an_architecture_this_version_does_not_know_is_refused(ready, architecture):
    with pytest.raises(ValueError, match="Expected an? (architecture|recipe)"):
        bundle.make(architecture, ready.params, ready.state, image_shape=(28, 28, 1))


def test_images_of_another_kind_are_refused(ready, images):
    embed = bundle.embedder(ready)
    for wrong in (images[..., 0], images[:, :14], images.astype(np.float32)):
        with pytest.raises(ValueError, match=r"images uint8 \[n, 28, 28, 1\], got"):
            embed(wrong)
    with pytest.raises(ValueError, match="with 1 or 3 channels"):
        bundle.make(ready.architecture, {}, {}, image_shape=(28, 28, 2))


def test_each_file_of_a_bundle_cut_short_is_refused(tmp_path, ready, images):
    x = bundle.embedder(ready)(images[:2])
    people = gallery.enroll(x, ["a", "b"], encoder=mark(ready))
    bundle.save(tmp_path / "b", ready._replace(gallery=people))
    files = sorted((tmp_path / "b").iterdir())
    assert len(files) == 4
    for path in files:
        old = path.read_bytes()
        path.write_bytes(old[: len(old) // 2])
        with pytest.raises(ValueError, match=f"{path.name}.*cut short"):
            bundle.load(tmp_path / "b")
        path.write_bytes(old)


def test_a_threshold_edited_by_hand_is_refused(tmp_path, ready, images):
    labels = np.repeat(np.arange(10), 3)
    found = gallery.calibrate(bundle.embedder(ready)(images), labels, far=0.1)
    bundle.save(tmp_path / "b", ready._replace(calibration=found))
    path = tmp_path / "b" / _sealed.MANIFEST
    manifest = json.loads(path.read_text())
    manifest["content"]["calibration"]["threshold"] = -1.0
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="checksum differs"):
        bundle.load(tmp_path / "b")
