"""What the machine can do at best: its matrix products and its memory, by a library.

Work that needs so many products, or moves so many bytes, can't be faster: the roofline.
"""

import time
from collections.abc import Callable

CALLS = 10


def measure(library: str) -> dict[str, float]:
    """Rates of one library, the best of some calls.

    Args:
        library: "jax" or "torch".

    Returns:
        `gflops` of float32 matrix products, 1e9 operations a second; `gbytes`, 1e9
        bytes read and written a second by an operation in place.
    """
    product, in_place, rows, size = {"jax": _jax, "torch": _torch}[library]()
    return {
        "gflops": 2 * rows**3 / _least(product) / 1e9,
        "gbytes": 2 * 4 * size / _least(in_place) / 1e9,
    }


def _least(call: Callable[[], object]) -> float:
    times = []
    for _ in range(CALLS + 1):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def _sizes(on_accelerator: bool) -> tuple[int, int]:
    """Rows of the square product, and entries of the array that is read and written."""
    return (8192, 2**28) if on_accelerator else (2048, 2**26)


def _jax() -> tuple[Callable[[], object], Callable[[], object], int, int]:
    import jax
    import jax.numpy as jnp

    rows, size = _sizes(jax.default_backend() != "cpu")
    x = jnp.ones((rows, rows))
    multiply = jax.jit(lambda x: jnp.matmul(x, x, precision="highest"))
    double = jax.jit(lambda y: 2.0 * y, donate_argnums=0)
    state = [jnp.zeros(size)]

    def in_place() -> None:
        state[0] = jax.block_until_ready(double(state[0]))

    return lambda: jax.block_until_ready(multiply(x)), in_place, rows, size


def _torch() -> tuple[Callable[[], object], Callable[[], object], int, int]:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows, size = _sizes(device == "cuda")
    x = torch.ones((rows, rows), device=device)
    y = torch.zeros(size, device=device)

    def wait(_: object) -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    return lambda: wait(x @ x), lambda: wait(y.mul_(2.0)), rows, size
