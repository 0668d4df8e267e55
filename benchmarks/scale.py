"""How memory and time of a step grow with the batch, the classes and the devices.

    python -m benchmarks.scale run      measure, and write benchmarks/results/scale.json
    python -m benchmarks.scale table    the record as Markdown

Memory is what the compiler reserves on each device: arguments, results and what it
needs between. On a CPU eight virtual devices share the cores, so that times there say
what the devices do together.
"""

import argparse
import functools
import itertools
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

# Read once, when jax starts; it counts for CPUs alone.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from benchmarks import harness
from benchmarks.inputs import DIM, labels, unit_vectors
from metricjax import losses, similarities

RESULT = pathlib.Path(__file__).parent / "results" / "scale.json"
AXIS = "devices"
SHARDED, WHOLE = PartitionSpec(AXIS), PartitionSpec()
MIB = 2**20

BATCHES = [1024, 4096, 16384, 65536]
CLASSES = [1_000, 8_000, 64_000, 256_000, 1_000_000]
BATCH_OF_CLASSES = 256
# Beyond these the matrix of all pairs, or of all logits, takes gigabytes.
LARGEST_DENSE_BATCH, LARGEST_DENSE_CLASSES = 16384, 256_000
SECONDS = 2.0


class Program(NamedTuple):
    """A compiled step, and how to make what it is called with."""

    compiled: Any
    arguments: Callable[[], tuple[Any, ...]]


def mesh_of(devices: int) -> Mesh:
    """The first devices in a row."""
    axes = {"axis_shapes": (devices,), "axis_names": (AXIS,)}
    chosen = jax.devices()[:devices]
    return jax.make_mesh(**axes, axis_types=(AxisType.Auto,), devices=chosen)


# --- the batch ------------------------------------------------------------------------


def dense_supcon(x: jax.Array, y: jax.Array) -> jax.Array:
    """SupCon as it is usually written, with matrices of all pairs."""
    cosine = similarities.cosine(x, x) / 0.1
    other = ~jnp.eye(len(x), dtype=bool)
    positive = (y[:, None] == y[None]) & other
    log_p = cosine - jax.nn.logsumexp(cosine, where=other, axis=1, keepdims=True)
    return -jnp.mean(jnp.sum(log_p, where=positive, axis=1) / positive.sum(axis=1))


def batch_program(form: str, batch: int) -> Program:
    """SupCon and its gradient, in one of the forms of `BATCH_FORMS`."""
    devices, loss = BATCH_FORMS[form]
    mesh = mesh_of(devices)
    step = jax.value_and_grad(loss)
    if devices > 1:
        ins, out = (SHARDED, SHARDED), (WHOLE, SHARDED)
        step = jax.shard_map(step, mesh=mesh, in_specs=ins, out_specs=out)
    place = NamedSharding(mesh, SHARDED)

    def arguments() -> tuple[Any, ...]:
        return jax.device_put((unit_vectors(batch), labels(batch)), place)

    return _compile(step, _shapes(arguments, place), arguments)


_supcon = functools.partial(losses.supcon, temperature=0.1)
BATCH_FORMS: dict[str, tuple[int, Callable[..., jax.Array]]] = {
    "dense": (1, dense_supcon),
    "blocks": (1, _supcon),
    "8 devices, gathered": (8, functools.partial(_supcon, axis_name=AXIS)),
    "8 devices, ring": (8, functools.partial(_supcon, axis_name=AXIS, ring=True)),
}


# --- the classes ----------------------------------------------------------------------


def dense_arcface(x: jax.Array, w: jax.Array, y: jax.Array) -> jax.Array:
    """ArcFace as it is usually written, with all logits."""
    cosine = similarities.cosine(x, w)
    angle = jnp.arccos(jnp.clip(cosine, -1 + 1e-7, 1 - 1e-7))
    target = y[:, None] == jnp.arange(w.shape[0])[None]
    logits = 64.0 * jnp.where(target, jnp.cos(angle + 0.5), cosine)
    cost = optax.losses.softmax_cross_entropy_with_integer_labels(logits, y)
    return jnp.mean(cost)


def class_program(form: str, classes: int) -> Program:
    """ArcFace and its gradients, in one of the forms of `CLASS_FORMS`."""
    devices, loss = CLASS_FORMS[form]
    mesh = mesh_of(devices)
    step = jax.value_and_grad(loss, argnums=(0, 1))
    specs = (WHOLE, SHARDED, WHOLE)
    if devices > 1:
        out = (WHOLE, (WHOLE, SHARDED))
        step = jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=out)
    places = tuple(NamedSharding(mesh, spec) for spec in specs)

    def arguments() -> tuple[Any, ...]:
        rng = np.random.default_rng(0)
        x = unit_vectors(BATCH_OF_CLASSES)
        w = rng.standard_normal((classes, DIM), np.float32)
        y = rng.integers(0, classes, BATCH_OF_CLASSES).astype(np.int32)
        return jax.device_put((x, w, y), places)

    return _compile(step, _shapes(arguments, places), arguments)


CLASS_FORMS: dict[str, tuple[int, Callable[..., jax.Array]]] = {
    "dense": (1, dense_arcface),
    "blocks": (1, losses.arcface),
    "8 devices": (8, functools.partial(losses.arcface, class_axis=AXIS)),
}


# --- the plan -------------------------------------------------------------------------

# Classes and dim.
PLANNED = [
    (1_000_000, 128),
    (1_000_000, 512),
    (10_000_000, 128),
    (100_000_000, 128),
    (100_000_000, 512),
]
# Arrays of the size of the class weights that an optimiser keeps.
SLOTS = {
    "sgd": (optax.sgd(0.1), 0),
    "momentum": (optax.sgd(0.1, momentum=0.9), 1),
    "adam": (optax.adam(1e-3), 2),
}


def planned_bytes(classes: int, dim: int, devices: int, optimizer: str) -> int:
    """Of a device that trains its part of the classes: weights, gradient, state."""
    return -(-classes // devices) * dim * 4 * (2 + SLOTS[optimizer][1])


def compiled_bytes(classes: int, dim: int, devices: int, optimizer: str) -> int:
    """The same of the compiled step, batch and all; nothing is allocated or run."""
    mesh, tx = mesh_of(devices), SLOTS[optimizer][0]
    loss = functools.partial(losses.arcface, class_axis=AXIS)
    classes = -(-classes // devices) * devices

    def step(x: Any, w: Any, state: Any, y: Any) -> Any:
        value, (dx, dw) = jax.value_and_grad(loss, argnums=(0, 1))(x, w, y)
        updates, state = tx.update(dw, state, w)
        return value, dx, optax.apply_updates(w, updates), state

    def spec(x: Any) -> PartitionSpec:
        return SHARDED if x.ndim else WHOLE

    x = jax.ShapeDtypeStruct((BATCH_OF_CLASSES, dim), jnp.float32)
    w = jax.ShapeDtypeStruct((classes, dim), jnp.float32)
    y = jax.ShapeDtypeStruct((BATCH_OF_CLASSES,), jnp.int32)
    state = jax.eval_shape(tx.init, w)
    states = jax.tree.map(spec, state)
    program = jax.shard_map(
        step,
        mesh=mesh,
        in_specs=(WHOLE, SHARDED, states, WHOLE),
        out_specs=(WHOLE, WHOLE, SHARDED, states),
    )
    lowered = jax.jit(program, donate_argnums=(1, 2)).lower(x, w, state, y)
    return _bytes(lowered.compile())


def plan() -> list[dict[str, Any]]:
    """What is planned and what is compiled; raises if they differ by a tenth."""
    rows = []
    for (classes, dim), devices, optimizer in itertools.product(PLANNED, (1, 8), SLOTS):
        case = (classes, dim, devices, optimizer)
        planned, compiled = planned_bytes(*case), compiled_bytes(*case)
        assert abs(compiled / planned - 1) < 0.1, f"{case}: {planned}, {compiled}"
        keys = ("classes", "dim", "devices", "optimizer", "planned", "compiled")
        rows.append(dict(zip(keys, (*case, planned, compiled), strict=True)))
    return rows


# --- measuring ------------------------------------------------------------------------


def _shapes(arguments: Callable[[], tuple[Any, ...]], places: Any) -> tuple[Any, ...]:
    shapes = jax.eval_shape(arguments)
    places = places if isinstance(places, tuple) else (places,) * len(shapes)
    return tuple(
        jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
        for x, place in zip(shapes, places, strict=True)
    )


def _compile(step: Any, shapes: tuple[Any, ...], arguments: Any) -> Program:
    return Program(jax.jit(step).lower(*shapes).compile(), arguments)


def _bytes(compiled: Any) -> int:
    memory = compiled.memory_analysis()
    kept = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return kept - memory.alias_size_in_bytes + memory.temp_size_in_bytes


def measured(program: Program) -> dict[str, Any]:
    """Bytes of a device, and seconds of a step: the least of some."""
    inputs = jax.block_until_ready(program.arguments())
    times, value, end = [], 0.0, time.perf_counter() + SECONDS
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        found = jax.block_until_ready(program.compiled(*inputs))
        times.append(time.perf_counter() - start)
        value = float(found[0])
    return {"bytes": _bytes(program.compiled), "seconds": min(times), "value": value}


def grown(
    forms: dict[str, Any],
    sizes: list[int],
    program: Callable[[str, int], Program],
    *,
    largest_dense: int,
) -> Iterator[dict[str, Any]]:
    """Every form at every size; raises if two of them disagree on the loss."""
    for size in sizes:
        values = {}
        for form in forms:
            if form == "dense" and size > largest_dense:
                continue
            found = measured(program(form, size))
            values[form] = found["value"]
            yield {"form": form, "size": size, **found}
        spread = np.ptp(list(values.values())) / max(abs(v) for v in values.values())
        assert spread < 1e-4, f"the forms disagree at {size}: {values}"


def run(path: pathlib.Path) -> None:
    """Measure everything; write the record after each figure."""
    record: dict[str, Any] = {"machine": harness.machine(), "batch": [], "classes": []}
    works = {
        "batch": grown(
            BATCH_FORMS, BATCHES, batch_program, largest_dense=LARGEST_DENSE_BATCH
        ),
        "classes": grown(
            CLASS_FORMS, CLASSES, class_program, largest_dense=LARGEST_DENSE_CLASSES
        ),
    }
    for name, figures in works.items():
        for figure in figures:
            record[name].append(figure)
            print(name, figure, file=sys.stderr, flush=True)
            path.write_text(json.dumps(record, indent=1) + "\n")
    record["plan"] = plan()
    path.write_text(json.dumps(record, indent=1) + "\n")


# --- the tables -----------------------------------------------------------------------


def table(record: dict[str, Any]) -> str:
    """The record as three Markdown tables."""
    parts = [
        _growth(record["batch"], "SupCon and gradient: batch", BATCH_FORMS),
        _growth(record["classes"], "ArcFace and gradients: classes", CLASS_FORMS),
        _plan_table(record["plan"]),
    ]
    return "\n\n".join(parts)


def _growth(figures: list[dict[str, Any]], head: str, forms: dict[str, Any]) -> str:
    found = {(f["size"], f["form"]): f for f in figures}
    lines = [f"| {head} | " + " | ".join(forms) + " |", "|---" * (len(forms) + 1) + "|"]
    for size in dict.fromkeys(f["size"] for f in figures):
        cells = [_cell(found.get((size, form))) for form in forms]
        lines.append(f"| {size:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return "-"
    seconds = figure["seconds"]
    shown = f"{seconds:.2g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"
    return f"{figure['bytes'] / MIB:,.0f} MiB, {shown}"


def _plan_table(rows: list[dict[str, Any]]) -> str:
    """Planned and compiled bytes of a device, a column for each optimiser."""
    found = {(r["classes"], r["dim"], r["devices"], r["optimizer"]): r for r in rows}
    lines = [
        f"| classes x dim | devices | {' | '.join(SLOTS)} |",
        "|---|" + "---:|" * (len(SLOTS) + 1),
    ]
    for case in dict.fromkeys(key[:3] for key in found):
        cells = []
        for optimizer in SLOTS:
            row = found[*case, optimizer]
            planned, compiled = row["planned"] / MIB, row["compiled"] / MIB
            cells.append(f"{planned:,.0f} / {compiled:,.0f} MiB")
        classes, dim, devices = case
        lines.append(f"| {classes:,} x {dim} | {devices} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=["run", "table"])
    parser.add_argument("--out", type=pathlib.Path, default=RESULT, help="the record")
    arguments = parser.parse_args()
    if arguments.command == "run":
        run(arguments.out)
    print(table(json.loads(arguments.out.read_text())))


if __name__ == "__main__":
    main()
