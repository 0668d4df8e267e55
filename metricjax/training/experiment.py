"""What a recipe builds: how to start, how to step, and how to draw batches."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax import Array

from metricjax import encoders
from metricjax.training import augment
from metricjax.training.settings import Settings
from metricjax.training.state import State
from metricjax.training.step import Prepare, Step

__all__ = [
    "Experiment",
    "adamw",
    "check_square",
    "decayed",
    "encoder",
    "multiplied",
    "preparation",
]


class Experiment(NamedTuple):
    """A training problem, made once for all splits so that it is compiled once.

    Attributes:
        init: `key -> State` before the first step.
        step: `(state, batch) -> (state, metrics)`, compiled.
        batches: `(images, labels) -> (t -> batch)`, the batch of each step, a pure
            function of t; the labels are `[n]` int in `[0, classes)`.
        apply: the encoder, with parameters `state.params["encoder"]`.
    """

    init: Callable[[Array], State]
    step: Step
    batches: Callable[[np.ndarray, np.ndarray], Callable[[int], Any]]
    apply: encoders.Apply


def adamw(settings: Settings) -> optax.GradientTransformation:
    """AdamW with warm-up and cosine decay; weight decay on kernels only.

    Args:
        settings: its learning rate, weight decay and steps are used.

    Returns:
        An optax gradient transformation.

    Example:
        >>> optimizer = adamw(Settings(steps=10))
        >>> state = optimizer.init({"kernel": np.ones(2, np.float32)})
    """
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=settings.learning_rate,
        # From 1, so that not even the first step is wasted on a rate of zero.
        warmup_steps=max(1, round(0.15 * settings.steps)),
        decay_steps=max(2, settings.steps),
    )
    return optax.adamw(
        lambda count: schedule(count + 1),
        b2=0.99,
        weight_decay=settings.weight_decay,
        mask=decayed,
    )


def decayed(params: Any) -> Any:
    """Which parameters decay: convolution and dense kernels.

    Norm scales, biases and class weights do not: only the direction of a class weight
    matters.

    Args:
        params: a nested dict of arrays.

    Returns:
        A nested dict of bools.

    Example:
        >>> decayed({"head": 0, "encoder": {"dense": {"kernel": 0, "bias": 0}}})
        {'encoder': {'dense': {'bias': False, 'kernel': True}}, 'head': False}
    """
    return jax.tree.map_with_path(
        lambda path, _: getattr(path[-1], "key", None) == "kernel", params
    )


def encoder(settings: Settings, image_shape: tuple[int, ...]) -> encoders.Deferred:
    """The encoder that the settings name.

    Args:
        settings: its `encoder`, `width` and `dim` are used.
        image_shape: `(height, width, channels)`.

    Returns:
        The encoder as a pure function, to be initialised by a key.

    Example:
        >>> chosen = encoder(Settings(encoder="mlp", dim=3), (4, 4, 1))
        >>> sorted(jax.eval_shape(chosen.init, jax.random.key(0))[0])
        ['embedding', 'hidden']
    """
    width, dim = settings.width, settings.dim
    builders = {
        "resnet": lambda rngs: encoders.ResNet(
            image_shape=image_shape, width=width, dim=dim, rngs=rngs
        ),
        "convnet": lambda rngs: encoders.ConvNet(
            image_shape=image_shape, width=width, dim=dim, rngs=rngs
        ),
        "mlp": lambda rngs: encoders.MLP(
            image_shape=image_shape, hidden=(16 * width,) * 2, dim=dim, rngs=rngs
        ),
    }
    return encoders.deferred(builders[settings.encoder])


def check_square(settings: Settings, image_shape: tuple[int, ...]) -> None:
    """Raise if symmetries are wanted of images that are not square.

    Args:
        settings: its `symmetries` is used.
        image_shape: `(height, width, channels)`.

    Raises:
        ValueError: if there are several symmetries and height and width differ.

    Example:
        >>> check_square(Settings(), (28, 28, 1))
    """
    if settings.symmetries > 1 and image_shape[0] != image_shape[1]:
        raise ValueError(
            f"Expected square images for {settings.symmetries} symmetries, got "
            f"{image_shape[0]} x {image_shape[1]}; give --image-size or --symmetries 1."
        )


def multiplied(labels: np.ndarray, copies: int) -> np.ndarray:
    """The labels of every image under every symmetry.

    Args:
        labels: `[n]` int.
        copies: how many classes each class becomes.

    Returns:
        `[n * copies]` int32; entry i * copies + k is image i under symmetry k, and of
        class `labels[i] * copies + k`.

    Example:
        >>> multiplied(np.array([0, 5]), 2).tolist()
        [0, 1, 10, 11]
    """
    every = labels[:, None] * copies + np.arange(copies)
    return every.reshape(-1).astype(np.int32)


def preparation(settings: Settings) -> Prepare:
    """Turn images as their labels say, then map them at random; on the device.

    Args:
        settings: its `symmetries` and `augmentation` are used.

    Returns:
        `(key, images, labels) -> (images, labels)`, for labels as `multiplied` makes.

    Example:
        >>> prepare = preparation(Settings(augmentation=0.0))
        >>> image = jax.numpy.array([[1.0, 2.0], [3.0, 4.0]])[None, :, :, None]
        >>> images, _ = prepare(jax.random.key(0), image, jax.numpy.array([9]))
        >>> images[0, :, :, 0].tolist()
        [[2.0, 4.0], [1.0, 3.0]]
    """

    def prepare(key: Array, images: Array, labels: Array) -> tuple[Array, Array]:
        if settings.symmetries > 1:
            images = augment.symmetry(images, labels % settings.symmetries)
        if settings.augmentation > 0:
            images = augment.affine(key, images, strength=settings.augmentation)
        return images, labels

    return prepare
