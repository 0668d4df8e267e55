"""What is found out about a trained split: figures, threshold, pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from rich.console import Console

from metricjax import encoders, gallery, samplers, similarities
from metricjax.metrics import health
from metricjax.training import evaluate, inputs, measures, pictures, step
from metricjax.training._plan import Plan, Trained, key
from metricjax.training._worst import worst_pairs
from metricjax.training.experiment import Experiment
from metricjax.training.splits import Examples, Split

_SHOWN = 6


def watched(
    experiment: Experiment, embeddings: np.ndarray, labels: np.ndarray, console: Console
) -> dict[str, float]:
    """What is measured during training; says so if the embeddings have collapsed."""
    warning = health.collapse_warning(embeddings)
    if warning is not None:
        console.print(warning, style="yellow", soft_wrap=True)
    found = evaluate.scores(embeddings, labels, similarity=experiment.similarity)
    return {**found, "effective_rank": float(health.effective_rank(embeddings))}


def calibrated(plan: Plan, part: Split, trained: Trained) -> gallery.Calibration | None:
    """The threshold that the calibration classes choose, as a bundle applies it.

    None without such classes, and where cosines are not what is compared.
    """
    if part.calibration is None or not _is_cosine(plan.experiment):
        return None
    embeddings = trained.embed(part.calibration.images)
    return gallery.calibrate(embeddings, part.calibration.labels, far=plan.settings.far)


def _is_cosine(experiment: Experiment) -> bool:
    return experiment.similarity is similarities.cosine


def threshold(
    part: Split, tested: np.ndarray, found: gallery.Calibration | None
) -> dict[str, Any] | None:
    """The threshold, and what it does to the classes that are tested."""
    if found is None:
        return None
    rates = gallery.rates_at(tested, part.tested.labels, found.threshold)
    plain = ("threshold", "far", "observed_far", "far_interval", "tar", "impostors")
    return {
        "calibration": {name: getattr(found, name) for name in plain},
        "test": rates._asdict(),
    }


def worst(plan: Plan, part: Split, tested: np.ndarray) -> dict[str, Any]:
    """The worst pairs, by the names of their classes."""
    names = part.names or dict(enumerate(part.trained_on))
    labels = part.tested.labels
    found = worst_pairs(tested, labels, similarity=plan.experiment.similarity)
    return {
        kind: [
            [names[int(labels[a])], names[int(labels[b])], float(similarity)]
            for a, b, similarity in zip(*pairs, strict=True)
        ]
        for kind, pairs in zip(("impostors", "genuine"), found, strict=True)
    }


def draw(
    plan: Plan,
    path: Path,
    part: Split,
    before: np.ndarray,
    after: np.ndarray,
    found: gallery.Calibration | None,
) -> None:
    """The pictures of the classes that are tested."""
    pictures.draw(
        path,
        part.tested.images,
        part.tested.labels,
        {"before": before, "after": after},
        names=part.names or dict(enumerate(part.trained_on)),
        seen=part.unseen is None,
        similarity=plan.experiment.similarity,
        threshold=None if found is None else found.threshold,
    )


def draw_examples(plan: Plan, path: Path, part: Split, change: step.Prepare) -> None:
    """A few training images, changed at random as in training."""
    if part.train.images.ndim != 4:
        return
    settings = plan.settings
    kind = getattr(plan.recipe, "EXAMPLES", "pairs")
    copies = settings.symmetries
    labels = inputs.multiplied(part.train.labels, copies)
    first, second, same = samplers.pair_batch(
        labels, pairs=2 * _SHOWN, seed=settings.seed, step=0
    )
    if kind == "views":
        second = np.where(same, first, second)
    rows = np.concatenate([first, second])
    if kind == "triplets":
        # Two images of different classes: one of them is of another than the anchor.
        a, b = first[~same], second[~same]
        other = np.where(labels[a] == labels[first[same]], b, a)
        rows = np.concatenate([first[same], second[same], other])
    images = encoders.as_float(part.train.images[rows // copies])
    seen, _ = change(key(settings), images, jnp.asarray(labels[rows]))
    pictures.draw_examples(
        path, np.asarray(seen), labels[rows], triplets=kind == "triplets"
    )


def measured(
    experiment: Experiment, after: Mapping[str, tuple[Examples, np.ndarray]]
) -> dict[str, Any]:
    """What is measured of every set: raw pixels and trained embeddings."""
    measured = {}
    for name, (examples, embeddings) in after.items():
        raw = evaluate.raw_pixels(examples.images)
        measured[name] = {
            "raw": evaluate.scores(raw, examples.labels),
            "trained": evaluate.scores(
                embeddings, examples.labels, similarity=experiment.similarity
            ),
        }
    return measured


def further(
    plan: Plan,
    part: Split,
    trained: Trained,
    after: Mapping[str, tuple[Examples, np.ndarray]],
    calibration: gallery.Calibration | None,
) -> dict[str, float]:
    """What this kind of split, and this recipe, measure besides."""
    found: dict[str, float] = {}
    if part.unseen is None:
        examples, embeddings = after["seen"]
        found |= measures.classified(
            embeddings,
            examples.labels,
            trained.embed(part.train.images),
            part.train.labels,
            similarity=plan.experiment.similarity,
        )
    if calibration is not None and part.unseen is not None:
        examples, embeddings = after["unseen"]
        found |= measures.identified(embeddings, examples.labels)
        found |= measures.thresholded(calibration, embeddings, examples.labels)
    measure = getattr(plan.recipe, "measure", None)
    if measure is not None:
        found |= measure(plan.settings, part, trained, data_dir=plan.data_dir)
    return found
