"""One command's work: data, splits, training, evaluation and report, in one folder.

    folder/config.json              the recipe and its settings
    folder/split0/metrics.jsonl     training and evaluation by step
    folder/split0/tensorboard/      the same for TensorBoard
    folder/split0/checkpoints/      the last two and the best
    folder/split0/result.json       measured at the end
    folder/split0/*.png             pictures
    folder/results.json, report.md  all splits together

Each part is written whole or not at all, and none is done twice: the same command
continues wherever an earlier one stopped.
"""

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from metricjax import data, encoders
from metricjax.training import (
    checkpoints,
    evaluate,
    folder,
    loop,
    pictures,
    recipes,
    report,
)
from metricjax.training.experiment import Experiment
from metricjax.training.settings import Settings
from metricjax.training.state import State

__all__ = [
    "Examples",
    "Plan",
    "Split",
    "execute",
    "prepare",
    "split",
    "trained_encoder",
]


class Examples(NamedTuple):
    """Labelled images.

    Attributes:
        images: `[n, height, width, channels]` uint8.
        labels: `[n]` int32.
    """

    images: np.ndarray
    labels: np.ndarray


class Split(NamedTuple):
    """What one split trains and measures on.

    Attributes:
        train: labels in `[0, classes)`.
        seen: images of the same classes that are never trained on.
        unseen: images of classes that are never trained on; labels of the data set.
        names: of the unseen classes, by label.
        classes: number of training classes.
    """

    train: Examples
    seen: Examples
    unseen: Examples
    names: dict[int, str]
    classes: int


class Plan(NamedTuple):
    """A run whose data are read, whose settings are checked, whose folder is open."""

    recipe: ModuleType
    settings: Settings
    splits: list[Split]
    experiment: Experiment
    folder: Path


def prepare(
    recipe: ModuleType,
    settings: Settings,
    *,
    out: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
) -> Plan:
    """Read the data, divide them and open the run's folder; train nothing yet.

    Args:
        recipe: a module of `metricjax.training.recipes`.
        settings: its settings.
        out: the run's folder; see `folder.open_run`.
        data_dir: the folder of raw data files; see `metricjax.data.load`.

    Returns:
        The plan, for `execute`.

    Raises:
        ValueError: if settings, data or folder do not fit; the message says what to do.
        OSError: if a file cannot be read or written.
        ImportError: if a package that reads the data is missing.

    Example:
        >>> import tempfile
        >>> from metricjax.training.recipes import triplet
        >>> plan = prepare(triplet, triplet.Settings(), out=tempfile.mkdtemp())
        >>> [list(part.names.values()) for part in plan.splits]
        [['7', '8', '9'], ['4', '5', '6'], ['1', '2', '3']]
    """
    dataset = data.load(settings.data, data_dir=data_dir, size=settings.image_size)
    splits = [split(dataset, settings, index) for index in range(settings.splits)]
    shape = dataset.images.shape[1:]
    experiment = recipe.build(settings, shape, splits[0].classes)
    # Drawn once here, so that a batch that cannot be made is refused before training.
    experiment.batches(*splits[0].train)(0)
    name = recipe.__name__.rpartition(".")[2]
    facts = {"image_shape": shape, "classes": splits[0].classes}
    facts["images"] = len(dataset.images)
    path = folder.open_run(out, recipe=name, settings=settings, data=facts)
    return Plan(recipe, settings, splits, experiment, path)


def execute(plan: Plan, *, console: Console | None = None) -> list[dict[str, Any]]:
    """Train and measure every split that is not done yet; write the report.

    Args:
        plan: from `prepare`.
        console: where to report; a `rich` console on standard output if None.

    Returns:
        The content of each split's `result.json`.

    Raises:
        FloatingPointError: if training diverges; see `loop.fit`.

    Example:
        >>> results = execute(plan)  # doctest: +SKIP
    """
    console = console or Console()
    embed = evaluate.embedder(plan.experiment.apply)
    results = [
        _train_split(plan, index, embed, console) for index in range(len(plan.splits))
    ]
    folder.write_json(plan.folder / "results.json", results)
    report.write(plan.folder, plan.recipe, plan.settings, results)
    report.show(results, console)
    console.print(f"Report: {plan.folder / 'report.md'}", soft_wrap=True)
    return results


def trained_encoder(
    path: str | os.PathLike[str], *, index: int = 0, best: bool = False
) -> encoders.Functional:
    """The encoder of a run, as training left it.

    Args:
        path: the run's folder.
        index: the split.
        best: the checkpoint with the best evaluation instead of the last.

    Returns:
        `Functional(apply, params, state)`: embed with
        `apply(params, state, images, train=False)`.

    Raises:
        FileNotFoundError: if there is no run, or no intact checkpoint of the split.

    Example:
        >>> apply, params, state = trained_encoder("runs/arcface")  # doctest: +SKIP
    """
    config = folder.read_json(Path(path) / folder.CONFIG)
    if config is None:
        raise FileNotFoundError(
            f"Expected the folder of a run, got {path}, which has no {folder.CONFIG}."
        )
    recipe = recipes.load(config["recipe"])
    settings = recipe.Settings(**config["settings"])
    shape, classes = config["data"]["image_shape"], config["data"]["classes"]
    experiment = recipe.build(settings, tuple(shape), classes)
    saved = Path(path) / f"split{index}" / loop.CHECKPOINTS
    template = jax.eval_shape(experiment.init, _key(settings))
    state = checkpoints.restore(saved, template, best=best).state
    if state is None:
        raise FileNotFoundError(
            f"Expected an intact checkpoint in {saved}, got none; train first."
        )
    return encoders.Functional(
        experiment.apply, state.params["encoder"], state.model_state
    )


def split(dataset: data.Dataset, settings: Settings, index: int) -> Split:
    """Divide a data set for one split, as `settings.Settings` says.

    Args:
        dataset: all of it.
        settings: their classes, share held out and number of evaluated images.
        index: the split, from 0.

    Returns:
        The split; a pure function of its arguments.

    Raises:
        ValueError: if there are not enough classes.

    Example:
        >>> dataset = data.Dataset(
        ...     np.zeros((20, 2, 2, 1), np.uint8),
        ...     np.repeat(np.arange(5), 4).astype(np.int32),
        ...     ("a", "b", "c", "d", "e"),
        ... )
        >>> first = split(dataset, Settings(test_classes=2, splits=2), 0)
        >>> first.names, first.classes, len(first.train.labels)
        ({3: 'd', 4: 'e'}, 3, 9)
    """
    present = np.unique(dataset.labels[dataset.labels >= 0])
    stop = len(present) - index * settings.test_classes
    first = stop - settings.test_classes
    trained = len(present) - settings.test_classes - settings.validation_classes
    if first < 0 or trained < 2:
        raise ValueError(
            f"Expected at least 2 classes to train on in each of {settings.splits} "
            f"splits of {settings.test_classes} test and {settings.validation_classes} "
            f"validation classes, got {len(present)} classes in all; lower "
            "--test-classes, --validation-classes or --splits."
        )
    parts = data.split_by_class(
        dataset.labels,
        test=[int(c) for c in present[first:stop]],
        validation=settings.validation_classes,
        seed=index,
    )
    _, labels = np.unique(dataset.labels[parts.train], return_inverse=True)
    images = dataset.images[parts.train]
    held = data.hold_out(labels, fraction=settings.held_out)
    labels = labels.astype(np.int32)
    unseen = parts.validation if settings.validation_classes else parts.test
    unseen = _evenly(unseen, settings.evaluated_images)
    seen = _evenly(held.held_out, settings.evaluated_images)
    names = {int(c): dataset.names[c] for c in np.unique(dataset.labels[unseen])}
    return Split(
        Examples(images[held.train], labels[held.train]),
        Examples(images[seen], labels[seen]),
        Examples(dataset.images[unseen], dataset.labels[unseen]),
        names,
        trained,
    )


def _evenly(indices: np.ndarray, at_most: int) -> np.ndarray:
    if len(indices) <= at_most:
        return indices
    return indices[np.linspace(0, len(indices) - 1, at_most).astype(int)]


def _train_split(
    plan: Plan, index: int, embed: evaluate.Embed, console: Console
) -> dict[str, Any]:
    part, path = plan.splits[index], plan.folder / f"split{index}"
    done = folder.read_json(path / "result.json")
    if done is not None:
        return done
    names = list(part.names.values())
    console.print(
        f"split {index}: {len(part.train.labels)} images of {part.classes} classes to "
        f"train on; never seen: {report.label(names)}",
        highlight=False,
        soft_wrap=True,
    )

    def embedded(state: State, examples: Examples) -> np.ndarray:
        return embed(state.params["encoder"], state.model_state, examples.images)

    state = plan.experiment.init(jax.random.fold_in(_key(plan.settings), index))
    before = embedded(state, part.unseen)
    state = _fit(plan, index, state, embedded, console)
    after = {"unseen": embedded(state, part.unseen), "seen": embedded(state, part.seen)}
    pictures.draw(
        path,
        part.unseen.images,
        part.unseen.labels,
        {"before": before, "after": after["unseen"]},
        names=part.names,
    )
    result = {"split": index, "unseen_classes": names, **_measured(part, after)}
    folder.write_json(path / "result.json", result)
    return result


def _fit(
    plan: Plan,
    index: int,
    state: State,
    embedded: Callable[[State, Examples], np.ndarray],
    console: Console,
) -> State:
    part, settings = plan.splits[index], plan.settings
    watched = part.unseen if settings.validation_classes else part.seen
    return loop.fit(
        plan.experiment.step,
        state,
        plan.experiment.batches(part.train.images, part.train.labels),
        steps=settings.steps,
        folder=plan.folder / f"split{index}",
        evaluate=lambda state: evaluate.scores(
            embedded(state, watched), watched.labels
        ),
        score="map_at_r",
        every=settings.evaluate_every,
        title=f"split {index}",
        console=console,
    )


def _measured(part: Split, after: dict[str, np.ndarray]) -> dict[str, Any]:
    measured = {}
    for name, examples in (("unseen", part.unseen), ("seen", part.seen)):
        raw = evaluate.raw_pixels(examples.images)
        measured[name] = {
            "raw": evaluate.scores(raw, examples.labels),
            "trained": evaluate.scores(after[name], examples.labels),
        }
    return measured


def _key(settings: Settings) -> jax.Array:
    # Programs that draw numbers compile 15 times faster with XLA's own generator.
    return jax.random.key(settings.seed, impl="rbg")
