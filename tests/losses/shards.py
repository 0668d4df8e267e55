"""Eight devices in several layouts, for losses whose classes are sharded."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh

# Sizes of the mesh, and the axis over which the batch is sharded.
LAYOUTS = {
    "the same batch on all": ({"classes": 8}, None),
    "batch and classes on one axis": ({"classes": 8}, "classes"),
    "batch on both axes": ({"data": 2, "classes": 4}, ("data", "classes")),
    "batch on another axis": ({"data": 2, "classes": 4}, "data"),
}


def mesh_of(**sizes: int) -> Mesh:
    kinds = (AxisType.Auto,) * len(sizes)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=kinds)


def pad(w: Array, multiple: int = 8) -> tuple[Array, Array]:
    """Class weights with rows of padding, and their logarithmic weights."""
    rows = -(-w.shape[0] // multiple) * multiple
    widths = [(0, rows - w.shape[0])] + [(0, 0)] * (w.ndim - 1)
    log_weights = jnp.where(jnp.arange(rows) < w.shape[0], 0.0, -jnp.inf)
    return jnp.pad(w, widths, constant_values=3.0), log_weights


def assert_close(found, expected):
    """Equality of trees, relative to the largest entry of each leaf."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        scale = float(jnp.max(jnp.abs(b)))
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * scale)
