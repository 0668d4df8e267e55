"""Twelve losses on characters never seen, all with the same means.

    python -m benchmarks.reality_check run [LOSS ...] [--data-dir DIR]
    python -m benchmarks.reality_check table

Every loss has the same encoder, batches of the same size, augmentation, optimiser and
number of images, and four points of hyperparameters, tried on validation alphabets
(one seed). The best point then trains on all background alphabets with three seeds and
is measured on the 659 classes of the evaluation set. `run` writes each result as it
comes, to the file of its loss, and goes on where it was stopped; so several processes,
on a core each, can share the losses. All see the same number of images: 102,400, which
are about two minutes of a core.

Musgrave, Belongie and Lim, "A Metric Learning Reality Check", ECCV 2020,
arXiv:2003.08505: papers compare a tuned loss with others that are not.
"""

import argparse
import dataclasses
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import harness
from metricjax import losses, metrics, numerics, reductions
from metricjax.training import evaluate, experiment, inputs, optimizers, splits
from metricjax.training.recipes import omniglot

RESULTS = Path(__file__).parent / "results" / "reality_check"
SEEDS = 3
STEPS = 800
CLASSES, EXAMPLES = 32, 4
IMAGE_SHAPE = (35, 35, 1)


class Candidate(NamedTuple):
    """A loss and the points of its hyperparameters that are tried.

    Attributes:
        loss: `(embeddings, [class weights,] labels, *, reduction=None, **point)`.
        points: four settings.
        has_classes: whether it takes a vector for each class.
        rate: learning rate of these vectors, in those of the encoder.
        reduction: from its terms to what is minimised.
    """

    loss: Callable[..., Any]
    points: Sequence[Mapping[str, float]]
    has_classes: bool = False
    rate: float = 1.0
    reduction: Callable[[reductions.Terms], jax.Array] = reductions.mean


def _grid(**values: Sequence[float]) -> list[dict[str, float]]:
    """Points whose coordinates are given in order."""
    return [
        dict(zip(values, point, strict=True))
        for point in zip(*values.values(), strict=True)
    ]


MARGINS = {"margin": (0.1, 0.2, 0.3, 0.2), "scale": (24.0, 24.0, 24.0, 16.0)}
CANDIDATES = {
    "normface": Candidate(losses.normface, _grid(scale=(8, 16, 24, 32)), True),
    "cosface": Candidate(losses.cosface, _grid(**MARGINS), True),
    "arcface": Candidate(losses.arcface, _grid(**MARGINS), True),
    "proxy_nca_pp": Candidate(
        losses.proxy_nca_pp, _grid(temperature=(0.03, 0.06, 0.11, 0.2)), True, 10.0
    ),
    "proxy_anchor": Candidate(
        losses.proxy_anchor, _grid(scale=(8, 16, 32, 64)), True, 10.0
    ),
    "supcon": Candidate(losses.supcon, _grid(temperature=(0.05, 0.1, 0.15, 0.2))),
    "ntxent": Candidate(losses.ntxent, _grid(temperature=(0.05, 0.1, 0.15, 0.2))),
    "multi_similarity": Candidate(
        losses.multi_similarity, _grid(negative_scale=(10, 20, 40, 50))
    ),
    "circle": Candidate(losses.circle, _grid(scale=(16, 32, 80, 128))),
    # Over the pairs that cost something, as its users have it: the others, which soon
    # are nearly all, would leave the mean to the positive pairs.
    "contrastive": Candidate(
        losses.contrastive,
        _grid(margin=(0.6, 0.8, 1.0, 1.2)),
        reduction=reductions.mean_active,
    ),
    "triplet_semihard": Candidate(
        functools.partial(losses.triplet_semihard, fallback=True),
        _grid(margin=(0.2, 0.5, 0.8, 1.0)),
    ),
    "triplet_hard": Candidate(losses.triplet_hard, _grid(margin=(0.1, 0.2, 0.4, 0.6))),
}


def build(
    candidate: Candidate,
    point: Mapping[str, float],
    settings: omniglot.Settings,
    classes: int,
) -> experiment.Experiment:
    """The training problem of a loss at one point."""

    def loss(x: jax.Array, params: Any, labels: jax.Array) -> Any:
        if candidate.has_classes:
            return candidate.loss(x, params["head"], labels, reduction=None, **point)
        x = numerics.l2_normalize(x)
        return candidate.loss(x, labels, reduction=None, **point)

    if candidate.has_classes:
        init_head = experiment.class_weights(settings, classes)
        batches = inputs.shuffled_batches(settings, batch=CLASSES * EXAMPLES)
    else:
        init_head = None
        batches = inputs.pk_batches(settings, classes=CLASSES, examples=EXAMPLES)
    return experiment.supervised(
        settings,
        IMAGE_SHAPE,
        loss,
        batches=batches,
        init_head=init_head,
        optimizer=optimizers.adamw(settings, rates={"head": candidate.rate})
        if candidate.has_classes
        else None,
        reduction=candidate.reduction,
    )


def train(
    candidate: Candidate,
    point: Mapping[str, float],
    settings: omniglot.Settings,
    part: splits.Split,
) -> dict[str, float]:
    """Train once, and measure on the split's unseen classes."""
    problem = build(candidate, point, settings, len(part.trained_on))
    draw = problem.batches(part.train, settings.seed)
    state = problem.init(jax.random.key(settings.seed, impl="rbg"))
    start = time.perf_counter()
    for t in range(settings.steps):
        state, _ = problem.step(state, draw(t))
    jax.block_until_ready(state)
    seconds = time.perf_counter() - start
    assert part.unseen is not None
    embed = evaluate.embedder(problem.apply)
    x = embed(state.params["encoder"], state.model_state, part.unseen.images)
    values = metrics.retrieval.per_query(x, part.unseen.labels, ks=(1,))
    mean = metrics.retrieval.mean(values)
    interval = metrics.retrieval.bootstrap(values, part.unseen.labels, seed=0)
    return {
        "recall_at_1": float(mean.recall_at_k[0]),
        "recall_at_1_low": float(interval.low.recall_at_k[0]),
        "recall_at_1_high": float(interval.high.recall_at_k[0]),
        "map_at_r": float(mean.map_at_r),
        "seconds": round(seconds, 1),
    }


def run(names: Sequence[str], data_dir: str | None) -> None:
    """All of these losses that has not been done yet."""
    tuning = omniglot.Settings(steps=STEPS, dim=128, validation_alphabets=5)
    final = dataclasses.replace(tuning, validation_alphabets=0)
    parts = {
        settings: omniglot.divide(settings, data_dir=data_dir)[0]
        for settings in (tuning, final)
    }
    for name in names:
        candidate, entry = CANDIDATES[name], _read(name) or _nothing()
        for point in candidate.points[len(entry["tuning"]) :]:
            found = train(candidate, point, tuning, parts[tuning])
            entry["tuning"].append({**point, **found})
            _write(name, entry)
        best = _best(entry["tuning"], candidate)
        for seed in range(len(entry["final"]), SEEDS):
            settings = dataclasses.replace(final, seed=seed)
            found = train(candidate, best, settings, parts[final])
            entry["final"].append({**best, **found})
            _write(name, entry)


def _best(tuned: Sequence[Mapping[str, float]], candidate: Candidate) -> dict:
    place = int(np.argmax([found["recall_at_1"] for found in tuned]))
    return dict(candidate.points[place])


def _read(name: str) -> dict[str, Any] | None:
    """What was found so far about a loss, if anything was."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _nothing() -> dict[str, Any]:
    return {"machine": harness.machine(), "steps": STEPS, "tuning": [], "final": []}


def _write(name: str, entry: Mapping[str, Any]) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")


def table() -> str:
    """The losses by their Recall@1, as Markdown."""
    rows = []
    for name in CANDIDATES:
        entry = _read(name)
        if entry and len(entry["final"]) == SEEDS:
            rows.append((_mean(entry, "recall_at_1"), _row(name, entry)))
    head = [
        "| loss | settings | Recall@1, 3 seeds | 95 % interval | MAP@R |",
        "|---|---|---:|---:|---:|",
    ]
    return "\n".join(head + [row for _, row in sorted(rows, reverse=True)])


def _mean(entry: Mapping[str, Any], key: str) -> float:
    return statistics.fmean(found[key] for found in entry["final"])


def _row(name: str, entry: Mapping[str, Any]) -> str:
    point = CANDIDATES[name].points[0]
    chosen = ", ".join(f"{key} {entry['final'][0][key]:g}" for key in point)
    spread = statistics.stdev(found["recall_at_1"] for found in entry["final"])
    low, high = _mean(entry, "recall_at_1_low"), _mean(entry, "recall_at_1_high")
    return (
        f"| `{name}` | {chosen} | {_mean(entry, 'recall_at_1'):.4f} ± {spread:.4f} | "
        f"{low:.4f}-{high:.4f} | {_mean(entry, 'map_at_r'):.4f} |"
    )


def main(arguments: Sequence[str]) -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("losses", nargs="*", metavar="LOSS", help="all by default")
    parser.add_argument("--data-dir", default=None)
    options = parser.parse_args(arguments)
    if unknown := set(options.losses) - set(CANDIDATES):
        parser.error(f"expected losses of {', '.join(CANDIDATES)}; got {unknown}")
    if options.what == "run":
        run(options.losses or list(CANDIDATES), options.data_dir)
    print(table())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
