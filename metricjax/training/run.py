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
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from metricjax import encoders
from metricjax.training import (
    checkpoints,
    evaluate,
    finetune,
    folder,
    loop,
    measures,
    pictures,
    recipes,
    report,
    splits,
)
from metricjax.training.experiment import Experiment
from metricjax.training.settings import Settings
from metricjax.training.splits import Examples, Split
from metricjax.training.state import State

__all__ = ["Plan", "Trained", "execute", "prepare", "trained_encoder"]


class Plan(NamedTuple):
    """A run whose data are read, whose settings are checked, whose folder is open."""

    recipe: ModuleType
    settings: Settings
    splits: list[Split]
    experiment: Experiment
    folder: Path
    data_dir: str | os.PathLike[str] | None


class Trained(NamedTuple):
    """A trained split, for a recipe's own `measure` and `draw`.

    Attributes:
        state: after the last step.
        apply: the encoder.
        embed: embeddings of images, as an array `[n, dim]`.
    """

    state: State
    apply: encoders.Apply
    embed: Callable[[np.ndarray], np.ndarray]


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
    divide = getattr(recipe, "divide", splits.divide)
    parts = divide(settings, data_dir=data_dir)
    shape, classes = parts[0].train.images.shape[1:], len(parts[0].trained_on)
    experiment = recipe.build(settings, shape, classes)
    # Drawn once here, so that a batch that cannot be made is refused before training.
    experiment.batches(parts[0].train, _seed(settings, 0))(0)
    name = recipe.__name__.rpartition(".")[2]
    facts = {"image_shape": shape, "classes": classes}
    facts["images"] = len(parts[0].train.images)
    path = folder.open_run(out, recipe=name, settings=settings, data=facts)
    return Plan(recipe, settings, parts, experiment, path, data_dir)


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


def _train_split(
    plan: Plan, index: int, embed: evaluate.Embed, console: Console
) -> dict[str, Any]:
    part, path = plan.splits[index], plan.folder / f"split{index}"
    done = folder.read_json(path / "result.json")
    if done is not None:
        return done
    unseen = report.label(list(part.names.values())) if part.names else "nothing"
    console.print(
        f"split {index}: {len(part.train.labels)} images of {len(part.trained_on)} "
        f"classes to train on; never seen: {unseen}",
        highlight=False,
        soft_wrap=True,
    )

    def embedded(state: State, examples: Examples) -> np.ndarray:
        return embed(state.params["encoder"], state.model_state, examples.images)

    state = _started(plan, index)
    before = embedded(state, part.tested)
    state = _fit(plan, index, state, embedded, console)
    after = {
        name: (examples, embedded(state, examples))
        for name, examples in (("unseen", part.unseen), ("seen", part.seen))
        if examples is not None
    }
    _draw(plan, path, part, before, after["unseen" if part.unseen else "seen"][1])
    trained = Trained(
        state,
        plan.experiment.apply,
        lambda images: embed(state.params["encoder"], state.model_state, images),
    )
    result = {
        "split": index,
        "trained_on": list(part.trained_on),
        "unseen_classes": list(part.names.values()),
        **_measured(plan.experiment, after),
        "further": _further(plan, part, trained, after),
    }
    folder.write_json(path / "result.json", result)
    return result


def _started(plan: Plan, index: int) -> State:
    """The state before the first step, from a trained encoder if one is named."""
    settings = plan.settings
    state = plan.experiment.init(jax.random.fold_in(_key(settings), index))
    if not settings.init_from:
        return state
    weights = state.params["encoder"], state.model_state
    params, model_state = finetune.load_params(
        settings.init_from, weights, fresh=settings.fresh
    )
    params = {**state.params, "encoder": params}
    return state._replace(params=params, model_state=model_state)


def _fit(
    plan: Plan,
    index: int,
    state: State,
    embedded: Callable[[State, Examples], np.ndarray],
    console: Console,
) -> State:
    part, settings = plan.splits[index], plan.settings
    watched = part.watched

    def score(state: State) -> dict[str, float]:
        assert watched is not None
        return evaluate.scores(
            embedded(state, watched),
            watched.labels,
            similarity=plan.experiment.similarity,
        )

    return loop.fit(
        plan.experiment.step,
        state,
        plan.experiment.batches(part.train, _seed(settings, index)),
        steps=settings.steps,
        folder=plan.folder / f"split{index}",
        evaluate=score if watched else None,
        score="map_at_r" if watched else None,
        every=settings.evaluate_every,
        title=f"split {index}",
        console=console,
    )


def _draw(
    plan: Plan, path: Path, part: Split, before: np.ndarray, after: np.ndarray
) -> None:
    pictures.draw(
        path,
        part.tested.images,
        part.tested.labels,
        {"before": before, "after": after},
        names=part.names or dict(enumerate(part.trained_on)),
        seen=part.unseen is None,
        similarity=plan.experiment.similarity,
    )


def _measured(
    experiment: Experiment, after: Mapping[str, tuple[Examples, np.ndarray]]
) -> dict[str, Any]:
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


def _further(
    plan: Plan,
    part: Split,
    trained: Trained,
    after: Mapping[str, tuple[Examples, np.ndarray]],
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
    if part.calibration is not None and part.unseen is not None:
        examples, embeddings = after["unseen"]
        found |= measures.identified(embeddings, examples.labels)
        found |= measures.thresholded(
            trained.embed(part.calibration.images),
            part.calibration.labels,
            embeddings,
            examples.labels,
            far=plan.settings.far,
        )
    measure = getattr(plan.recipe, "measure", None)
    if measure is not None:
        found |= measure(plan.settings, part, trained, data_dir=plan.data_dir)
    return found


def _seed(settings: Settings, index: int) -> int:
    # Splits draw their own batches, and split 0 those of the seed itself.
    return settings.seed + (index << 32)


def _key(settings: Settings) -> jax.Array:
    # Programs that draw numbers compile 15 times faster with XLA's own generator.
    return jax.random.key(settings.seed, impl="rbg")
