"""Every test runs on eight virtual CPU devices, with a cache of compiled programs."""

import gc
import os
import pathlib
import tempfile
from importlib.metadata import version

# Set before jax starts, which reads them once. Most of the time of the tests goes to
# compiling programs that run for a millisecond, so they are not optimised.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    # Halve the time to compile; later versions may not know these flags.
    + (
        " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
        * version("jaxlib").startswith("0.10.")
    ),
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import pytest

# Traces and compiled programs live on: to look through them for garbage takes a fifth
# of the time.
gc.set_threshold(200_000, 100, 1000)

CACHE = pathlib.Path(__file__).parents[1] / ".cache" / "jax"
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


# Each program that is kept takes more than a megabyte: those of all tests, over 10 GB.
MANY = 2000
compiled = []


def _compiling(event, *_, **__):
    if event.endswith("backend_compile_duration"):
        compiled.append(event)


jax.monitoring.register_event_duration_secs_listener(_compiling)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown():
    """Programs are forgotten once there are many."""
    if len(compiled) > MANY:
        jax.clear_caches()
        gc.collect()
        compiled.clear()


@pytest.fixture(scope="session", autouse=True)
def temporary(tmp_path_factory):
    """What tests, examples and their processes leave behind is pytest's to clear."""
    place = str(tmp_path_factory.mktemp("temporary"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", place)
        patch.setattr(tempfile, "tempdir", place)
        yield


@pytest.fixture
def key():
    """A typed random key."""
    return jax.random.key(0)


@pytest.fixture
def rng():
    """NumPy's generator, seeded."""
    return np.random.default_rng(0)


@pytest.fixture
def x64():
    """Double precision inside the test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def strict():
    """No silent promotion of dtypes or ranks inside the test."""
    with (
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
    ):
        yield
