"""Views of an image at test time: their embeddings together vary less than one alone.

    encoder = views.averaged(apply, views.of_content("photos", 16))
    encoder = views.joined(apply, 8)

`--average-views N` and `--join-symmetries` do this to the encoder of a run, so that the
test, the calibration, the bundle and its gallery all embed an image in the same views.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from metricjax import encoders, numerics
from metricjax.data import augment

__all__ = ["averaged", "joined", "of_content"]

View = Callable[[Array], Array]

# Ranges of `augment.affine`: smaller than in training. Photos are hardly sheared.
_RANGES = {
    "characters": {"rotation": 0.14, "scale": 0.12, "shear": 0.15, "shift": 0.035},
    "photos": {"rotation": 0.1, "scale": 0.08, "shear": 0.03, "shift": 0.04},
}


def of_content(content: str, count: int, *, size: int | None = None) -> list[View]:
    """The first views of an image by what it shows; the first is the image as it is.

    Of characters the others are small affine maps, drawn once, the same for all images.
    Of photos every second is the mirror image of the one before.

    Args:
        content: "characters" or "photos".
        count: number of views.
        size: the side that all are brought to; they keep their size if None.

    Returns:
        Functions of floating images `[batch, height, width, channels]`.

    Raises:
        ValueError: if no views of such images are known.

    Example:
        >>> as_it_is, mirrored = of_content("photos", 2)
        >>> mirrored(jnp.array([1.0, 2.0]).reshape(1, 1, 2, 1))[0, 0, :, 0].tolist()
        [2.0, 1.0]
    """
    if content not in _RANGES:
        raise ValueError(
            f"Expected 1 view of an image of {content}, got {count}; only "
            f"{' and '.join(_RANGES)} have further ones."
        )
    pairs = 2 if content == "photos" else 1
    numbers = [divmod(number, pairs) for number in range(count)]
    ranges = _RANGES[content]
    return [
        functools.partial(_view, ranges, size, index, bool(is_mirrored))
        for index, is_mirrored in numbers
    ]


def _view(
    ranges: dict[str, float],
    size: int | None,
    index: int,
    is_mirrored: bool,
    images: Array,
) -> Array:
    images = images[:, :, ::-1] if is_mirrored else images
    if index == 0:
        return images if size is None else augment.resize(images, size)

    def mapped(image: Array) -> Array:
        # One key for all images, so that all are mapped alike.
        key = jax.random.key(index)
        return augment.affine(key, image[None], size=size, **ranges)[0]

    return jax.vmap(mapped)(images)


def averaged(apply: encoders.Apply, views: Sequence[View]) -> encoders.Apply:
    """An encoder that embeds an image in several views; in training it sees one.

    The embedding is the direction of `sum f(v(x)) / |f(v(x))|` over the views v. All
    are encoded as one batch, which is so many times as large.

    Args:
        apply: the encoder f, see `metricjax.encoders.Apply`.
        views: functions of floating images `[batch, ...]` in 0..1 that give images of
            one common size.

    Returns:
        The encoder, with the same parameters and state.

    Example:
        >>> def apply(params, state, images, *, train, key=None):
        ...     return images.reshape(images.shape[0], -1), state
        >>> both = averaged(apply, [lambda x: x, lambda x: x[:, :, ::-1]])
        >>> image = jnp.array([3.0, 4.0]).reshape(1, 1, 2, 1)
        >>> both({}, {}, image, train=False)[0].round(3).tolist()
        [[0.7070000171661377, 0.7070000171661377]]
    """

    def embed(params: Any, state: Any, images: Array, key: Array | None) -> Any:
        seen = jnp.concatenate([view(images) for view in views])
        embeddings, state = apply(params, state, seen, train=False, key=key)
        unit = numerics.l2_normalize(embeddings)
        # Not len(images), which an exported program does not know.
        parts = unit.reshape(len(views), images.shape[0], unit.shape[-1])
        return numerics.l2_normalize(parts.sum(axis=0)), state

    return _in_the_test(apply, embed)


def joined(apply: encoders.Apply, symmetries: int) -> encoders.Apply:
    """An encoder that embeds an image under its symmetries, side by side.

    `[f(s_0(x)), f(s_1(x)), ...]` over the first symmetries `s_k` of the square, for an
    encoder that was trained on the turned classes as classes of their own: each part is
    then the opinion of nearly another encoder. Squared distances and L1 distances of
    two images are the sums of those of the parts, and their cosine is the mean of
    theirs, if all parts are of one length. In training an image is seen once, as it is.

    Args:
        apply: the encoder f, see `metricjax.encoders.Apply`.
        symmetries: how many, 1 to 8; see `metricjax.data.augment.symmetry`. They are
            encoded one after the other, in the memory of one.

    Returns:
        The encoder, with the same parameters and state: `[batch, dim]` embeddings of
        square images `[batch, size, size, channels]` become
        `[batch, symmetries * dim]`.

    Raises:
        ValueError: if there are not so many symmetries; from the encoder, if images are
            not square.

    Example:
        >>> def apply(params, state, images, *, train, key=None):
        ...     return images[:, 0, :, 0], state
        >>> image = jnp.array([[1.0, 2.0], [3.0, 4.0]])[None, :, :, None]
        >>> joined(apply, 4)({}, {}, image, train=False)[0].tolist()
        [[1.0, 2.0, 2.0, 4.0, 4.0, 3.0, 3.0, 1.0]]

    References:
        Lee, Hwang and Shin, "Self-supervised Label Augmentation via Input
        Transformations", ICML 2020, arXiv:1910.05872, whose aggregated inference takes
        the mean of the logits of turned images.
    """
    if not 1 <= symmetries <= 8:
        raise ValueError(
            f"Expected `symmetries` in 1..8, got {symmetries!r}; a square has eight."
        )

    def embed(params: Any, state: Any, images: Array, key: Array | None) -> Any:
        def embedded(which: Array) -> Array:
            turned = augment.symmetry(images, jnp.full(images.shape[0], which))
            return apply(params, state, turned, train=False, key=key)[0]

        parts = jax.lax.map(embedded, jnp.arange(symmetries))
        length = symmetries * parts.shape[-1]
        return jnp.moveaxis(parts, 0, 1).reshape(images.shape[0], length), state

    return _in_the_test(apply, embed)


def _in_the_test(
    apply: encoders.Apply, embed: Callable[[Any, Any, Array, Array | None], Any]
) -> encoders.Apply:
    """In training as before; in the test `embed(params, state, images, key)`."""

    def encoder(
        params: Any,
        state: Any,
        images: ArrayLike,
        *,
        train: bool,
        key: Array | None = None,
    ) -> tuple[Array, Any]:
        if train:
            return apply(params, state, images, train=True, key=key)
        return embed(params, state, encoders.as_float(images), key)

    return encoder
