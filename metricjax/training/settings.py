"""Settings that every recipe has; a recipe adds its own by inheritance."""

import dataclasses
import math
from typing import Literal

__all__ = [
    "BatchSettings",
    "ClassSettings",
    "Encoder",
    "MemorySettings",
    "PairSettings",
    "Settings",
    "TeacherSettings",
    "check_positive",
]

Encoder = Literal["resnet", "convnet", "mlp", "linear", "koch"]

# The mirror image of a photo is of its own class.
_SYMMETRIES = {"characters": (1, 4, 8), "photos": (1, 4)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What to train on, for how long, and what to test on.

    Split s takes its test classes from the end of the data set's list of classes: the
    last `test_classes` are those of split 0, those before them of split 1, and so on;
    if there are too few classes for that, each split draws its own. The encoder of a
    split sees no image of its test classes. While settings are tuned,
    `validation_classes` keeps the test classes out of sight.

    Without test classes, splits differ by their random numbers alone, and the test is
    on the data set's own test images, on groups that were left out (speakers), or on
    images that were held out.
    """

    data: str = "digits"
    """digits, mnist, fashion_mnist, omniglot, spoken_digit, folder:PATH, csv:PATH,
    audio:PATH, npz:PATH or tfds:NAME."""

    labels: str = ""
    """Tell apart the values of this further column (speaker) instead of classes."""

    image_size: int | None = None
    """Stretch images to this many pixels a side; by default they keep their size."""

    skip_bad: bool = False
    """Go on without image files that cannot be used, instead of refusing the folder."""

    stream: bool = False
    """Decode image files anew for each batch, in the background, and keep no pixels:
    for a folder or list of them that fits neither into memory nor on the disk."""

    input_size: int | None = None
    """Pixels a side that the encoder sees: resampled by the map that augments them."""

    content: Literal["characters", "photos", "spectrograms", "vectors"] = "characters"
    """What the images show: decides how they are changed at random in training."""

    test_classes: int = 3
    """Classes of a split that are tested on and never trained on."""

    splits: int = 3
    """Number of splits; results are averaged over them."""

    validation_classes: int = 0
    """For tuning: test on so many training classes instead of the test classes."""

    calibration_classes: int = 0
    """Classes that are neither trained nor tested on, to choose a threshold."""

    far: float = 0.01
    """False accept rate that the calibration classes choose the threshold for."""

    groups: str = ""
    """A further column of the data (speaker, alphabet) that groups its images."""

    test_groups: int = 0
    """Groups of a split that are tested on and never trained on."""

    validation_groups: int = 0
    """For tuning: test on so many training groups instead of the test groups; on others
    in each split, and on none that another split tests, if there are enough."""

    average_views: int = 1
    """Embed each image in so many views and take the mean, in the test, the bundle and
    its gallery: of characters and photos as they are and under small maps, of photos
    their mirror images too. Takes so many times as long."""

    join_symmetries: bool = False
    """In the test, the bundle and its gallery, embed each image under every one of its
    symmetries, side by side: embeddings are as many times as long, take as many times
    as long, and err less often."""

    whiten: float | None = None
    """After training, make the ways in which the training images vary within their
    classes equally large: within-class covariance normalisation, its covariance shrunk
    by so much towards a multiple of the identity (0.3, say). Try it on validation
    classes: it helps with faces, and not with digits."""

    whiten_total: float = 0.0
    """With --whiten: the share in that covariance of how the images vary in all, so
    that what told the training classes apart counts for less (0.2, say)."""

    own_test: bool = True
    """Without test classes, test on the data set's own test images, if it has them."""

    held_out: float = 0.2
    """Share of the images of each training class that is kept for evaluation."""

    evaluated_images: int = 4000
    """At most so many images of a set are evaluated, evenly spread over it."""

    symmetries: Literal[1, 4, 8] = 8
    """Classes made of one: 4 by quarter turns, 8 by mirror images too, 1 as it is. Of
    photos 4 at most: they are mirrored at random, and stay what they are."""

    augmentation: float = 1.5
    """Strength of random affine maps; at 1 they turn images by up to 15 degrees."""

    elastic: float = 0.0
    """Random displacement of strokes in shares of half the image, at augmentation 1."""

    thickness: float = 0.0
    """Strength of random changes of the thickness of strokes."""

    encoder: Encoder = "resnet"
    """Small residual net, which pools spectrograms over time; plain convolutional net,
    two dense hidden layers, one linear map, which suits the counts of texts, or the
    siamese net of Koch et al. (light, unless images have 105 pixels a side)."""

    width: int = 8
    """Channels of the first convolution; a sixteenth of the mlp's hidden units."""

    dim: int = 128
    """Size of the embedding."""

    init_from: str = ""
    """Start from this encoder: a run's folder, a bundle, or a safetensors file."""

    fresh: tuple[str, ...] = ()
    """Patterns of paths of the encoder's parameters that --init-from does not fill."""

    freeze: tuple[str, ...] = ()
    """Patterns of paths of the encoder's parameters that stay as they are; a pattern
    that begins with ! takes back what others chose."""

    compute: Literal["float32", "bfloat16"] = "float32"
    """Precision inside the encoder; parameters, embeddings and losses are float32."""

    chunk: int | None = None
    """Train with the memory of so many images at a time, by GradCache: the gradient is
    that of the whole batch, for one more pass. Batch norm sees a chunk, not the batch,
    and dropout draws anew."""

    accumulate: int = 1
    """Batches for each update of the parameters, which takes the mean of their
    gradients. Unlike --chunk this compares no image with those of another batch, so
    that the loss is that of small batches. Rates count updates."""

    steps: int = 400
    """Training steps of a split, a batch each."""

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
            *("splits", "evaluated_images", "average_views", "width", "dim"),
            *("steps", "learning_rate", "evaluate_every", "accumulate"),
        )
        if self.steps % self.accumulate:
            raise ValueError(
                f"Expected --steps to be a multiple of --accumulate {self.accumulate}, "
                f"got {self.steps}: the last batches would be of no use; give "
                f"{self.steps + self.accumulate - self.steps % self.accumulate}."
            )
        if self.chunk is not None:
            check_positive(self, "chunk")
        if self.whiten is not None and not 0.0 < self.whiten <= 1.0:
            raise ValueError(f"Expected --whiten in (0, 1], got {self.whiten}.")
        if not 0.0 <= self.whiten_total <= 1.0:
            raise ValueError(
                f"Expected --whiten-total in [0, 1], got {self.whiten_total}."
            )
        if self.whiten_total and self.whiten is None:
            raise ValueError(
                f"Expected --whiten with --whiten-total {self.whiten_total}, got none; "
                "give it, or leave both out."
            )
        if not 0.0 <= self.held_out < 1.0:
            raise ValueError(
                f"Expected held_out in [0, 1), got {self.held_out}; 0.2 keeps a fifth "
                "of each class for evaluation."
            )
        if self.test_classes < 2 and (self.test_classes or not self._tests_seen()):
            raise ValueError(
                f"Expected at least 2 --test-classes to tell apart, got "
                f"{self.test_classes}; or 0, and images of the training classes to "
                "test on by --held-out, --test-groups or --own-test."
            )
        known = _SYMMETRIES.get(self.content, (1,))
        if self.symmetries not in known:
            raise ValueError(
                f"Expected --symmetries {' or '.join(map(str, known))} for "
                f"{self.content}, got {self.symmetries}; characters become new classes "
                "when they are turned or mirrored, photos when they are turned."
            )
        if self.join_symmetries and self.symmetries == 1:
            raise ValueError(
                "Expected --symmetries of 4 or 8 with --join-symmetries, got 1: there "
                "is nothing to join; give --no-join-symmetries."
            )
        if self.average_views > 1 and self.content not in ("characters", "photos"):
            raise ValueError(
                f"Expected --average-views 1 for {self.content}, got "
                f"{self.average_views}; only characters and photos have further views."
            )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"Expected a seed in [0, 2**32), got {self.seed}.")

    def _tests_seen(self) -> bool:
        return bool(self.held_out or self.test_groups or self.own_test)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchSettings(Settings):
    """Settings of recipes that go through shuffled epochs."""

    batch: int = 128
    """Images of a batch."""

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "batch")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassSettings(BatchSettings):
    """Settings of margin softmax losses."""

    scale: float = 16.0
    """Scale of the cosines in the softmax."""

    warm_up: float = 0.0
    """Share of the steps over which margins grow from nothing."""

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "scale")
        if not 0.0 <= self.warm_up <= 1.0:
            raise ValueError(f"Expected --warm-up in [0, 1], got {self.warm_up}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemorySettings(Settings):
    """Settings of losses that can compare a batch with earlier ones."""

    memory: int = 0
    """Compare each batch with so many earlier embeddings too (cross-batch memory,
    XBM), several batches of them; 0 for none."""

    memory_start: int = 0
    """Step from which the memory counts. Early embeddings are soon out of date: XBM's
    authors wait for 1000 steps."""

    def __post_init__(self):
        super().__post_init__()
        if self.memory < 0:
            raise ValueError(
                f"Expected --memory of 0, for none, or more, got {self.memory}."
            )
        if self.memory_start and not self.memory:
            raise ValueError(
                f"Expected --memory with --memory-start {self.memory_start}, got none; "
                "give its size, or leave both out."
            )
        if not 0 <= self.memory_start < self.steps:
            raise ValueError(
                f"Expected --memory-start in [0, {self.steps}), below --steps, got "
                f"{self.memory_start}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherSettings(MemorySettings):
    """Settings of contrastive losses, whose candidates a teacher can embed."""

    teacher: float = 0.0
    """Compare each batch with embeddings by a teacher, which keeps this share of itself
    at each step and takes the rest from the encoder (MoCo: 0.999, for long runs); with
    --memory also with those of earlier batches. 0 for none."""

    def __post_init__(self):
        super().__post_init__()
        if not 0.0 <= self.teacher < 1.0:
            raise ValueError(
                f"Expected --teacher in [0, 1), got {self.teacher}; it is the share "
                "that the teacher keeps."
            )
        if self.teacher and self.memory_start:
            raise ValueError(
                f"Expected --memory-start 0 with --teacher, got {self.memory_start}: "
                "what the teacher embeds is of use from the first step."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairSettings(MemorySettings):
    """Settings of losses that compare the images of a batch."""

    batch_classes: int = 28
    """Classes of a batch (P); each symmetry of a class counts."""

    batch_examples: int = 5
    """Images of each class in a batch (K)."""

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "batch_classes", "batch_examples")


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
