"""From a training run to an answer, on real digits, in test size."""

import numpy as np
import pytest
from rich.console import Console

from metricjax import bundle, data
from metricjax.training import pictures, recipes, run
from tests.bundle.conftest import picture

__all__ = ["picture"]


def train(out):
    """A run that never sees the digits 5 to 9."""
    recipe = recipes.load("triplet")
    settings = recipe.Settings(
        test_classes=5,
        splits=1,
        steps=60,
        encoder="mlp",
        symmetries=1,
        augmentation=0.5,
        batch_classes=5,
        batch_examples=8,
        evaluated_images=60,
        evaluate_every=60,
        learning_rate=5e-3,
    )
    plan = run.prepare(recipe, settings, out=out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "draw", lambda *args, **kwargs: None)
        run.execute(plan, console=Console(quiet=True))


def assert_embeds_as_the_run_does(faces, images):
    ready = bundle.load(faces)
    recipe = recipes.load("triplet")
    settings = recipe.Settings(**ready.architecture["settings"])
    apply = recipe.build(settings, (28, 28, 1), 5).apply
    x = np.asarray(apply(ready.params, ready.state, images, train=False)[0])
    expected = x / np.linalg.norm(x, axis=1, keepdims=True)
    found = bundle.embedder(ready)(images)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_run_becomes_a_bundle_that_knows_and_does_not_know(mj, tmp_path, picture):
    digits = data.load("digits")
    for digit in range(5, 10):
        part = "test" if digit in (6, 7) else "calibrate"
        for i, image in enumerate(digits.images[digits.labels == digit][:30]):
            picture(tmp_path / part / f"{digit}" / f"{i:02}.png", image[..., 0])
    trained, faces, new = tmp_path / "run", tmp_path / "faces", tmp_path / "test"
    train(trained)
    unfinished = mj("bundle", trained, faces, "--split", 1)
    assert unfinished.code == 2
    assert "Expected a finished split 1" in unfinished.errors[0]
    assert mj("bundle", trained, faces).code == 0
    assert bundle.load(faces).trained_on == tuple("01234")
    assert_embeds_as_the_run_does(faces, digits.images[::500])
    found = mj("calibrate", faces, tmp_path / "calibrate", "--far", "0.2", "--json")
    assert found.json[0]["impostors"] == 3 * 30 * 30
    assert found.json[0]["observed_far"] <= 0.2
    measured = mj("evaluate", faces, new, "--json").json[0]
    assert measured["verification"]["auc"] > 0.7
    (tmp_path / "later").mkdir()
    for i in range(15, 30):
        (new / "6" / f"{i:02}.png").rename(tmp_path / "later" / f"{i:02}.png")
    assert mj("enroll", faces, new / "6", "--name", "six", "--mean").code == 0
    known, unknown = (
        np.mean([line["known"] for line in mj("identify", faces, f, "--json").json])
        for f in (tmp_path / "later", new / "7")
    )
    assert known > unknown + 0.3
