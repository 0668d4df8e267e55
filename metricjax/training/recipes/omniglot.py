"""Characters of alphabets never seen: all background characters told apart at once.

Command, with the files of Omniglot in DIR/omniglot:

    python train.py --recipe omniglot --data-dir DIR

A margin softmax over the 964 background characters, each quarter turn a class of its
own, and the same softmax within the alphabet of each image, because one-shot tasks are
drawn within alphabets. Measured on the evaluation alphabets: the 20 official one-shot
runs, and 20-way tasks of all alphabets and pairs of drawers, with one view of each
image and with the mean of 15.

`--background small1` and `--background small2` train on 5 alphabets alone: the two
small sets with which Lake et al. ask how much must be known beforehand. One run and one
look each: error of the official runs 8.8 % and 5.8 % with one view, 6.8 % and 5.0 %
with 15; of tasks within all alphabets 17.9 % and 15.4 %, 16.0 % and 13.4 %.

Measured, mean and standard deviation of 5 runs of 518,000 images (about 10 minutes each
on two busy cores), second look at the official runs: error of the official runs 3.7 ±
0.9 % with one view and 3.1 ± 0.3 % with 15, of tasks within all alphabets 11.59 ± 0.05
% and 10.51 ± 0.06 %; Recall@1 among all 13,180 images 0.892 (raw pixels 0.283).

References:
    Lake, Salakhutdinov and Tenenbaum, "Human-level concept learning through
    probabilistic program induction", Science 350(6266), 2015 (data and runs). Wang et
    al., "CosFace", CVPR 2018, arXiv:1801.09414, eq. 4 (the margin).
"""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from metricjax import data, encoders, heads, numerics
from metricjax.metrics import fewshot
from metricjax.training import (
    evaluate,
    experiment,
    inputs,
    official_runs,
    run,
    settings,
    splits,
    step,
    views,
)

__all__ = ["Settings", "build", "divide", "measure"]

_PARTS = {"all": "train", "small1": "small1", "small2": "small2"}
_WAYS = 20
# Images whose views are encoded at once.
_BATCH = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(settings.BatchSettings):
    """Characters of alphabets never seen, from all background characters at once."""

    data: str = "omniglot"
    image_size: int | None = 35
    input_size: int | None = 28
    test_classes: int = 659
    splits: int = 1
    """Repetitions with other random numbers."""

    held_out: float = 0.0
    symmetries: Literal[1, 4, 8] = 4
    augmentation: float = 1.0
    elastic: float = 0.042
    thickness: float = 0.6
    width: int = 16
    dim: int = 256
    learning_rate: float = 6e-3
    steps: int = 4050
    evaluate_every: int = 405

    background: Literal["all", "small1", "small2"] = "all"
    """Train on the 30 background alphabets, or on one of the two sets of 5."""

    validation_alphabets: int = 0
    """For tuning: test on so many background alphabets, not on the evaluation set."""

    margin: float = 0.2
    """Margin of the cosine."""

    scale: float = 24.0
    """Scale of the cosines in the softmax."""

    within: float = 0.5
    """Weight of the softmax within the alphabet of each image."""

    views: int = 15
    """Views of an image that are averaged in the second of the two figures, each in
    `--average-views` of its own."""

    def __post_init__(self):
        super().__post_init__()
        settings.check_positive(self, "scale", "views")
        if not (0.0 <= self.margin < 1.0 and self.within >= 0.0):
            raise ValueError(
                "Expected --margin in [0, 1) and --within of at least 0, got "
                f"{self.margin} and {self.within}."
            )


def divide(
    settings: Settings, *, data_dir: str | os.PathLike[str] | None = None
) -> list[splits.Split]:
    """The background alphabets to train on, and the evaluation set to test on.

    Args:
        settings: the recipe's; for data other than Omniglot, all of `splits.divide`.
        data_dir: the folder of raw data files.

    Returns:
        As many equal splits as `settings.splits`.

    Raises:
        ValueError: if `validation_alphabets` leaves none to train on.
        OSError: if the files are not found.

    Example:
        >>> len(divide(Settings(data="digits", test_classes=3, splits=2)))
        2
    """
    if settings.data != "omniglot":
        return splits.divide(settings, data_dir=data_dir)
    background = _load(settings, _PARTS[settings.background], data_dir)
    alphabets = background.extra["alphabet"]
    if not 0 <= settings.validation_alphabets < len(np.unique(alphabets)):
        raise ValueError(
            "Expected --validation-alphabets below the number of background alphabets, "
            f"got {settings.validation_alphabets}."
        )
    # The same alphabets, whatever the seed.
    shuffled = np.random.default_rng(0).permutation(np.unique(alphabets))
    held = np.isin(alphabets, shuffled[: settings.validation_alphabets])
    tested = background if held.any() else _load(settings, "test", data_dir)
    rows = np.flatnonzero(held) if held.any() else np.arange(len(tested.labels))
    trained, labels = np.unique(background.labels[~held], return_inverse=True)
    unseen = splits.take(tested, rows)
    split = splits.Split(
        train=splits.take(background, ~held)._replace(labels=labels.astype(np.int32)),
        seen=None,
        unseen=unseen,
        calibration=None,
        watched=unseen if held.any() else None,
        trained_on=tuple(background.names[c] for c in trained),
        names={int(c): tested.names[c] for c in np.unique(unseen.labels)},
    )
    return [split] * settings.splits


def _load(
    settings: Settings, part: str, data_dir: str | os.PathLike[str] | None
) -> data.Dataset:
    return data.load(
        "omniglot", data_dir=data_dir, split=part, size=settings.image_size
    )


def build(
    settings: Settings, image_shape: tuple[int, ...], classes: int
) -> experiment.Experiment:
    """The training problem for images of one shape and a number of classes.

    Args:
        settings: the recipe's.
        image_shape: `(height, width, channels)`.
        classes: number of training classes, before symmetries multiply them.

    Returns:
        What `metricjax.training.run` trains.

    Example:
        >>> problem = build(Settings(width=2), (35, 35, 1), 7)
        >>> jax.eval_shape(problem.init, jax.random.key(0)).params["head"].shape
        (28, 256)
    """
    copies = settings.symmetries
    model = experiment.encoder(settings, image_shape)
    prepare = inputs.preparation(settings)

    def loss_function(
        params: Any, model_state: Any, loss_state: Any, batch: Any, key: Array
    ) -> tuple[Array, step.Outputs]:
        images, labels, families = batch
        prepare_key, encoder_key = jax.random.split(key)
        images, labels = prepare(prepare_key, encoders.as_float(images), labels)
        embeddings, model_state = model.apply(
            params["encoder"], model_state, images, train=True, key=encoder_key
        )
        kin = families[labels][:, None] == families
        overall, within = family_softmax(
            embeddings,
            params["head"],
            labels,
            kin,
            margin=settings.margin,
            scale=settings.scale,
        )
        loss = jnp.mean(overall) + settings.within * jnp.mean(within)
        outputs = step.Outputs(model_state, loss_state, {"within": jnp.mean(within)})
        return loss, outputs

    def batches(examples: splits.Examples, seed: int) -> Callable[[int], Any]:
        families = _families(examples, classes, copies)
        draw = inputs.shuffled_batches(settings, batch=settings.batch)
        pairs = draw(examples, seed)
        return lambda t: (*pairs(t), families)

    return experiment.assemble(
        settings,
        model,
        loss_function,
        batches=batches,
        init_head=experiment.class_weights(settings, classes),
    )


def _families(examples: splits.Examples, classes: int, copies: int) -> np.ndarray:
    """The family of each class under each symmetry: its alphabet, turned alike."""
    alphabets = np.zeros(classes, np.int32)
    if "alphabet" in examples.extra:
        alphabets[examples.labels] = examples.extra["alphabet"]
    return inputs.multiplied(alphabets, copies)


def family_softmax(
    embeddings: Array,
    class_weights: Array,
    labels: Array,
    kin: Array,
    *,
    margin: float,
    scale: float,
) -> tuple[Array, Array]:
    """CosFace among all classes, and among those of the family of each example.

    `-log(exp(s (c_y - m)) / (exp(s (c_y - m)) + sum_j exp(s c_j)))` over all other
    classes j, and over those of them that `kin` marks.

    Args:
        embeddings: `[batch, dim]`.
        class_weights: `[classes, dim]`.
        labels: `[batch]` int in `[0, classes)`.
        kin: bool `[batch, classes]`.
        margin: of the cosine.
        scale: `s`.

    Returns:
        Two arrays `[batch]`.

    Example:
        >>> x, kin = jnp.eye(3), jnp.eye(3, dtype=bool)
        >>> found = family_softmax(x, x, jnp.arange(3), kin, margin=0.0, scale=1.0)
        >>> [round(float(part[0]), 3) for part in found]
        [0.551, 0.0]
    """
    logits = heads.cosine_logits(embeddings, class_weights, scale=scale)
    target = jnp.take_along_axis(logits, labels[:, None], axis=1) - scale * margin
    other = jnp.arange(logits.shape[1]) != labels[:, None]
    joined = jnp.where(other, logits, target)
    overall = jax.nn.logsumexp(joined, axis=1)
    within = numerics.logsumexp(joined, kin | ~other)
    return overall - target[:, 0], within - target[:, 0]


def measure(
    settings: Settings,
    part: splits.Split,
    trained: run.Trained,
    *,
    data_dir: str | os.PathLike[str] | None,
) -> dict[str, float]:
    """Errors of one-shot tasks, with one view of each image and with several.

    Args:
        settings: the recipe's.
        part: of the data.
        trained: what was trained on it.
        data_dir: the folder of raw data files; has the official runs.

    Returns:
        Errors of tasks within all alphabets of the test and, unless it is a
        validation, of the official runs where their file is found. "x 8" are views
        under each of 8 symmetries, side by side.

    Example:
        >>> errors = measure(settings, part, trained, data_dir=None)  # doctest: +SKIP
    """
    if part.unseen is None or "drawer" not in part.unseen.extra:
        return {}
    params, model_state = trained.state.params["encoder"], trained.state.model_state
    seen = views.of_content("characters", settings.views, size=settings.input_size)
    several = evaluate.embedder(views.averaged(trained.apply, seen), batch=_BATCH)
    few, many = settings.average_views, settings.average_views * settings.views
    turned = f" x {settings.symmetries}" if settings.join_symmetries else ""
    embedders = {
        f"{few} view{'s' * (few > 1)}{turned}": trained.embed,
        f"{many} views{turned}": functools.partial(several, params, model_state),
    }
    tasks = _tasks(part.unseen)
    runs = None if settings.validation_alphabets else official_runs.find(data_dir)
    found = {}
    for name, embed in embedders.items():
        right = fewshot.evaluate(embed(part.unseen.images), tasks).accuracy
        found[f"error of tasks within all alphabets, {name}"] = 1.0 - float(right)
        if runs is not None:
            found[f"error of the 20 official runs, {name}"] = official_runs.error(
                runs, embed, size=settings.image_size
            )
    return found


def _tasks(unseen: splits.Examples) -> fewshot.Episodes:
    extra = unseen.extra
    return fewshot.context_episodes(
        unseen.labels, extra["drawer"], groups=extra["alphabet"], ways=_WAYS, seed=0
    )
