import numpy as np
import pytest
from jax import export

from metricjax import bundle


@pytest.fixture(scope="module")
def images(digits):
    return digits[:, 0].reshape(-1, 28, 28, 1)


def test_the_program_read_back_embeds_as_the_bundle_does(ready, images):
    pytest.importorskip("flatbuffers")
    data = bundle.export(ready).serialize()
    program = export.deserialize(data)
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert str(program.in_avals[0]) == "uint8[batch,28,28,1]"
    for count in (1, 3, 10):
        found = program.call(images[:count])
        expected = bundle.embedder(ready)(images[:count])
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_platforms_can_be_chosen(ready):
    assert bundle.export(ready, platforms=["tpu"]).platforms == ("tpu",)


def test_safetensors_hold_every_array_by_its_keys(tmp_path, ready):
    library = pytest.importorskip("safetensors.numpy")
    bundle.save_safetensors(tmp_path / "w.safetensors", ready)
    found = library.load_file(tmp_path / "w.safetensors")
    assert sorted(found) == [
        "params/embedding/bias",
        "params/embedding/kernel",
        "params/hidden/0/bias",
        "params/hidden/0/kernel",
    ]
    kernel = ready.params["hidden"][0]["kernel"]
    np.testing.assert_array_equal(found["params/hidden/0/kernel"], kernel)


@pytest.mark.filterwarnings("ignore")
def test_an_onnx_model_embeds_as_the_bundle_does(tmp_path, ready, images):
    pytest.importorskip("jax2onnx")
    runtime = pytest.importorskip("onnxruntime")
    bundle.save_onnx(tmp_path / "m.onnx", ready)
    session = runtime.InferenceSession(str(tmp_path / "m.onnx"))
    name = session.get_inputs()[0].name
    for count in (1, 7):
        (found,) = session.run(None, {name: images[:count]})
        expected = bundle.embedder(ready)(images[:count])
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("save", "package"),
    [(bundle.save_onnx, "jax2onnx"), (bundle.save_safetensors, "safetensors.numpy")],
)
def test_a_missing_package_is_named(tmp_path, ready, monkeypatch, save, package):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(ImportError, match=f"package {package.partition('.')[0]}"):
        save(tmp_path / "file", ready)
    assert not (tmp_path / "file").exists()
