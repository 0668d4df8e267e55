"""An encoder rebuilt from its description."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from flax import nnx

from metricjax import encoders, training

Tree = Any  # a nested dict of arrays


class Built(NamedTuple):
    """An encoder without weights.

    Attributes:
        apply: see `metricjax.encoders.Apply`.
        params: shapes and dtypes of its parameters.
        state: those of its state.
    """

    apply: encoders.Apply
    params: Tree
    state: Tree


def build(architecture: Mapping[str, Any], image_shape: tuple[int, int, int]) -> Built:
    """The encoder that an architecture describes.

    Args:
        architecture: `{"encoder": NAME, "arguments": {...}}` of `metricjax.encoders`,
            or `{"recipe": NAME, "settings": {...}, "classes": COUNT}`.
        image_shape: `(height, width, channels)`.

    Returns:
        The encoder.

    Raises:
        ValueError: if this version of the library cannot build it.
    """
    try:
        if "encoder" in architecture:
            return _encoder(architecture["encoder"], architecture["arguments"])
        if "recipe" in architecture:
            return _recipe(architecture, image_shape)
    except (TypeError, KeyError) as error:
        raise ValueError(
            f"Expected an architecture that this version can build, got "
            f"{dict(architecture)}: {error}; install the version that made the bundle."
        ) from error
    raise ValueError(
        "Expected an architecture that names an encoder or a recipe, got "
        f"{dict(architecture)}; pass `apply`, the function of your own encoder."
    )


def _encoder(name: str, arguments: Mapping[str, Any]) -> Built:
    kind: Any = getattr(encoders, name) if name in encoders.__all__ else None
    if nnx.Module not in getattr(kind, "__mro__", ()):
        raise KeyError(f"no encoder {name!r} in metricjax.encoders")
    apply, init = encoders.deferred(lambda rngs: kind(**arguments, rngs=rngs))
    return Built(apply, *jax.eval_shape(init, jax.random.key(0)))


def _recipe(
    architecture: Mapping[str, Any], image_shape: tuple[int, int, int]
) -> Built:
    recipe = training.recipes.load(architecture["recipe"])
    settings = recipe.Settings(**architecture["settings"])
    experiment = recipe.build(settings, image_shape, architecture["classes"])
    state = jax.eval_shape(experiment.init, jax.random.key(0))
    return Built(experiment.apply, state.params["encoder"], state.model_state)
