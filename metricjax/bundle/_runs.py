"""A bundle from the folder of a training run."""

import dataclasses
import os
from pathlib import Path

import jax

from metricjax import data, training
from metricjax.bundle._bundle import Bundle, make


def from_run(
    folder: str | os.PathLike[str],
    *,
    split: int = 0,
    data_dir: str | os.PathLike[str] | None = None,
) -> Bundle:
    """The encoder of a finished run, with the parameters of its last step.

    The data of the run are read once more, for the size of the images and the names of
    the training classes; the bundle does without them.

    Args:
        folder: of the run, as `train.py` leaves it.
        split: which of its splits.
        data_dir: the folder of raw data files; see `metricjax.data.load`.

    Returns:
        The bundle, without calibration and gallery.

    Raises:
        FileNotFoundError: if there is no run, or it has not finished this split.
        ValueError: if the run was made by another version.
    """
    folder = Path(folder)
    config = training.folder.read_json(folder / "config.json")
    if config is None:
        raise FileNotFoundError(
            f"Expected a training run in {folder}, got no config.json there."
        )
    if not (folder / f"split{split}" / "result.json").exists():
        raise FileNotFoundError(
            f"Expected a finished split {split} in {folder}, got none; the command "
            "that started the run continues it."
        )
    recipe = training.recipes.load(config["recipe"])
    settings = recipe.Settings(**config["settings"])
    dataset = data.load(settings.data, data_dir=data_dir, size=settings.image_size)
    part = training.run.split(dataset, settings, split)
    # With validation classes, the test classes were left out of training too.
    tested = training.run.split(
        dataset, dataclasses.replace(settings, validation_classes=0), split
    )
    unseen = part.names | tested.names
    shape = dataset.images.shape[1:]
    experiment = recipe.build(settings, shape, part.classes)
    template = experiment.init(jax.random.key(0, impl="rbg"))
    restored = training.checkpoints.restore(
        folder / f"split{split}" / "checkpoints", template
    )
    if restored.state is None:
        raise FileNotFoundError(
            f"Expected a checkpoint of split {split} in {folder}, got none that is "
            f"intact. {' '.join(restored.skipped)}"
        )
    return make(
        {
            "recipe": config["recipe"],
            "settings": config["settings"],
            "classes": part.classes,
        },
        restored.state.params["encoder"],
        restored.state.model_state,
        image_shape=shape,
        trained_on=[n for i, n in enumerate(dataset.names) if i not in unseen],
    )
