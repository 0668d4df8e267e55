"""One command's work: data, splits, training, evaluation and report, in one folder.

    folder/config.json              the recipe and its settings
    folder/split0/metrics.jsonl     training and evaluation by step
    folder/split0/tensorboard/      the same for TensorBoard
    folder/split0/checkpoints/      the last two and the best
    folder/split0/calibration.json  the threshold, if there are calibration classes
    folder/split0/result.json       measured at the end
    folder/split0/*.png             pictures
    folder/results.json             all splits together
    folder/report.md, report.html   the same to be read

Each part is written whole or not at all, and none is done twice: the same command
continues wherever an earlier one stopped.

Several processes, see `processes.join`, train together. They call all of this alike,
and share the folder, in which the first of them alone writes; it alone measures.
"""

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from rich.console import Console

from metricjax import encoders
from metricjax.gallery import _json as gallery_json
from metricjax.training import (
    _outcome,
    _plan,
    _reading,
    _whitening,
    checkpoints,
    evaluate,
    folder,
    inputs,
    loop,
    parallel,
    processes,
    recipes,
    report,
    splits,
    step,
)
from metricjax.training._plan import Plan, Trained
from metricjax.training.experiment import Experiment
from metricjax.training.settings import PairSettings, Settings
from metricjax.training.splits import Examples
from metricjax.training.state import State

__all__ = ["Plan", "Trained", "execute", "prepare", "trained_encoder"]


CALIBRATION = "calibration.json"
# Class weights, which have rows of padding where they are divided among devices.
_HEAD = ("head",)


def prepare(
    recipe: ModuleType,
    settings: Settings,
    *,
    out: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    devices: int | None = None,
    shard_classes: bool = False,
    console: Console | None = None,
) -> Plan:
    """Read the data, divide them and open the run's folder; train nothing yet.

    Of image files a report is shown first, before anything is refused.

    Args:
        recipe: a module of `metricjax.training.recipes`.
        settings: its settings.
        out: the run's folder; see `folder.open_run`.
        data_dir: the folder of raw data files; see `metricjax.data.load`.
        devices: each batch is divided among so many, 0 for all that there are; a run
            may go on with another number. By default one, or all where classes are
            divided or there are several processes.
        shard_classes: class weights are divided among the devices too.
        console: where to report; a `rich` console on standard output if None.

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
    first = processes.is_first()
    with processes.together("the preparation of the run"):
        reading = _reading.read(settings, console=console or Console(quiet=not first))
        if reading is None:
            divide = getattr(recipe, "divide", splits.divide)
            parts = divide(settings, data_dir=data_dir)
        else:
            parts = splits.divided(reading.dataset, settings)
        shape, classes = parts[0].train.images.shape[1:], len(parts[0].trained_on)
        experiment = recipe.build(settings, shape, classes)
        _check_batch(settings, classes)
        # Drawn once here: a batch that cannot be made is refused before training.
        batch = experiment.batches(parts[0].train, _plan.seed(settings, 0))(0)
        name = recipe.__name__.rpartition(".")[2]
        layout = None
        if _is_divided(devices, shard_classes):
            experiment, layout = _on_devices(
                experiment, devices or 0, batch, name if shard_classes else None
            )
        facts = {"image_shape": shape, "classes": classes}
        facts["images"] = len(parts[0].train.images)

    def opened(*, exists: bool) -> Path:
        return folder.open_run(
            out, recipe=name, settings=settings, data=facts, exists=exists
        )

    with processes.together("the opening of the run's folder"):
        path = opened(exists=False) if first else Path(out)
    with processes.together("a look into the run's folder"):
        path = path if first else opened(exists=True)
    inspection = reading.inspection if reading else None
    return Plan(recipe, settings, parts, experiment, path, data_dir, inspection, layout)


def _is_divided(devices: int | None, shard_classes: bool) -> bool:
    many = jax.process_count() > 1 or devices not in (None, 1)
    return many or shard_classes


def _on_devices(
    experiment: Experiment, devices: int, batch: Any, sharded: str | None
) -> tuple[Experiment, Any]:
    """The same problem on many devices, and the layout of its state.

    With the recipe's name in `sharded` its class weights are divided.
    """
    mesh = parallel.make_mesh(devices)
    if sharded is not None:
        if experiment.class_sharded is None:
            raise ValueError(
                "Expected a margin softmax, such as recipe arcface, for "
                f"--shard-classes, got recipe {sharded}, which has no class weights, "
                "or a loss that needs all of them at once; leave the flag out."
            )
        experiment = experiment.class_sharded(mesh)
    parallel.place(batch, mesh)
    shapes = jax.eval_shape(experiment.init, jax.random.key(0))
    divided = _HEAD if sharded is not None else ()
    layout = parallel.layout(shapes, mesh, divided=divided)
    step = parallel.data_parallel(experiment.step, mesh, layout)
    return experiment._replace(step=step), layout


def _check_batch(settings: Settings, classes: int) -> None:
    if not isinstance(settings, PairSettings):
        return
    most = classes * settings.symmetries
    if settings.batch_classes > most:
        turned = (
            f" x {settings.symmetries} symmetries" if settings.symmetries > 1 else ""
        )
        raise ValueError(
            f"Expected --batch-classes of at most {most}, {classes} classes to train on"
            f"{turned}, got {settings.batch_classes}; give --batch-classes "
            f"{max(most // 2, 2)}."
        )


def execute(plan: Plan, *, console: Console | None = None) -> list[dict[str, Any]]:
    """Train and measure every split that is not done yet; write the report.

    Args:
        plan: from `prepare`.
        console: where to report; a `rich` console on standard output if None.

    Returns:
        The content of each split's `result.json`; of several processes, the first has
        it alone.

    Raises:
        FloatingPointError: if training diverges; see `loop.fit`.
        ConnectionAbortedError: if another process failed.

    Example:
        >>> results = execute(plan)  # doctest: +SKIP
    """
    first = processes.is_first()
    console = console or Console(quiet=not first)
    embed = evaluate.embedder(plan.experiment.apply)
    change = jax.jit(inputs.preparation(plan.settings))
    results = [
        _train_split(plan, index, embed, change, console)
        for index in range(len(plan.splits))
    ]
    with processes.together("the report"):
        if first:
            _report(plan, results, console)
    return results


def _report(plan: Plan, results: list[dict[str, Any]], console: Console) -> None:
    folder.write_json(plan.folder / "results.json", results)
    report.write(
        plan.folder,
        plan.recipe,
        plan.settings,
        results,
        inspection=plan.inspection,
        summary=_summary(plan),
    )
    report.show(results, console)
    place = plan.folder / "report.html"
    console.print(f"Report: {place}", soft_wrap=True, markup=False, highlight=False)


def _summary(plan: Plan) -> str | None:
    """The encoder's parameters as a Markdown table; vectors have no image to show."""
    shape = plan.splits[0].train.images.shape[1:]
    if len(shape) != 3:
        return None

    def init(key: jax.Array) -> tuple[Any, Any]:
        state = plan.experiment.init(key)
        return state.params["encoder"], state.model_state

    return encoders.summary(encoders.Deferred(plan.experiment.apply, init), shape)


def trained_encoder(
    path: str | os.PathLike[str],
    *,
    index: int = 0,
    best: bool = False,
    experiment: Experiment | None = None,
) -> encoders.Functional:
    """The encoder of a run, as training left it.

    Args:
        path: the run's folder.
        index: the split.
        best: the checkpoint with the best evaluation instead of the last; not of a run
            whose embeddings are whitened, which is made for the last.
        experiment: that of the run's plan, if it is at hand; else it is built anew.

    Returns:
        `Functional(apply, params, state)`: embed with
        `apply(params, state, images, train=False)`.

    Raises:
        FileNotFoundError: if there is no run, or no intact checkpoint of the split.
        ValueError: if the best of a whitened run is wanted.

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
    experiment = experiment or recipe.build(settings, tuple(shape), classes)
    assert experiment is not None, "it was given or built"
    saved = Path(path) / f"split{index}" / loop.CHECKPOINTS
    shapes = jax.eval_shape(experiment.init, _plan.key(settings))
    # The encoder alone: class weights may be more than one device holds.
    template = {
        "params": {"encoder": shapes.params["encoder"]},
        "model_state": shapes.model_state,
    }
    state = checkpoints.restore(saved, template, best=best).state
    if state is None:
        raise FileNotFoundError(
            f"Expected an intact checkpoint in {saved}, got none; train first."
        )
    model_state = state["model_state"]
    if settings.whiten is not None:
        if best:
            raise ValueError(
                f"Expected `best=False` for the run in {path}, whose embeddings are "
                "whitened by what its last checkpoint makes of the training images."
            )
        whitener = _whitening.load(saved.parent)
        model_state = _whitening.with_whitening(model_state, whitener)
    return encoders.Functional(
        experiment.apply, state["params"]["encoder"], model_state
    )


def _train_split(
    plan: Plan,
    index: int,
    embed: evaluate.Embed,
    change: step.Prepare,
    console: Console,
) -> dict[str, Any]:
    part, path = plan.splits[index], plan.folder / f"split{index}"
    done = folder.read_json(path / "result.json") if processes.is_first() else None
    if multihost_utils.broadcast_one_to_all(np.array(done is not None)):
        return done or {}
    unseen = report.label(list(part.names.values())) if part.names else "nothing"
    console.print(
        f"split {index}: {len(part.train.labels)} images of {len(part.trained_on)} "
        f"classes to train on; never seen: {unseen}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )

    def embedded(state: State, examples: Examples) -> np.ndarray:
        state = parallel.local(state)
        return embed(state.params["encoder"], state.model_state, examples.images)

    state = _started(plan, index)
    with processes.together(f"split {index} before training"):
        before = embedded(state, part.tested) if processes.is_first() else None
    state = parallel.local(_fit(plan, index, state, embedded, console))
    result = {}
    with processes.together(f"split {index} after training"):
        if before is not None:
            if (shrinkage := plan.settings.whiten) is not None:
                known = embedded(state, part.train)
                state = _whitened(plan, index, state, known, shrinkage=shrinkage)
            trained = Trained(
                state,
                plan.experiment.apply,
                lambda images: embed(
                    state.params["encoder"], state.model_state, images
                ),
            )
            result = _finished(plan, index, trained, before, change)
    return result


def _whitened(
    plan: Plan, index: int, state: State, embeddings: np.ndarray, *, shrinkage: float
) -> State:
    """The state with the whitening that the training images give, also in a file."""
    model_state = _whitening.fitted(
        state.model_state,
        embeddings,
        plan.splits[index].train.labels,
        shrinkage=shrinkage,
        total=plan.settings.whiten_total,
    )
    _whitening.save(plan.folder / f"split{index}", model_state)
    return state._replace(model_state=model_state)


def _finished(
    plan: Plan,
    index: int,
    trained: Trained,
    before: np.ndarray,
    change: step.Prepare,
) -> dict[str, Any]:
    """What is found out about a trained split, written to its folder."""
    part, path = plan.splits[index], plan.folder / f"split{index}"
    after = {
        name: (examples, trained.embed(examples.images))
        for name, examples in (("unseen", part.unseen), ("seen", part.seen))
        if examples is not None
    }
    tested = after["unseen" if part.unseen else "seen"][1]
    found = _outcome.calibrated(plan, part, trained)
    _outcome.draw(plan, path, part, before, tested, found)
    if index == 0:
        # They look alike in all splits.
        _outcome.draw_examples(plan, path, part, change)
    result = {
        "split": index,
        "trained_on": list(part.trained_on),
        "calibrated_on": list(part.calibrated_on),
        "unseen_classes": list(part.names.values()),
        **_outcome.measured(plan.experiment, after),
        "further": _outcome.further(plan, part, trained, after, found),
        "threshold": _outcome.threshold(part, tested, found),
        "worst": _outcome.worst(plan, part, tested),
    }
    if found is not None:
        content = gallery_json.calibration_to_json(found)
        folder.write_json(path / CALIBRATION, content)
    folder.write_json(path / "result.json", result)
    return result


def _started(plan: Plan, index: int) -> State:
    """The state before the first step, from a trained encoder if one is named."""
    settings = plan.settings
    key = jax.random.fold_in(_plan.key(settings), index)
    if plan.layout is None:
        state = jax.jit(plan.experiment.init)(key)
    else:
        state = parallel.start(plan.experiment.init, key, plan.layout)
    if settings.init_from:
        weights = state.params["encoder"], state.model_state
        params, model_state = _whitening.start_from(
            settings.init_from, weights, fresh=settings.fresh
        )
        params = {**state.params, "encoder": params}
        state = state._replace(params=params, model_state=model_state)
    return state if plan.layout is None else parallel.spread(state, plan.layout)


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
        x = embedded(state, watched)
        return _outcome.watched(plan.experiment, x, watched.labels, console)

    return loop.fit(
        plan.experiment.step,
        state,
        plan.experiment.batches(part.train, _plan.seed(settings, index)),
        steps=settings.steps,
        folder=plan.folder / f"split{index}",
        evaluate=score if watched else None,
        score="map_at_r" if watched else None,
        every=settings.evaluate_every,
        padded=_HEAD if plan.experiment.class_sharded else (),
        title=f"split {index}",
        console=console,
    )
