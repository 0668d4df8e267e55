import io

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

from metricjax.training import checkpoints, logs, loop
from metricjax.training import state as states
from metricjax.training import step as steps

OPTIMIZER = optax.adam(0.1)


def noisy_quadratic(params, model_state, loss_state, batch, key):
    noise = 0.1 * jax.random.normal(key, params.shape)
    loss = jnp.sum((params - batch + noise) ** 2)
    return loss, steps.Outputs(model_state, loss_state, {"active": jnp.ones(())})


STEP = steps.make_step(noisy_quadratic, OPTIMIZER)


def start():
    return states.init(jax.random.key(3), jnp.zeros(4), optimizer=OPTIMIZER)


def batch(t):
    return np.random.default_rng(t).normal(size=4).astype(np.float32)


def run(folder, count, **changes):
    printed = io.StringIO()
    console = Console(file=printed, width=200, force_terminal=False)
    options = {"every": 4, "log_every": 2, "console": console, **changes}
    state = loop.fit(
        options.pop("step", STEP),
        start(),
        options.pop("batch", batch),
        steps=count,
        folder=folder,
        **options,
    )
    return state, printed.getvalue()


def plain(state):
    return jax.tree.map(np.asarray, state._replace(key=jax.random.key_data(state.key)))


def test_a_run_continued_is_bit_identical_to_one_that_was_not(tmp_path):
    whole, _ = run(tmp_path / "whole", 11)
    run(tmp_path / "parts", 3)
    run(tmp_path / "parts", 7)
    parts, printed = run(tmp_path / "parts", 11)
    jax.tree.map(np.testing.assert_array_equal, plain(parts), plain(whole))
    assert "from step 7" in printed
    lines = [
        [(line["group"], line["step"], line.get("loss")) for line in logs.read(folder)]
        for folder in (tmp_path / "whole", tmp_path / "parts")
    ]
    train = [[line for line in part if line[0] == "train"] for part in lines]
    assert train[0] == train[1]
    assert [line[1] for line in train[0]] == [2, 4, 6, 8, 10]


def test_a_state_that_a_checkpoint_replaces_takes_no_memory(tmp_path):
    run(tmp_path, 3)
    fresh = start()
    console = Console(quiet=True)
    state = loop.fit(STEP, fresh, batch, steps=3, folder=tmp_path, console=console)
    assert all(x.is_deleted() for x in jax.tree.leaves(fresh))
    assert int(state.step) == 3


def test_a_finished_run_is_not_trained_again(tmp_path):
    first, _ = run(tmp_path, 5)
    again, _ = run(tmp_path, 5, batch=lambda t: pytest.fail("a step was taken"))
    jax.tree.map(np.testing.assert_array_equal, plain(again), plain(first))


def test_a_damaged_checkpoint_is_passed_over_and_said_so(tmp_path):
    whole, _ = run(tmp_path / "whole", 12)
    run(tmp_path / "cut", 8)
    (tmp_path / "cut" / "checkpoints" / "00000008" / "checkpoint.json").unlink()
    state, printed = run(tmp_path / "cut", 12)
    assert "00000008 was cut short" in printed
    assert "from step 4" in printed
    jax.tree.map(np.testing.assert_array_equal, plain(state), plain(whole))


def test_evaluations_are_logged_and_rank_the_checkpoints(tmp_path):
    values = iter([0.2, 0.9, 0.5, 0.4])
    run(
        tmp_path,
        14,
        evaluate=lambda state: {"recall": next(values), "step": float(state.step)},
        score="recall",
    )
    evaluations = [x for x in logs.read(tmp_path) if x["group"] == "evaluation"]
    assert [(x["step"], x["recall"]) for x in evaluations] == [
        (4, 0.2),
        (8, 0.9),
        (12, 0.5),
        (14, 0.4),
    ]
    kept = checkpoints.available(tmp_path / "checkpoints")
    assert [(c.step, c.score) for c in kept] == [(8, 0.9), (12, 0.5), (14, 0.4)]


@pytest.mark.parametrize("bad", [5, 7, 8])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_what_was_good(tmp_path, bad):
    def poisoned(t):
        return np.full(4, np.nan, np.float32) if t + 1 == bad else batch(t)

    with pytest.raises(
        FloatingPointError, match=f"loss is nan at step {bad};"
    ) as error:
        run(tmp_path, 20, batch=poisoned)
    assert "00000004" in str(error.value)
    restored = checkpoints.restore(tmp_path / "checkpoints", start())
    assert int(restored.state.step) == 4
    assert np.isfinite(restored.state.params).all()
    # Healed, the same command continues to where an untroubled run would be.
    state, _ = run(tmp_path, 12)
    whole, _ = run(tmp_path / "whole", 12)
    jax.tree.map(np.testing.assert_array_equal, plain(state), plain(whole))


def test_an_infinite_gradient_behind_a_finite_loss_stops_the_run(tmp_path):
    def loss(params, model_state, loss_state, batch, key):
        value = jnp.sum(jnp.sqrt(params * batch))
        return value, steps.Outputs(model_state, loss_state, {})

    step = steps.make_step(loss, OPTIMIZER)
    with pytest.raises(FloatingPointError, match="gradient_norm is .* at step 1;"):
        run(tmp_path, 4, step=step, batch=lambda t: np.ones(4, np.float32))


def test_parameters_that_are_not_finite_are_never_saved(tmp_path):
    # A rate of infinity at the last step: its loss and gradient are still finite.
    optimizer = optax.sgd(lambda count: jnp.where(count == 3, jnp.inf, 0.1))
    step = steps.make_step(noisy_quadratic, optimizer)
    state = states.init(jax.random.key(0), jnp.zeros(4), optimizer=optimizer)
    with pytest.raises(FloatingPointError, match="parameter is not finite at step 4"):
        loop.fit(
            step,
            state,
            batch,
            steps=8,
            folder=tmp_path,
            every=4,
            console=Console(quiet=True),
        )
    assert checkpoints.available(tmp_path / "checkpoints") == []


def test_nothing_compiles_after_the_first_step_and_evaluation(tmp_path):
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "compile" in event else None
    )
    after_first = []

    @jax.jit
    def mean(params):
        return jnp.mean(params)

    def evaluate(state):
        value = float(mean(state.params))
        after_first.append(len(compiled))
        return {"mean": value}

    run(tmp_path, 16, evaluate=evaluate, score="mean")
    assert after_first[0] > 0
    assert after_first == after_first[:1] * 4


def test_the_progress_bar_shows_rate_loss_active_share_and_time_left(tmp_path):
    printed = io.StringIO()
    console = Console(file=printed, width=160, force_terminal=True)
    run(tmp_path, 8, console=console, title="mine")
    for part in ("mine", "8/8", "images/s", "loss", "active 1.000", "00:00"):
        assert part in printed.getvalue()
