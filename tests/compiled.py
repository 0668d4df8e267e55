"""Calls as one program, where an eager one compiles each of its operations."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax


def call(function: Callable, *arguments, **options) -> Any:
    """`function(*arguments, **options)`; what is given by name is a constant."""
    return jax.jit(partial(function, **options))(*arguments)


def grad(function: Callable, *arguments, argnums: int = 0, **options) -> Any:
    """The gradient by one argument."""
    return call(jax.grad(function, argnums), *arguments, **options)
