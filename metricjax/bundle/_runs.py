"""A bundle from the folder of a training run."""

import os
from pathlib import Path

from metricjax import training
from metricjax.bundle import _files
from metricjax.bundle._bundle import Bundle, make
from metricjax.gallery import _json
from metricjax.training.experiment import Experiment


def from_run(
    folder: str | os.PathLike[str],
    *,
    split: int = 0,
    experiment: Experiment | None = None,
) -> Bundle:
    """The encoder of a finished run, with the parameters of its last step.

    It has the calibration of the run, if that had calibration classes.

    Args:
        folder: of the run, as `train.py` leaves it.
        split: which of its splits.
        experiment: that of the run's plan, if it is at hand; else it is built anew.

    Returns:
        The bundle, without gallery.

    Raises:
        FileNotFoundError: if there is no run, or it has not finished this split.
        ValueError: if the run was made by another version.
    """
    folder = Path(folder)
    path = folder / f"split{split}"
    config = training.folder.read_json(folder / "config.json")
    if config is None:
        raise FileNotFoundError(
            f"Expected a training run in {folder}, got no config.json there."
        )
    result = training.folder.read_json(path / "result.json")
    if result is None:
        raise FileNotFoundError(
            f"Expected a finished split {split} in {folder}, got none; the command "
            "that started the run continues it."
        )
    _, params, state = training.run.trained_encoder(
        folder, index=split, experiment=experiment
    )
    made = make(
        {
            "recipe": config["recipe"],
            "settings": config["settings"],
            "classes": config["data"]["classes"],
        },
        params,
        state,
        image_shape=tuple(config["data"]["image_shape"]),
        apply=None if experiment is None else experiment.apply,
        trained_on=result["trained_on"],
    )
    calibration = training.folder.read_json(path / training.run.CALIBRATION)
    if calibration is None:
        return made
    return made._replace(
        calibration=_json.calibration_from_json(calibration),
        calibrated_on=tuple(result["calibrated_on"]),
    )


def save_in_run(
    folder: str | os.PathLike[str], *, experiment: Experiment | None = None
) -> tuple[Path, ...]:
    """Leave the bundle of every split in the folder of a finished run.

    That of split 0 is `folder/split0/bundle`. One that is there already stays as it is,
    with the identities that were enrolled since.

    Args:
        folder: of the run, as `train.py` leaves it.
        experiment: that of the run's plan, if it is at hand; else it is built anew.

    Returns:
        The bundles' folders; none if the run is not of images.

    Raises:
        FileNotFoundError: if there is no run, or it is not finished.
        ValueError: if the run was made by another version.
        OSError: if a bundle cannot be written.
    """
    folder = Path(folder)
    config = training.folder.read_json(folder / "config.json")
    if config is None:
        raise FileNotFoundError(
            f"Expected a training run in {folder}, got no config.json there."
        )
    if len(config["data"]["image_shape"]) != 3:
        return ()
    places = []
    for split in range(config["settings"]["splits"]):
        places.append(folder / f"split{split}" / "bundle")
        if not places[-1].exists():
            made = from_run(folder, split=split, experiment=experiment)
            _files.save(places[-1], made)
    return tuple(places)
