"""Static checks of shapes and dtypes, shared by every public entry.

They look at shapes and dtypes only, so that they cost nothing under `jax.jit`. A
message says what was expected, what came, and what to do about it.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike


def describe(x: ArrayLike) -> str:
    """Shape and dtype of `x` in a few characters, for messages."""
    return f"{jnp.result_type(x)}{list(jnp.shape(x))}"


def check_embeddings(name: str, x: ArrayLike) -> None:
    """Raise unless `x` is a float array `[rows, dim]`."""
    if jnp.ndim(x) != 2:
        raise ValueError(
            f"Expected `{name}` of shape [rows, dim], got {describe(x)}; "
            "flatten each item to one vector, and use jax.vmap for more axes."
        )
    check_float(name, x)


def check_float(name: str, x: ArrayLike) -> None:
    """Raise unless `x` is of a real floating dtype."""
    if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
        raise TypeError(
            f"Expected `{name}` of a floating dtype, got {describe(x)}; "
            "convert it, for instance with x.astype(jnp.float32)."
        )


def check_same_dim(x_name: str, x: ArrayLike, y_name: str, y: ArrayLike) -> None:
    """Raise unless the last axes of `x` and `y` agree."""
    if jnp.shape(x)[-1] != jnp.shape(y)[-1]:
        raise ValueError(
            f"Expected `{x_name}` and `{y_name}` with the same last axis, "
            f"got {describe(x)} and {describe(y)}."
        )


def check_labels(name: str, labels: ArrayLike, rows: int) -> None:
    """Raise unless `labels` are integers of shape `[rows]`."""
    if jnp.ndim(labels) == 2:
        raise ValueError(
            f"Expected `{name}` of shape [{rows}], got {describe(labels)}; pass class "
            f"indices, not one-hot rows: {name}.argmax(axis=1). For several labels per "
            "item build masks with metricjax.pairs.shares_label."
        )
    check_shape(name, labels, (rows,), "one label for each row")
    if not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise TypeError(
            f"Expected `{name}` of an integer dtype, got {describe(labels)}; "
            f"convert with {name}.astype(jnp.int32)."
        )


def check_mask(name: str, mask: ArrayLike, shape: tuple[int, ...]) -> None:
    """Raise unless `mask` is boolean and of this shape."""
    check_shape(name, mask, shape, "True where the entry counts")
    if jnp.result_type(mask) != jnp.bool_:
        raise TypeError(
            f"Expected `{name}` of dtype bool, got {describe(mask)}; "
            f"convert with {name}.astype(bool) (weights go to `weights`)."
        )


def check_shape(name: str, x: ArrayLike, shape: tuple[int, ...], hint: str) -> None:
    """Raise unless `x` has exactly this shape."""
    if jnp.shape(x) != shape:
        raise ValueError(
            f"Expected `{name}` of shape {list(shape)}, got {describe(x)}; {hint}."
        )


def check_positive_int(name: str, value: int, hint: str) -> None:
    """Raise unless `value` is a Python integer of at least one."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(
            f"Expected `{name}` to be an integer of at least 1, got {value!r}; {hint}."
        )
