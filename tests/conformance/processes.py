"""Every loss on two processes with two devices each: `main` is one of them."""

import json
import sys

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from metricjax.training import processes
from tests import test_conformance as table
from tests import test_conformance_devices as sharded


def main() -> None:
    """Join the other process; print value and gradient of each loss of the table."""
    with processes.join(sys.argv[1], count=2, index=int(sys.argv[2]), limit=60):
        kind = (AxisType.Auto,)
        mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=kind)
        whole = NamedSharding(mesh, PartitionSpec())

        def placed(x, spec):
            x = np.asarray(x)
            where = NamedSharding(mesh, spec)
            return jax.make_array_from_callback(x.shape, where, x.__getitem__)

        for row in table.SHARDED:
            specs = sharded.specs(row)
            inputs = {n: placed(x, specs[n]) for n, x in table.single(row).items()}
            data = PartitionSpec("data")
            run = jax.shard_map(
                jax.value_and_grad(table.on_inputs(row, axis_name="data")),
                mesh=mesh,
                in_specs=(specs, data),
                out_specs=(PartitionSpec(), specs),
            )
            run = jax.jit(run, out_shardings=whole)
            found = jax.tree.map(np.asarray, run(inputs, placed(table.LABELS, data)))
            found = jax.tree.map(np.ndarray.tolist, found)
            print(json.dumps({"devices": jax.device_count(), row.name: found}))


if __name__ == "__main__":
    main()
