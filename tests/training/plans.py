"""Small training problems for tests of many devices."""

import io

import jax
from rich.console import Console

from metricjax.training import loop, parallel, recipes, run

TINY = {
    # A net with batch norm, whose statistics are those of the whole batch. It takes a
    # large one: with 32 images of 28 pixels, a last bit that differs at the start, on
    # one device, changes the twentieth loss by 4e-4.
    "arcface": {"encoder": "resnet", "batch": 128, "input_size": 14},
    "triplet": {"encoder": "mlp", "batch_classes": 8, "batch_examples": 4},
}


def prepared(recipe, out, *, devices=1, shard_classes=False, **changes):
    module = recipes.load(recipe)
    given = {**TINY.get(recipe, {}), **changes}
    settings = module.Settings(**{"width": 2, "dim": 8, **given})
    return run.prepare(
        module,
        settings,
        out=out,
        devices=devices,
        shard_classes=shard_classes,
        console=Console(file=io.StringIO()),
    )


def started(plan):
    init, key = plan.experiment.init, jax.random.key(1, impl="rbg")
    if plan.layout is None:
        return jax.jit(init)(key)
    return parallel.start(init, key, plan.layout)


def drawn(plan):
    return plan.experiment.batches(plan.splits[0].train, 0)


def losses_of(plan, count):
    draw, state, values = drawn(plan), started(plan), []
    for t in range(count):
        state, metrics = plan.experiment.step(state, draw(t))
        values.append(float(metrics["loss"]))
    return values, state


def fitted(plan, folder, count):
    return loop.fit(
        plan.experiment.step,
        started(plan),
        drawn(plan),
        steps=count,
        folder=folder,
        every=4,
        log_every=1,
        padded=["head"] if plan.experiment.class_sharded else [],
        console=Console(quiet=True),
    )
