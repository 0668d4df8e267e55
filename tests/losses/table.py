"""Losses of the conformance table on two processes with two devices each.

`main` is one of them: it is told where they meet, which of them it is, and rows.
"""

import json
import sys

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from metricjax.training import processes

WHOLE = PartitionSpec()


def main() -> None:
    """Join the other process, and print what the losses are over all four devices."""
    address, index, *names = sys.argv[1:]
    with processes.join(address, count=2, index=int(index), limit=60):
        # The table makes arrays, which only joined processes may.
        from tests.test_conformance import SHARDED

        mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
        rows = {row.name: row for row in SHARDED}
        for name in names:
            value, slopes = jax.tree.map(np.asarray, found(rows[name], mesh))
            slopes = {k: x.tolist() for k, x in slopes.items()}
            line = {"name": name, "value": float(value), "slopes": slopes}
            print(json.dumps(line), flush=True)


def found(row, mesh):
    """Value and gradients of a loss, whole on each device."""
    from tests.test_conformance import LABELS, on_inputs, single
    from tests.test_conformance_devices import specs

    layout = (specs(row), PartitionSpec("data"))
    inside = jax.shard_map(
        jax.value_and_grad(on_inputs(row, axis_name="data")),
        mesh=mesh,
        in_specs=layout,
        out_specs=(WHOLE, layout[0]),
    )

    def placed(x, spec):
        x = np.asarray(x)
        return jax.make_array_from_callback(
            x.shape, NamedSharding(mesh, spec), x.__getitem__
        )

    arguments = jax.tree.map(placed, (single(row), LABELS), layout)
    return jax.jit(inside, out_shardings=NamedSharding(mesh, WHOLE))(*arguments)


if __name__ == "__main__":
    main()
