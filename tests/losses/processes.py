"""Losses of a batch on two processes with two devices each: `main` is one of them."""

import functools
import json
import sys

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from metricjax import losses
from metricjax.training import processes

BATCH, DIM, CLASSES = 12, 5, 8
# Equal labels lie on one device, on both of a process, and on several processes.
LABELS = np.array([0, 0, 3, 1, 2, 2, 7, 1, 0, 3, 2, 1], np.int32)
DATA = PartitionSpec("data")
HERE = {"axis_name": "data"}


def supcon(x, w, y, **options):
    del w
    return losses.supcon(x, y, **options)


def triplets(x, w, y, **options):
    del w
    return losses.triplet_all(x, y, **options)


# How candidates get to the anchors of other devices: the loss, and its options there.
FORMS = {
    "gathered": (supcon, HERE),
    "ring": (supcon, HERE | {"ring": True}),
    "gathered at once": (triplets, HERE),
    "class weights": (losses.arcface, HERE | {"class_axis": "data"}),
}


def arguments():
    """Embeddings, class weights and labels."""
    rng = np.random.default_rng(0)
    x, w = (rng.normal(size=(rows, DIM)) for rows in (BATCH, CLASSES))
    return x.astype(np.float32), w.astype(np.float32), LABELS


def gradients(loss, **options):
    """Value and gradients, of embeddings and class weights."""
    return jax.value_and_grad(functools.partial(loss, **options), argnums=(0, 1))


def main() -> None:
    """Join the other process, and print what the loss is over all four devices."""
    with processes.join(sys.argv[1], count=2, index=int(sys.argv[2]), limit=20):
        kind = (AxisType.Auto,)
        mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=kind)
        rows, whole = (NamedSharding(mesh, spec) for spec in (DATA, PartitionSpec()))

        @functools.partial(jax.jit, out_shardings=whole)
        def every(*arguments):
            found = {}
            for name, (loss, options) in FORMS.items():
                inside = gradients(loss, **options)
                out = (PartitionSpec(), (DATA, DATA))
                run = jax.shard_map(
                    inside, mesh=mesh, in_specs=(DATA,) * 3, out_specs=out
                )
                found[name] = run(*arguments)
            return found

        placed = [
            jax.make_array_from_callback(x.shape, rows, x.__getitem__)
            for x in arguments()
        ]
        found = jax.tree.map(lambda x: np.asarray(x).tolist(), every(*placed))
        print(json.dumps({"devices": jax.device_count(), "found": found}))


if __name__ == "__main__":
    main()
