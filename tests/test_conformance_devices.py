"""Every loss of the table is the same number on any number of devices."""

import inspect
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from metricjax import losses
from tests.conformance.row import Row, per_example
from tests.test_conformance import (
    BATCH,
    LABELS,
    SHARDED,
    assert_same,
    function_of,
    losses_that,
    on_inputs,
    single,
)

sharded_losses = losses_that(lambda row: row in SHARDED)


def sharded(row: Row, function, out_specs):
    """A function of (inputs, labels) on four devices, each with a part of the batch."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    in_specs = (specs(row), PartitionSpec("data"))
    shard = jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs)
    return jax.jit(shard)


def specs(row: Row):
    split = per_example(row)
    return {name: PartitionSpec(*["data"] * (name in split)) for name in row.inputs}


@sharded_losses
def test_sharded_batch_gives_the_same_loss_and_gradient(row: Row):
    inside = jax.value_and_grad(on_inputs(row, axis_name="data"))
    run = sharded(row, inside, (PartitionSpec(), specs(row)))
    assert_same(row, *run(single(row), LABELS))


@pytest.mark.full
@pytest.mark.parametrize("devices", [2, 8])
@sharded_losses
def test_so_do_two_devices_and_eight_the_last_of_which_has_padding_alone(row, devices):
    size = -(-BATCH // devices) * devices
    inputs, names = single(row), per_example(row)

    def filled(x):
        return jnp.concatenate([x, jnp.full((size - BATCH, *x.shape[1:]), 7.0)])

    labels = np.concatenate([LABELS, np.zeros(size - BATCH, np.int32)])

    def inside(inputs, labels, where):
        loss = on_inputs(row, axis_name="data", where=where)
        return jax.value_and_grad(loss)(inputs, labels)

    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))
    data = PartitionSpec("data")
    run = jax.shard_map(
        inside,
        mesh=mesh,
        in_specs=(specs(row), data, data),
        out_specs=(PartitionSpec(), specs(row)),
    )
    inputs |= {name: filled(inputs[name]) for name in names}
    value, slopes = jax.jit(run)(inputs, labels, np.arange(size) < BATCH)
    assert_same(row, value, slopes | {name: slopes[name][:BATCH] for name in names})


@sharded_losses
def test_gradient_of_the_sharded_loss_is_that_of_the_loss(row: Row):
    loss = sharded(row, on_inputs(row, axis_name="data"), PartitionSpec())
    assert_same(row, *jax.jit(jax.value_and_grad(loss))(single(row), LABELS))


def takes_class_axis(row: Row) -> bool:
    options = inspect.signature(function_of(row)).parameters.get("options")
    return options is not None and options.annotation == Unpack[losses.SoftmaxOptions]


@losses_that(takes_class_axis)
def test_batch_and_classes_sharded_give_the_same_loss_and_gradient(row: Row):
    kinds = (AxisType.Auto,) * 2
    mesh = jax.make_mesh((4, 2), ("data", "classes"), axis_types=kinds)
    classes = {"class_weights", "proxies"} & row.inputs.keys()
    layout = specs(row) | {name: PartitionSpec("classes") for name in classes}
    inside = jax.value_and_grad(
        on_inputs(row, axis_name="data", class_axis="classes", block_size=1)
    )
    run = jax.shard_map(
        inside,
        mesh=mesh,
        in_specs=(layout, PartitionSpec("data")),
        out_specs=(PartitionSpec(), layout),
    )
    assert_same(row, *jax.jit(run)(single(row), LABELS))
