"""Recipe omniglot: what its figures are of, and by which views they are told apart."""

import jax
import numpy as np
import pytest

from metricjax.metrics import fewshot
from metricjax.training import evaluate, run, views
from metricjax.training.recipes import omniglot
from tests.training.test_siamese import write_omniglot

SMALL = {"encoder": "mlp", "width": 1, "dim": 3, "views": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("raw")
    write_omniglot(found)
    return found


@pytest.mark.parametrize(
    ("joined", "few", "many"),
    [(False, "1 view", "2 views"), (True, "1 view x 4", "2 views x 4")],
)
def test_errors_are_those_of_each_kind_of_view(folder, monkeypatch, joined, few, many):
    monkeypatch.setattr(omniglot, "_WAYS", 3)
    settings = omniglot.Settings(**SMALL, join_symmetries=joined)
    (part,) = omniglot.divide(settings, data_dir=folder)
    assert part.unseen is not None
    problem = omniglot.build(settings, part.train.images.shape[1:], 6)
    state = problem.init(jax.random.key(0))
    params, kept = state.params["encoder"], state.model_state
    seen = views.of_content("characters", 2, size=28)
    embeddings = {
        name: evaluate.embedder(apply)(params, kept, part.unseen.images)
        for name, apply in (
            (few, problem.apply),
            (many, views.averaged(problem.apply, seen)),
        )
    }
    assert embeddings[few].shape == (120, 12 if joined else 3)
    tasks = omniglot._tasks(part.unseen)
    expected = {
        f"error of tasks within all alphabets, {name}": 1.0
        - float(fewshot.evaluate(x, tasks).accuracy)
        for name, x in embeddings.items()
    }
    trained = run.Trained(state, problem.apply, lambda images: embeddings[few])
    found = omniglot.measure(settings, part, trained, data_dir=folder)
    assert found == pytest.approx(expected, abs=1e-6)
    assert len(set(np.round(list(found.values()), 4))) == 2
