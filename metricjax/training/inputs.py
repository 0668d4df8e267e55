"""What a training step sees: batches drawn on the host, changed on the device."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax import Array

from metricjax import samplers
from metricjax.data import augment, deferred
from metricjax.training.settings import Settings
from metricjax.training.splits import Examples
from metricjax.training.step import Prepare

__all__ = [
    "ahead",
    "multiplied",
    "own_rows",
    "pk_batches",
    "preparation",
    "shuffled_batches",
    "streamed",
]

Draw = Callable[[int], Any]
Batches = Callable[[Examples, int], Draw]

# Batches that are made while another is in use; so many are in memory besides it.
_AHEAD = 2


def shuffled_batches(
    settings: Settings, *, batch: int, with_ids: bool = False
) -> Batches:
    """Batches from shuffled epochs, every symmetry of an image being an example.

    Args:
        settings: its `symmetries` is used.
        batch: images of a batch.
        with_ids: whether to give `(labels, ids)` for labels, where an id is that of the
            image under its symmetry, the same in every batch.

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

    def batches(examples: Examples, seed: int) -> Draw:
        labels = multiplied(examples.labels, copies)

        def draw(t: int) -> tuple[np.ndarray, Any]:
            rows = samplers.shuffled_batch(len(labels), batch=batch, seed=seed, step=t)
            found = labels[rows]
            shown = (found, rows.astype(np.int32)) if with_ids else found
            return examples.images[rows // copies], shown

        return draw

    return batches


def pk_batches(
    settings: Settings, *, classes: int, examples: int, with_ids: bool = False
) -> Batches:
    """Batches of P classes x K images, every symmetry of a class being a class.

    Args:
        settings: its `symmetries` is used.
        classes: P.
        examples: K.
        with_ids: see `shuffled_batches`.

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

    def batches(given: Examples, seed: int) -> Draw:
        labels = multiplied(given.labels, copies)
        table = samplers.class_table(labels)

        def draw(t: int) -> tuple[np.ndarray, Any]:
            rows = samplers.pk_batch(
                table, classes=classes, examples=examples, seed=seed, step=t
            )
            found = labels[rows]
            shown = (found, rows.astype(np.int32)) if with_ids else found
            return given.images[rows // copies], shown

        return draw

    return batches


def streamed(
    batches: Batches,
    *,
    steps: int = sys.maxsize,
    rows: Callable[[int], slice] | None = None,
) -> Batches:
    """The same batches; where images are not in memory, they are read ahead of time.

    The recipe's own function chooses images, here they are read: batches of step t + 1
    and t + 2 while that of step t is in use. Of images in memory, which take
    microseconds to draw, nothing changes.

    One process gets arrays. Of many each gets, in the place of the images, what stands
    for the array of the whole batch, with its `shape` and `dtype`; the rows that
    `rows` names were read, any other is read when it is indexed. So
    `jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])` makes each
    process read its own part of the batch and no other.

    Args:
        batches: `(examples, seed) -> (t -> batch)`, which takes images by indexing
            `examples.images` with an array.
        steps: no batch is read ahead from this step on.
        rows: of a batch of so many images, those that this process reads ahead;
            `own_rows` if None.

    Returns:
        The same function of examples and seed.

    Example:
        >>> examples = Examples(np.zeros((6, 8, 8, 1), np.uint8), np.arange(6) % 3)
        >>> batches = streamed(shuffled_batches(Settings(), batch=4))
        >>> batches(examples, 0)(0)[0].shape
        (4, 8, 8, 1)
    """

    def read(leaf: Any) -> Any:
        if not isinstance(leaf, deferred.Rows):
            return leaf
        if rows is None and jax.process_count() == 1:
            return np.asarray(leaf)
        return deferred.Part(leaf, (rows or own_rows)(len(leaf)))

    def batches_ahead(examples: Examples, seed: int) -> Draw:
        images: Any = examples.images
        if not isinstance(images, deferred.Rows):
            return batches(examples, seed)
        later: Any = deferred.Later(images)
        choose = batches(examples._replace(images=later), seed)
        return ahead(lambda t: jax.tree.map(read, choose(t)), steps=steps)

    return batches_ahead


def own_rows(count: int) -> slice:
    """The rows of a batch that this process puts on its own devices.

    Those of all processes are disjoint, and together they are the batch: runs of rows
    in the order of the processes, as a mesh of all devices in their order divides it.

    Args:
        count: rows of the batch.

    Returns:
        A run of rows.

    Example:
        >>> own_rows(8)
        slice(0, 8, None)
    """
    index, processes = jax.process_index(), jax.process_count()
    return slice(count * index // processes, count * (index + 1) // processes)


def ahead(draw: Draw, *, steps: int = sys.maxsize) -> Draw:
    """The same batches, made in a thread before they are asked for.

    Whoever asks for one step after the other finds the next two batches made, or in the
    making, and no more. The step is all that there is to remember: any may be asked for
    at any time, and the thread starts again from there. An error in the thread is
    raised where its batch is asked for.

    Args:
        draw: `t -> batch`, a pure function.
        steps: no batch is made ahead from this step on.

    Returns:
        A function of t with the same results, for one thread to call.

    Raises:
        ImportError: once it is called for a second time, if Grain is missing.

    Example:
        >>> draw = ahead(lambda t: t**2)
        >>> [draw(t) for t in (3, 4, 5, 0)]
        [9, 16, 25, 0]
    """
    reader: Iterator[Any] | None = None
    following = -1

    def drawn(t: int) -> Any:
        nonlocal reader, following
        if t != following or t >= steps:
            # The first of a row of steps, or a single one: it needs no thread.
            current, found = None, draw(t)
        else:
            # Not kept if it raises: then it would be a batch behind.
            current, reader = reader or _reader(draw, t, steps), None
            found = next(current)
        reader, following = current, t + 1
        return found

    return drawn


def _reader(draw: Draw, start: int, stop: int) -> Iterator[Any]:
    try:
        import grain
    except ImportError as error:
        raise ImportError(
            "Expected the package grain, which reads batches ahead of time; install it "
            'with: pip install "metricjax[train]"'
        ) from error
    # One thread chooses batches in their order; each decodes its images in many.
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=_AHEAD)
    batches = grain.MapDataset.range(start, stop).map(draw)
    return iter(batches.to_iter_dataset(options))


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
            `input_size` are used. Of spectrograms `augmentation` scales the affine map,
            the gain of frequencies and the noise; masks are the same at any strength.

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
    map_key, room_key, noise_key, time_key, frequency_key = jax.random.split(key, 5)
    strength = settings.augmentation
    images = augment.affine(
        map_key,
        images,
        # Earlier and later, faster and slower, and unevenly so: the ends of a word are
        # often found wrong, and every speaker has another pace. But hardly a move along
        # frequency, which tells vowels apart; and no turn.
        rotation=0.0,
        shear=0.0,
        scale=(0.05, 0.5),
        shift=(0.02, 0.15),
        elastic=(0.05, 0.1),
        strength=strength,
        size=settings.input_size,
    )
    images = augment.equalize(room_key, images, deviation=0.05 * strength)
    images = augment.noise(
        noise_key,
        images,
        level=0.4 * strength,
        tilt=0.1 * strength,
        deviation=0.05 * strength,
    )
    rows, frames = images.shape[1:3]
    images = augment.time_mask(time_key, images, width=frames // 8)
    return augment.frequency_mask(frequency_key, images, width=rows // 8)
