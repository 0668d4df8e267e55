"""`--whiten`: runs whose embeddings are whitened, and what is made of them."""

import io

import jax
import numpy as np
import pytest
from rich.console import Console

from metricjax import bundle, whitening
from metricjax.training import folder, pictures, recipes, run

FLAT = {
    "encoder": "mlp",
    "width": 1,
    "dim": 6,
    "symmetries": 1,
    "steps": 4,
    "splits": 1,
    "evaluate_every": 4,
    "calibration_classes": 2,
}


def execute(out, **changes):
    module = recipes.load("arcface")
    quiet = Console(file=io.StringIO())
    plan = run.prepare(
        module, module.Settings(**{**FLAT, **changes}), out=out, console=quiet
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "draw", nothing)
        patch.setattr(pictures, "draw_examples", nothing)
        return plan, run.execute(plan, console=quiet)


def nothing(*arguments, **options):
    """In the place of pictures, which take longer than training."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    out = tmp_path_factory.mktemp("plain")
    return out, *execute(out)


@pytest.fixture(scope="module")
def whitened(tmp_path_factory):
    out = tmp_path_factory.mktemp("whitened")
    return out, *execute(out, whiten=0.3, whiten_total=0.2)


def embedded(out, images):
    apply, params, state = run.trained_encoder(out)
    return np.asarray(apply(params, state, images, train=False)[0])


def test_training_is_the_same_and_embeddings_are_those_of_the_training_images_whitened(
    plain, whitened
):
    part = plain[1].splits[0]
    known = embedded(plain[0], part.train.images)
    whitener = whitening.within_class(
        known, part.train.labels, shrinkage=0.3, total=0.2
    )
    expected = whitening.apply(whitener, embedded(plain[0], part.unseen.images))
    found = embedded(whitened[0], part.unseen.images)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    before, after = (
        kind[2][0]["unseen"]["trained"]["eer"] for kind in (plain, whitened)
    )
    assert before != after
    thresholds = [
        kind[2][0]["threshold"]["calibration"]["threshold"]
        for kind in (plain, whitened)
    ]
    assert thresholds[0] != thresholds[1]


def test_symmetries_side_by_side_are_whitened_each_by_itself(tmp_path):
    joined = {"symmetries": 4, "join_symmetries": True}
    bare, plan, _ = tmp_path / "bare", *execute(tmp_path / "bare", **joined)
    out = tmp_path / "whitened"
    execute(out, whiten=0.3, whiten_total=0.2, **joined)
    part = plan.splits[0]
    known, unseen = (
        embedded(bare, images).reshape(-1, 4, 6)
        for images in (part.train.images, part.tested.images)
    )
    found = embedded(out, part.tested.images).reshape(-1, 4, 6)
    for k in range(4):
        whitener = whitening.within_class(
            known[:, k], part.train.labels, shrinkage=0.3, total=0.2
        )
        expected = whitening.apply(whitener, unseen[:, k])
        np.testing.assert_allclose(found[:, k], expected, rtol=1e-3, atol=1e-4)
    saved = bundle.embedder(bundle.from_run(out))
    raw = found.reshape(-1, 24)[:5]
    expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(saved(part.tested.images[:5]), expected, atol=1e-4)


def test_a_bundle_has_it(whitened, tmp_path):
    out, plan, _ = whitened
    images = plan.splits[0].unseen.images[:5]
    bundle.save(tmp_path / "bundle", bundle.from_run(out))
    again = bundle.load(tmp_path / "bundle")
    raw = embedded(out, images)
    expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    found = bundle.embedder(again)(images)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_run_starts_from_a_whitened_one_and_the_other_way_round(
    plain, whitened, tmp_path
):
    for source, whiten in ((whitened[0], None), (plain[0], 0.5)):
        settings = {"init_from": str(source), "steps": 1, "learning_rate": 1e-9}
        out = tmp_path / str(whiten)
        plan, _ = execute(out, whiten=whiten, evaluate_every=1, **settings)
        images = plan.splits[0].tested.images[:4]
        apply, params, state = run.trained_encoder(out)
        own = run.trained_encoder(plain[0])
        assert ("whitening" in state) == (whiten is not None)
        bare = {k: v for k, v in state.items() if k != "whitening"}
        for a, b in zip(
            jax.tree.leaves(params), jax.tree.leaves(own.params), strict=True
        ):
            np.testing.assert_allclose(a, b, atol=1e-6)
        if whiten is None:
            found = apply(params, bare, images, train=False)[0]
            expected = own.apply(own.params, own.state, images, train=False)[0]
            np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_split_that_was_not_finished_has_no_encoder_yet(whitened, tmp_path):
    out, plan, results = whitened
    file = out / "split0" / "whitening.npz"
    content = file.read_bytes()
    try:
        file.unlink()
        with pytest.raises(FileNotFoundError, match="command that started the run"):
            run.trained_encoder(out)
        file.write_bytes(content[:100])
        with pytest.raises(ValueError, match="got a damaged file"):
            run.trained_encoder(out)
        # The same command makes it again, from the checkpoint that is there.
        (out / "split0" / "result.json").unlink()
        again = execute(out, whiten=0.3, whiten_total=0.2)[1]
        assert again == results
        np.testing.assert_array_equal(np.load(file)["mean"].shape, (6,))
    finally:
        file.write_bytes(content)
    with pytest.raises(ValueError, match="Expected `best=False`"):
        run.trained_encoder(out, best=True)


def test_where_cosines_are_not_compared_it_is_refused(tmp_path):
    module = recipes.load("center")
    settings = module.Settings(encoder="mlp", width=1, whiten=0.3)
    with pytest.raises(ValueError, match="no --whiten where embeddings are not"):
        run.prepare(module, settings, out=tmp_path, console=Console(file=io.StringIO()))
    with pytest.raises(ValueError, match=r"--whiten in \(0, 1\], got 2"):
        module.Settings(whiten=2.0)
    with pytest.raises(ValueError, match=r"--whiten-total in \[0, 1\], got 2"):
        module.Settings(whiten=0.3, whiten_total=2.0)
    with pytest.raises(ValueError, match=r"--whiten with --whiten-total 0.2"):
        module.Settings(whiten_total=0.2)


def test_a_run_of_before_the_setting_was_there_goes_on(tmp_path):
    settings = recipes.load("arcface").Settings(seed=3)
    path = folder.open_run(tmp_path, recipe="arcface", settings=settings)
    config = folder.read_json(path / "config.json")
    del config["settings"]["whiten"], config["settings"]["average_views"]
    folder.write_json(path / "config.json", config)
    folder.open_run(tmp_path, recipe="arcface", settings=settings)
    changed = recipes.load("arcface").Settings(seed=3, whiten=0.1)
    with pytest.raises(ValueError, match=r"whiten was None, is 0.1\); choose another"):
        folder.open_run(tmp_path, recipe="arcface", settings=changed)
