"""An optimiser applied to some rows of the parameters, as if to all of them.

That is possible where the update of a row depends on nothing but its own gradient, its
own value and its own state, which is so for every elementwise optimiser (SGD, Adam,
AdamW). An optimiser does not say whether it is; so it is tried, on a few small rows,
together and apart.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

if TYPE_CHECKING:
    import optax

CURE = (
    "use an elementwise one, such as optax.sgd, optax.adam or optax.adamw, and leave "
    "out what looks at the whole gradient (its norm, its factors, whether all of it is "
    "finite)"
)
# Whether the gradient is clipped shows only if it is large, and whether it is refused
# only if it is infinite.
MAGNITUDES = (1e-6, 1.0, np.inf, 1e12)
HALF = 2


class RowState(NamedTuple):
    """The state of an optimiser, taken apart.

    Attributes:
        rows: leaves `[rows, ...]`, of the shape of the parameters.
        shared: the other leaves, such as a step count.
    """

    rows: list[Any]
    shared: list[Any]


def split(
    optimizer: "optax.GradientTransformation", params: Array, state: Any
) -> tuple[RowState, Callable[[RowState], Any]]:
    """The state taken apart, and the function that puts it together again.

    Raises:
        ValueError: if the state is not the optimiser's, or some of it is neither shared
            by all rows nor of the shape of the parameters.
    """
    expected = jax.eval_shape(optimizer.init, params)
    leaves, treedef = jax.tree.flatten(state)
    if _form(state) != _form(expected):
        raise ValueError(
            f"Expected `state` of the form {_form(expected)}, got {_form(state)}; "
            "start with optimizer.init(class_weights)."
        )
    flags = _row_leaves(optimizer, params)

    def join(parts: RowState) -> Any:
        rows, shared = iter(parts.rows), iter(parts.shared)
        both = [next(rows) if flag else next(shared) for flag in flags]
        return jax.tree.unflatten(treedef, both)

    pairs = list(zip(leaves, flags, strict=True))
    rows = [leaf for leaf, flag in pairs if flag]
    return RowState(rows, [leaf for leaf, flag in pairs if not flag]), join


def _form(state: Any) -> tuple[Any, list[tuple[int, ...]]]:
    leaves, treedef = jax.tree.flatten(state)
    return treedef, [jnp.shape(leaf) for leaf in leaves]


def _row_leaves(
    optimizer: "optax.GradientTransformation", params: Array
) -> tuple[bool, ...]:
    """Which leaves of the state have a row for each row of the parameters."""
    more = jax.ShapeDtypeStruct((params.shape[0] + 1, *params.shape[1:]), params.dtype)
    here = jax.tree.leaves(jax.eval_shape(optimizer.init, params))
    there = jax.tree.leaves(jax.eval_shape(optimizer.init, more))
    flags = tuple(x.shape != y.shape for x, y in zip(here, there, strict=True))
    for leaf, flag in zip(here, flags, strict=True):
        if flag and leaf.shape != params.shape:
            raise ValueError(
                "Expected an optimiser whose state is of the shape of the parameters "
                f"{list(params.shape)}, got a part of shape {list(leaf.shape)}; {CURE}."
            )
    return flags


def check(optimizer: "optax.GradientTransformation", params: Array) -> None:
    """Raise unless the optimiser treats each row by itself, on a few small rows.

    Raises:
        ValueError: if rows together and rows apart come out differently, or if the
            settings of the optimiser have no values yet.
    """
    rng = np.random.default_rng(0)
    shape = (2 * HALF, *params.shape[1:])
    # Of unlike length, so that a norm over all rows is not that of half of them.
    lengths = np.array([1.0, 2.0, 30.0, 40.0]).reshape(-1, *[1] * (len(shape) - 1))

    def rows(magnitude: float = 1.0) -> Array:
        x = rng.normal(size=shape) * lengths
        if np.isinf(magnitude):
            x[0] = np.inf
        else:
            x = x * magnitude
        return jnp.asarray(x, params.dtype)

    with jax.ensure_compile_time_eval(), jax.debug_nans(False):
        start, gradients = rows(), [rows(magnitude) for magnitude in MAGNITUDES]
        whole, *halves = (
            _values(optimizer, start[part], [g[part] for g in gradients])
            for part in (slice(None), slice(HALF), slice(HALF, None))
        )
    if not all(map(_equal, whole, *halves)):
        raise ValueError(
            "Expected an optimiser that treats each element by itself, got one whose "
            f"update of a row depends on other rows; {CURE}."
        )


class _Values(NamedTuple):
    """What came of some rows: arrays that have rows, and arrays that have none."""

    rows: list[np.ndarray]
    shared: list[np.ndarray]


def _values(
    optimizer: "optax.GradientTransformation", params: Array, gradients: list[Array]
) -> list[_Values]:
    """Parameters and state after each of some updates."""
    # Compiled once for each optimiser, not at each call.
    update, state = jax.jit(optimizer.update), optimizer.init(params)
    found = []
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = params + updates
        parts, _ = split(optimizer, params, state)
        try:
            found.append(_Values(_host([params, *parts.rows]), _host(parts.shared)))
        except jax.errors.TracerArrayConversionError as error:
            raise ValueError(
                "Expected an optimiser whose settings are numbers, got traced ones; "
                "make it outside of jax.jit, with optax.inject_hyperparams for a rate "
                "that changes."
            ) from error
    return found


def _host(leaves: list[Any]) -> list[np.ndarray]:
    data = [
        jax.random.key_data(x)
        if jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key)
        else x
        for x in leaves
    ]
    return [np.asarray(x) for x in data]


def _equal(whole: _Values, first: _Values, second: _Values) -> bool:
    """Whether rows apart are the rows together, and what they share is the same."""
    joined = map(np.concatenate, zip(first.rows, second.rows, strict=True))
    pairs = [
        *zip(whole.rows, joined, strict=True),
        *zip(whole.shared, first.shared, strict=True),
        *zip(whole.shared, second.shared, strict=True),
    ]
    return all(
        np.allclose(x.astype(float), y.astype(float), rtol=1e-3, atol=0, equal_nan=True)
        for x, y in pairs
    )


def update(
    optimizer: "optax.GradientTransformation",
    gradient: Array,
    params: Array,
    state: Any,
) -> tuple[Array, Any]:
    """New parameters and state, in the dtypes of the old ones."""
    updates, new = optimizer.update(gradient, state, params)
    params = jnp.asarray(params + jnp.asarray(updates), params.dtype)
    return params, jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), new, state)
