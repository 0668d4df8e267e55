r"""The siamese net of Koch et al. on Omniglot, with their alphabets and drawers.

Command, with the files of Omniglot in DIR/omniglot:

    python train.py --recipe omniglot-koch --data-dir DIR

Recipe siamese on drawings by the drawers 1 to 12 of the 30 background alphabets, turned
ones being further alphabets; tested on 10,000 pairs, half of the same character, the
others of two characters of an alphabet, by the drawers 17 to 20 of the 20 evaluation
alphabets. An encoder that is small and fast, all pairs within 4 alphabets in each
batch, and a head that starts as a distance stand for the paper's. Those, with all that
it gives of its training (of the rates that its search found only the ranges; here their
middle):

    python train.py --recipe omniglot-koch --data-dir DIR --image-size 105 \
        --input-size 105 --encoder koch --width 64 --dim 4096 --optimizer layerwise \
        --batch-groups 0 --head paper --symmetries 1 --no-join-symmetries \
        --elastic 0 --thickness 0 --steps 40000

Koch et al. publish 93.42 % of pairs told right, and 8.0 % error of one-shot tasks, by a
net that was trained and chosen on 40 alphabets and tested on the 10 others.

Measured, mean and standard deviation of 3 runs of 1,536,000 images (about 38 minutes of
one core a run): pairs told right 93.3 ± 0.2 %, at the threshold that the training
alphabets choose 93.8 ± 0.3 %, at the equal error rate 93.9 ± 0.3 %; error of the
official runs 2.5 ± 0.3 %; 20-way one-shot accuracy within all evaluation alphabets
0.854 ± 0.002. With `--width 16 --steps 8000` (3 runs of 1,024,000 images) 92.9 ± 0.1,
93.2 ± 0.1 and 93.4 ± 0.0 % of pairs, 3.4 ± 0.4 % error of the official runs, 0.841 ±
0.001 within all alphabets.

The looks at the evaluation set: the first at a net of 8 channels, 90.2 % of pairs;
then, symmetries not joined, 16 channels, 92.2 %, and one run of 24, 92.8 %; these are
the next one of both. On 6 background alphabets held out and drawers 13 to 16, the net
of 16 channels told 95.6 % right, 96.3 % with its symmetries joined.

References:
    Koch, Zemel and Salakhutdinov, "Siamese Neural Networks for One-shot Image
    Recognition", ICML Deep Learning Workshop 2015, sections 4.1 to 4.3.
"""

import dataclasses
import os
from typing import Literal

import numpy as np
from jax.tree_util import Partial

from metricjax import heads
from metricjax.metrics import verification
from metricjax.training import official_runs, run, settings, splits
from metricjax.training.recipes import omniglot, siamese
from metricjax.training.recipes.siamese import build

__all__ = ["Settings", "build", "divide", "measure"]

_TRAINED, _VALIDATED, _TESTED = range(1, 13), range(13, 17), range(17, 21)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(siamese.Settings):
    """The siamese net of Koch et al. on Omniglot, with their alphabets and drawers."""

    data: str = "omniglot"
    image_size: int | None = 35
    input_size: int | None = 28
    groups: str = "alphabet"
    test_classes: int = 659
    splits: int = 1
    """Repetitions with other random numbers."""

    held_out: float = 0.0
    symmetries: Literal[1, 4, 8] = 4
    join_symmetries: bool = True
    elastic: float = 0.042
    thickness: float = 0.6
    encoder: settings.Encoder = "resnet"
    width: int = 24
    dim: int = 256
    learning_rate: float = 6e-3
    batch_groups: int = 4
    head: Literal["paper", "distance"] = "distance"
    steps: int = 12000
    evaluate_every: int = 2400

    validation_alphabets: int = 0
    """For tuning: test on so many background alphabets, and drawers 13 to 16."""


def divide(
    settings: Settings, *, data_dir: str | os.PathLike[str] | None = None
) -> list[splits.Split]:
    """The background alphabets by 12 drawers, and the evaluation set by 4 others.

    Classes that were trained on are seen again as 4 further drawers drew them.

    Args:
        settings: the recipe's; for data other than Omniglot, all of `splits.divide`.
        data_dir: the folder of raw data files.

    Returns:
        As many equal splits as `settings.splits`.

    Raises:
        ValueError: if `validation_alphabets` leaves none to train on, or the data do
            not say who drew an image.
        OSError: if the files are not found.

    Example:
        >>> len(divide(Settings(data="digits", test_classes=3, splits=2)))
        2
    """
    if settings.data != "omniglot":
        return splits.divide(settings, data_dir=data_dir)
    by_alphabet = omniglot.Settings(
        image_size=settings.image_size,
        validation_alphabets=settings.validation_alphabets,
        splits=settings.splits,
    )
    drawers = _VALIDATED if settings.validation_alphabets else _TESTED
    found = []
    for part in omniglot.divide(by_alphabet, data_dir=data_dir):
        train, seen = (_by(some, part.train) for some in (_TRAINED, _VALIDATED))
        unseen = _by(drawers, part.unseen)
        watched = unseen if settings.validation_alphabets else seen
        found.append(
            part._replace(train=train, seen=seen, unseen=unseen, watched=watched)
        )
    return found


def _by(drawers: range, examples: splits.Examples | None) -> splits.Examples:
    """The images that some of the drawers drew."""
    assert examples is not None, "Omniglot is tested on alphabets never seen"
    if "drawer" not in examples.extra:
        raise ValueError(
            "Expected the drawer of each image, got Omniglot as TensorFlow Datasets "
            "prepares it, which leaves them out; give --data-dir DIR with the zips."
        )
    rows = np.isin(examples.extra["drawer"], drawers)
    extra = {name: values[rows] for name, values in examples.extra.items()}
    return splits.Examples(examples.images[rows], examples.labels[rows], extra)


def measure(
    settings: Settings,
    part: splits.Split,
    trained: run.Trained,
    *,
    data_dir: str | os.PathLike[str] | None,
) -> dict[str, float]:
    """What recipe siamese measures, and the error of the official one-shot runs.

    Args:
        settings: the recipe's.
        part: of the data.
        trained: what was trained on it.
        data_dir: the folder of raw data files; has the official runs.

    Returns:
        The accuracies, also at the threshold that is best for pairs of the training
        alphabets by drawers of their own (13 to 16); and, unless it is a validation,
        the error of the official runs where their file is found. All are scored by the
        trained head.

    Example:
        >>> found = measure(settings, part, trained, data_dir=None)  # doctest: +SKIP
    """
    found = siamese.measure(settings, part, trained, data_dir=data_dir)
    if part.seen is not None:
        known = siamese.compared(settings, part.seen, trained)
        threshold = verification.best_threshold(*known)
        logits, same = siamese.compared(settings, part.tested, trained)
        right = float(np.mean((logits >= threshold) == same))
        found["pairs told right at the threshold of the training alphabets"] = right
    if settings.data != "omniglot" or settings.validation_alphabets:
        return found
    runs = official_runs.find(data_dir)
    if runs is not None:
        found["error of the 20 official runs"] = official_runs.error(
            runs,
            trained.embed,
            size=settings.image_size,
            similarity=Partial(heads.pairwise, head=siamese.trained_head(trained)),
        )
    return found
