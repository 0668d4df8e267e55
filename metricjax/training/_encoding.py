"""The encoders that settings name, and what is put around them."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from metricjax import encoders, numerics, transforms
from metricjax.data import augment
from metricjax.training.settings import Settings


def named(settings: Settings, image_shape: tuple[int, ...]) -> encoders.Deferred:
    """The net itself, of images of the size that it sees."""
    width, dim = settings.width, settings.dim
    builders = {
        "resnet": lambda rngs: encoders.ResNet(
            image_shape=image_shape,
            width=width,
            dim=dim,
            pool_time=settings.content == "spectrograms",
            rngs=rngs,
        ),
        "convnet": lambda rngs: encoders.ConvNet(
            image_shape=image_shape, width=width, dim=dim, rngs=rngs
        ),
        "mlp": lambda rngs: encoders.MLP(
            image_shape=image_shape, hidden=(16 * width,) * 2, dim=dim, rngs=rngs
        ),
        "linear": lambda rngs: encoders.MLP(
            image_shape=image_shape, hidden=(), dim=dim, rngs=rngs
        ),
        "koch": lambda rngs: _koch(image_shape, width, dim, rngs),
    }
    return encoders.deferred(builders[settings.encoder])


def resampling(apply: encoders.Apply, size: int) -> encoders.Apply:
    """An encoder that brings images of any other size to the one that it needs."""

    def resampled(
        params: Any,
        state: Any,
        images: ArrayLike,
        *,
        train: bool,
        key: Array | None = None,
    ) -> tuple[Array, Any]:
        images = encoders.as_float(images)
        if images.shape[1:3] != (size, size):
            images = augment.resize(images, size)
        return apply(params, state, images, train=train, key=key)

    return resampled


def of_counts(apply: encoders.Apply) -> encoders.Apply:
    """An encoder of counts, given as bytes: logarithms, of a common length."""

    def scaled(
        params: Any,
        state: Any,
        images: ArrayLike,
        *,
        train: bool,
        key: Array | None = None,
    ) -> tuple[Array, Any]:
        x = jnp.log1p(255.0 * encoders.as_float(images))
        x = numerics.l2_normalize(x) * x.shape[1] ** 0.5
        return apply(params, state, x, train=train, key=key)

    return scaled


def in_chunks(apply: encoders.Apply, chunk: int) -> encoders.Apply:
    """An encoder that trains by GradCache; evaluation stores nothing anyway."""
    cached = transforms.grad_cache(apply, chunk=chunk)

    def chunked(
        params: Any,
        state: Any,
        images: ArrayLike,
        *,
        train: bool,
        key: Array | None = None,
    ) -> tuple[Array, Any]:
        chosen = cached if train else apply
        return chosen(params, state, images, train=train, key=key)

    return chunked


def _koch(
    image_shape: tuple[int, ...], width: int, dim: int, rngs: nnx.Rngs
) -> encoders.Koch:
    """The paper's net for the paper's images, its light form for smaller ones."""
    if min(image_shape[:2]) >= 105:
        return encoders.Koch(image_shape=image_shape, width=width, units=dim, rngs=rngs)
    return encoders.Koch(
        image_shape=image_shape,
        width=width,
        units=dim,
        kernels=(5, 5, 3, 3),
        padding="SAME",
        paper_init=False,
        rngs=rngs,
    )
