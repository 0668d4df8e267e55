"""A bundle from the folder of a training run."""

import os
from pathlib import Path

from metricjax import training
from metricjax.bundle._bundle import Bundle, make


def from_run(folder: str | os.PathLike[str], *, split: int = 0) -> Bundle:
    """The encoder of a finished run, with the parameters of its last step.

    Args:
        folder: of the run, as `train.py` leaves it.
        split: which of its splits.

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
    result = training.folder.read_json(folder / f"split{split}" / "result.json")
    if result is None:
        raise FileNotFoundError(
            f"Expected a finished split {split} in {folder}, got none; the command "
            "that started the run continues it."
        )
    _, params, state = training.run.trained_encoder(folder, index=split)
    return make(
        {
            "recipe": config["recipe"],
            "settings": config["settings"],
            "classes": config["data"]["classes"],
        },
        params,
        state,
        image_shape=tuple(config["data"]["image_shape"]),
        trained_on=result["trained_on"],
    )
