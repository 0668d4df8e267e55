"""Settings that every recipe has; a recipe adds its own by inheritance."""

import dataclasses
import math
from typing import Literal

__all__ = ["Settings", "check_positive"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What to train on, for how long, and what to test on.

    Split s takes its test classes from the end of the data set's list of classes: the
    last `test_classes` are those of split 0, those before them of split 1, and so on.
    The encoder of a split sees no image of its test classes. While settings are
    tuned, `validation_classes` keeps the test classes out of sight.
    """

    data: str = "digits"
    """digits, mnist, fashion_mnist, omniglot, folder:PATH, npz:PATH or tfds:NAME."""

    image_size: int | None = None
    """Stretch images to this many pixels a side; by default they keep their size."""

    test_classes: int = 3
    """Classes of a split that are tested on and never trained on."""

    splits: int = 3
    """Number of splits; results are averaged over them."""

    validation_classes: int = 0
    """For tuning: test on so many training classes instead of the test classes."""

    held_out: float = 0.2
    """Share of the images of each training class that is kept for evaluation."""

    evaluated_images: int = 4000
    """At most so many images of a set are evaluated, evenly spread over it."""

    symmetries: Literal[1, 4, 8] = 8
    """Classes made of one: 4 by quarter turns, 8 by mirror images too, 1 as it is."""

    augmentation: float = 1.5
    """Strength of random affine maps; at 1 they turn images by up to 15 degrees."""

    encoder: Literal["resnet", "convnet", "mlp"] = "resnet"
    """Small residual net, plain convolutional net, or two dense hidden layers."""

    width: int = 8
    """Channels of the first convolution; a sixteenth of the mlp's hidden units."""

    dim: int = 128
    """Size of the embedding."""

    steps: int = 400
    """Training steps of a split."""

    learning_rate: float = 3e-3
    """Largest rate: reached after 15 % of the steps, then a cosine down to zero."""

    weight_decay: float = 0.05
    """AdamW's decay of convolution and dense kernels; nothing else decays."""

    evaluate_every: int = 100
    """Steps from one evaluation and checkpoint to the next."""

    seed: int = 0
    """Decides initial weights, batches and augmentation."""

    def __post_init__(self):
        check_positive(
            self,
            *("test_classes", "splits", "evaluated_images", "width", "dim"),
            *("steps", "learning_rate", "evaluate_every"),
        )
        if not 0.0 < self.held_out < 1.0:
            raise ValueError(
                f"Expected held_out between 0 and 1, got {self.held_out}; 0.2 keeps a "
                "fifth of each class for evaluation."
            )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"Expected a seed in [0, 2**32), got {self.seed}.")


def check_positive(settings: Settings, *names: str) -> None:
    """Raise unless each of these settings is a finite number above zero.

    Args:
        settings: the settings.
        *names: which to look at.

    Raises:
        ValueError: if one is not.

    Example:
        >>> check_positive(Settings(), "steps")
    """
    for name in names:
        value = getattr(settings, name)
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(
                f"Expected --{name.replace('_', '-')} above 0, got {value}."
            )
