"""The optimiser of the recipes, and one step of it for several batches."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import optax

from metricjax.training.settings import Settings

__all__ = ["accumulated", "adamw", "decayed"]


def adamw(
    settings: Settings, *, rates: Mapping[str, float] | None = None
) -> optax.GradientTransformation:
    """AdamW with warm-up and cosine decay; weight decay on kernels only.

    Args:
        settings: its learning rate, weight decay, steps and accumulation are used.
        rates: factors of the learning rate for parts of the parameters, by name.

    Returns:
        An optax gradient transformation.

    Example:
        >>> optimizer = adamw(Settings(steps=10))
        >>> state = optimizer.init({"kernel": jax.numpy.ones(2)})
    """
    updates = settings.steps // settings.accumulate
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=settings.learning_rate,
        # From 1, so that not even the first step is wasted on a rate of zero.
        warmup_steps=max(1, round(0.15 * updates)),
        decay_steps=max(2, updates),
    )
    optimizer = optax.adamw(
        lambda count: schedule(count + 1),
        b2=0.99,
        weight_decay=settings.weight_decay,
        mask=decayed,
    )
    scaled = [
        optax.masked(optax.scale(rate), functools.partial(_is_part, name=name))
        for name, rate in (rates or {}).items()
    ]
    return optax.chain(optimizer, *scaled) if scaled else optimizer


def accumulated(
    optimizer: optax.GradientTransformation, batches: int
) -> optax.GradientTransformation:
    """The same optimiser with one update for several batches, by their mean gradient.

    Its own schedules count updates. In between parameters stay as they are.

    Args:
        optimizer: an optax gradient transformation.
        batches: for each update, at least 1.

    Returns:
        An optax gradient transformation, for `optax.MultiSteps` does it.

    Example:
        >>> optimizer = accumulated(optax.sgd(1.0), 2)
        >>> state = optimizer.init(0.0)
        >>> first, state = optimizer.update(1.0, state)
        >>> second, state = optimizer.update(3.0, state)
        >>> float(first), float(second)
        (0.0, -2.0)
    """
    return optax.MultiSteps(optimizer, batches).gradient_transformation()


def _is_part(params: Any, name: str) -> Any:
    return {
        part: jax.tree.map(lambda _: part == name, tree)  # noqa: B023
        for part, tree in params.items()
    }


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
