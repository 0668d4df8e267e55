"""What a training step sees: batches drawn on the host, changed on the device."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array

from metricjax import samplers
from metricjax.data import augment
from metricjax.training.settings import Settings
from metricjax.training.splits import Examples
from metricjax.training.step import Prepare

__all__ = ["multiplied", "pk_batches", "preparation", "shuffled_batches"]

Batches = Callable[[Examples, int], Callable[[int], Any]]


def shuffled_batches(settings: Settings, *, batch: int) -> Batches:
    """Batches from shuffled epochs, every symmetry of an image being an example.

    Args:
        settings: its `symmetries` is used.
        batch: images of a batch.

    Returns:
        `(examples, seed) -> (t -> (images, labels))`.

    Example:
        >>> examples = Examples(np.zeros((6, 8, 8, 1), np.uint8), np.arange(6) % 3)
        >>> draw = shuffled_batches(Settings(), batch=4)(examples, 0)
        >>> images, labels = draw(0)
        >>> images.shape, labels.max() < 3 * 8
        ((4, 8, 8, 1), np.True_)
    """
    copies = settings.symmetries

    def batches(examples: Examples, seed: int) -> Callable[[int], Any]:
        labels = multiplied(examples.labels, copies)

        def draw(t: int) -> tuple[np.ndarray, np.ndarray]:
            rows = samplers.shuffled_batch(len(labels), batch=batch, seed=seed, step=t)
            return examples.images[rows // copies], labels[rows]

        return draw

    return batches


def pk_batches(settings: Settings, *, classes: int, examples: int) -> Batches:
    """Batches of P classes x K images, every symmetry of a class being a class.

    Args:
        settings: its `symmetries` is used.
        classes: P.
        examples: K.

    Returns:
        `(examples, seed) -> (t -> (images, labels))`.

    Example:
        >>> few = Examples(np.zeros((6, 8, 8, 1), np.uint8), np.arange(6) % 3)
        >>> draw = pk_batches(Settings(), classes=5, examples=2)(few, 0)
        >>> labels = draw(0)[1].reshape(5, 2)
        >>> bool((labels[:, 0] == labels[:, 1]).all())
        True
    """
    copies = settings.symmetries

    def batches(given: Examples, seed: int) -> Callable[[int], Any]:
        labels = multiplied(given.labels, copies)
        table = samplers.class_table(labels)

        def draw(t: int) -> tuple[np.ndarray, np.ndarray]:
            rows = samplers.pk_batch(
                table, classes=classes, examples=examples, seed=seed, step=t
            )
            return given.images[rows // copies], labels[rows]

        return draw

    return batches


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
    """Turn images as their labels say, then change them at random; on the device.

    Args:
        settings: `content`, `symmetries`, `augmentation`, `elastic`, `thickness` and
            `input_size` are used.

    Returns:
        `(key, images, labels) -> (images, labels)`, for labels as `multiplied` makes.

    Example:
        >>> prepare = preparation(Settings(augmentation=0.0))
        >>> image = jax.numpy.array([[1.0, 2.0], [3.0, 4.0]])[None, :, :, None]
        >>> images, _ = prepare(jax.random.key(0), image, jax.numpy.array([9]))
        >>> images[0, :, :, 0].tolist()
        [[2.0, 4.0], [1.0, 3.0]]
    """
    change = {
        "characters": _change_characters,
        "photos": _change_photos,
        "spectrograms": _change_spectrograms,
        "vectors": lambda key, images, settings: images,
    }[settings.content]

    def prepare(key: Array, images: Array, labels: Array) -> tuple[Array, Array]:
        if settings.symmetries > 1:
            images = augment.symmetry(images, labels % settings.symmetries)
        return change(key, images, settings), labels

    return prepare


def _change_characters(key: Array, images: Array, settings: Settings) -> Array:
    if settings.augmentation > 0:
        images = augment.affine(
            key,
            images,
            strength=settings.augmentation,
            elastic=settings.elastic,
            size=settings.input_size,
        )
    if settings.thickness > 0:
        images = augment.thickness(
            jax.random.fold_in(key, 1),
            images,
            low=-0.35 * settings.thickness,
            high=0.65 * settings.thickness,
        )
    return images


def _change_photos(key: Array, images: Array, settings: Settings) -> Array:
    flip_key, map_key, color_key = jax.random.split(key, 3)
    images = augment.flip(flip_key, images)
    images = augment.affine(
        map_key,
        images,
        # A face is seldom sheared, and its ends are cut off by larger shifts.
        shear=0.1,
        strength=settings.augmentation,
        size=settings.input_size,
    )
    return augment.color(color_key, images)


def _change_spectrograms(key: Array, images: Array, settings: Settings) -> Array:
    map_key, time_key, frequency_key = jax.random.split(key, 3)
    images = augment.affine(
        map_key,
        images,
        # Earlier and later, faster and slower, but no turn.
        rotation=0.0,
        shear=0.0,
        strength=settings.augmentation,
        size=settings.input_size,
    )
    rows, frames = images.shape[1:3]
    images = augment.time_mask(time_key, images, width=frames // 8)
    return augment.frequency_mask(frequency_key, images, width=rows // 8)
