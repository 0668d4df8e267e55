"""Two processes with two devices each, which train one run over loopback.

Its seven classes are divided among the four devices.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

import train
from metricjax.training import (
    checkpoints,
    folder,
    logs,
    pictures,
    processes,
    recipes,
    settings,
)
from tests.losses import processes as parts
from tests.losses import table
from tests.test_conformance import SHARDED, assert_same
from tests.training import worker

NET = "--encoder mlp --width 1 --dim 4 --batch 16 --symmetries 1"
COUNTS = "--steps 40 --evaluate-every 10 --splits 1"
FLAGS = [*NET.split(), *COUNTS.split(), "--evaluated-images", "30"]
STEPS = list(range(10, 50, 10))
LIMIT = 5
ROOT = os.path.dirname(train.__file__)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(out):
    """Two processes that train."""
    address = f"127.0.0.1:{free_port()}"
    environment = two_devices() | {
        # One process is told by flags which it is, the other one by variables.
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": "1",
    }
    told = ["--coordinator", address, "--processes", "2", "--process", "0"]
    command = ["-m", worker.__name__, *FLAGS, "--out", str(out)]
    command += ["--lost-after", str(LIMIT), "--shard-classes"]
    return [launch([*command, *which], environment) for which in (told, [])]


def two_devices():
    """The environment of a process that has two devices, and the cache of the tests."""
    return {
        "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("count=8", "count=2"),
        "JAX_COMPILATION_CACHE_DIR": str(
            jax.config.values["jax_compilation_cache_dir"]
        ),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def start_small(code, *, slurm=False):
    """Two processes that run `code` as soon as they are joined."""
    address = f"127.0.0.1:{free_port()}"
    told = "sys.argv[1], count=2, index=int(sys.argv[2]), "
    code = (
        "import os, sys, jax; from metricjax.training import processes\n"
        f"with processes.join({'' if slurm else told}limit={LIMIT}):\n"
        f"    {code}"
    )
    return [
        launch(["-c", code, address, index], slurm_of(address, index) if slurm else {})
        for index in "01"
    ]


def slurm_of(address, index):
    """What SLURM tells a process of a job step of two tasks."""
    host, port = address.split(":")
    return {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NODELIST": host,
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": index,
        "SLURM_LOCALID": index,
        "JAX_COORDINATOR_PORT": port,
    }


def launch(arguments, environment):
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(started, timeout=200):
    """Exit codes, output and errors of each."""
    # All at once: one whose pipe is full waits, and the others wait for it.
    with ended(started), ThreadPoolExecutor(len(started)) as readers:
        said = [readers.submit(p.communicate, timeout=timeout) for p in started]
        found = [each.result() for each in said]
    return [
        (process.returncode, *texts)
        for process, texts in zip(started, found, strict=True)
    ]


@contextlib.contextmanager
def ended(started):
    """No process outlives a test that fails."""
    try:
        yield
    except BaseException:
        for process in started:
            process.kill()
            process.communicate()
        raise


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an undisturbed run, and what its processes said."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, finish(start(out))


def losses_in(out):
    return [line["loss"] for line in logs.read(out / "split0") if "loss" in line]


def test_two_processes_find_the_losses_of_one(whole, tmp_path, monkeypatch):
    out, ends = whole
    assert [code for code, *_ in ends] == [0, 0], ends
    monkeypatch.setattr(pictures, "draw", worker.nothing)
    monkeypatch.setattr(pictures, "draw_examples", worker.nothing)
    monkeypatch.setattr(train, "leave_bundles", worker.nothing)
    assert train.main([*FLAGS, "--out", str(tmp_path / "run")]) == 0
    found, expected = losses_in(out), losses_in(tmp_path / "run")
    assert len(found) == len(STEPS)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    found, expected = (
        json.loads((path / "results.json").read_text())[0]["unseen"]["trained"]
        for path in (out, tmp_path / "run")
    )
    assert found == pytest.approx(expected, abs=0.05)


def test_one_process_alone_writes_and_reports(whole):
    out, ends = whole
    assert "split 0: step 10/40" in ends[0][1]
    assert "split 0" not in ends[1][1]
    names = {path.name for path in out.rglob("*") if "state" not in str(path)}
    assert {"config.json", "results.json", "report.html", "metrics.jsonl"} <= names
    assert sum(name.startswith("events.out") for name in names) == 1
    steps = [line["step"] for line in logs.read(out / "split0") if "loss" in line]
    assert steps == STEPS


def test_a_run_that_loses_a_process_stops_and_goes_on_to_the_same_bits(whole, tmp_path):
    out = tmp_path / "run"
    saved = out / "split0" / "checkpoints"
    started = start(out)
    deadline = time.monotonic() + 200
    with ended(started):
        while not checkpoints.available(saved):
            assert time.monotonic() < deadline
            assert [process.poll() for process in started] == [None, None]
            time.sleep(0.01)
    started[1].send_signal(signal.SIGKILL)
    killed_at = time.monotonic()
    (code, _, errors), (other, *_) = finish(started)
    assert time.monotonic() - killed_at < 4 * LIMIT
    assert other == -signal.SIGKILL
    assert code != 0
    assert "the same command continues from the last checkpoint" in errors
    assert checkpoints.available(saved)[-1].step < 40
    assert [code for code, *_ in finish(start(out))] == [0, 0]
    states = [final_state(path) for path in (out, whole[0])]
    jax.tree.map(np.testing.assert_array_equal, *states)
    steps = [line["step"] for line in logs.read(out / "split0") if "loss" in line]
    assert steps == STEPS


def final_state(out):
    """What two processes saved, restored by one."""
    recipe = recipes.load("arcface")
    chosen = recipe.Settings(encoder="mlp", width=1, dim=4, steps=40, symmetries=1)
    experiment = recipe.build(chosen, (28, 28, 1), 7)
    template = experiment.init(jax.random.key(0, impl="rbg"))
    saved = out / "split0" / "checkpoints"
    restored = checkpoints.restore(saved, template, padded=["head"])
    assert restored.checkpoint is not None
    assert restored.checkpoint.step == 40
    return restored.state._replace(key=jax.random.key_data(restored.state.key))


def test_the_loss_of_the_first_process_stops_the_others():
    code = (
        "with processes.together('the start'): pass\n"
        "    with processes.together('the end'):\n"
        "        if processes.is_first(): os.kill(os.getpid(), 9)"
    )
    (first, *_), (second, _, errors) = finish(start_small(code))
    assert first == -signal.SIGKILL
    assert second not in (0, None)
    assert "the same command continues from the last checkpoint" in errors


def test_slurm_says_which_processes_there_are_and_what_one_refuses_stops_all():
    code = (
        "print('found', jax.process_index(), jax.process_count())\n"
        "    with processes.together('a trial'):\n"
        "        if processes.is_first():\n"
        "            from metricjax.training import parallel; parallel.make_mesh(3)"
    )
    ends = finish(start_small(code, slurm=True))
    for index, (code, printed, _) in enumerate(ends):
        assert code == 1
        assert f"found {index} 2" in printed
    assert "devices of 2 processes, got 3; give 0" in ends[0][2]
    assert "Process 0 of 2 failed in a trial and says why" in ends[1][2]


def test_processes_that_do_not_meet_are_told():
    code = (
        "import sys; from metricjax.training import processes\n"
        "with processes.join(sys.argv[1], count=2, index=1, start_limit=2): pass"
    )
    address = f"127.0.0.1:{free_port()}"
    ((code, _, errors),) = finish([launch(["-c", code, address], {})])
    assert code != 0
    assert f"Expected 2 processes to meet at {address} within 2 s" in errors


def said_by_two(module, *arguments, timeout=200):
    """What two processes of a module, with two devices each, print as JSON."""
    address = f"127.0.0.1:{free_port()}"
    command = ["-m", module.__name__, address]
    started = [launch([*command, i, *arguments], two_devices()) for i in "01"]
    ends = finish(started, timeout)
    assert [code for code, *_ in ends] == [0, 0], ends
    for _, printed, _ in ends:
        # The library that connects them prints too.
        lines = [line for line in printed.splitlines() if line.startswith("{")]
        yield [json.loads(line) for line in lines]


def test_losses_and_gradients_are_those_of_one_process():
    for (said,) in said_by_two(parts):
        assert said["devices"] == 4
        for name, (loss, _) in parts.FORMS.items():
            value, slopes = parts.gradients(loss)(*parts.arguments())
            found, (of_x, of_w) = said["found"][name]
            assert found == pytest.approx(float(value), rel=1e-5)
            np.testing.assert_allclose(of_x, slopes[0], atol=1e-5)
            np.testing.assert_allclose(of_w, slopes[1], atol=1e-5)


@pytest.mark.full
def test_so_are_those_of_every_loss_of_the_table():
    rows = {row.name: row for row in SHARDED}
    for said in said_by_two(table, *rows, timeout=1500):
        assert [line["name"] for line in said] == list(rows)
        for line in said:
            slopes = jax.tree.map(np.asarray, line["slopes"], is_leaf=is_list)
            assert_same(rows[line["name"]], np.asarray(line["value"]), slopes)


def is_list(x):
    return isinstance(x, list)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"coordinator": "10.0.0.1"}, "HOST:PORT, got '10.0.0.1'"),
        ({"coordinator": "host:99999"}, "HOST:PORT"),
        ({"coordinator": "host:99", "count": 0}, "at least one process, got 0"),
        ({"coordinator": "host:99", "count": 2, "index": 2}, "one of 0 to 1, got 2"),
        ({"coordinator": "host:99", "index": -1}, "one of 0 or more, got -1"),
        ({"coordinator": "host:99", "limit": 0}, "at least one second, got 0"),
    ],
)
def test_processes_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message), processes.join(**arguments):
        pytest.fail("it went on")


def test_a_variable_that_is_no_number_is_named(monkeypatch):
    monkeypatch.setenv("JAX_PROCESS_ID", "first")
    with (
        pytest.raises(ValueError, match="variable JAX_PROCESS_ID, got 'first'"),
        processes.join("host:99", count=2),
    ):
        pytest.fail("it went on")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--processes", "2"], "Expected --coordinator HOST:PORT with --processes"),
        (["--process", "0"], "Expected --coordinator HOST:PORT with --processes"),
        (["--coordinator", "host"], "HOST:PORT, got 'host'"),
    ],
)
def test_flags_that_name_no_other_process_are_refused(flags, message, tmp_path, capsys):
    assert train.main([*flags, "--out", str(tmp_path / "new")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_one_process_alone_needs_no_others():
    assert processes.is_first()
    with pytest.raises(KeyError), processes.together("something"):
        raise KeyError
    with pytest.raises(SystemExit) as end:
        processes.leave(3)
    assert end.value.code == 3


def test_last_words_are_said_unless_the_block_is_left():
    code = (
        "import os, sys; from metricjax.training import processes\n"
        "with processes._last_words('These are the last words.'):\n"
        "    os._exit(9) if sys.argv[1] == 'killed' else print('left')"
    )
    for way in ("killed", "left"):
        command = [sys.executable, "-c", code, way]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == (9 if way == "killed" else 0)
        assert ("These are the last words." in done.stderr) == (way == "killed")


def test_a_folder_that_other_processes_do_not_see_is_refused(tmp_path):
    arguments = {"recipe": "arcface", "settings": settings.Settings()}
    with pytest.raises(ValueError, match="on a disk that they share"):
        folder.open_run(tmp_path / "run", exists=True, **arguments)
    assert not (tmp_path / "run").exists()
    folder.open_run(tmp_path / "run", **arguments)
    folder.open_run(tmp_path / "run", exists=True, **arguments)
    other = {"recipe": "arcface", "settings": settings.Settings(seed=1)}
    with pytest.raises(ValueError, match="seed was 0, is 1"):
        folder.open_run(tmp_path / "run", exists=True, **other)
