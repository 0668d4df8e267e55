"""A module imports only from lower floors, so that the house has one direction."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "metricjax"

FLOORS = {
    "_checks": 0,
    "_cores": 0,
    "_collect": 1,
    "_sealed": 1,
    "numerics": 1,
    "cohorts": 1.5,
    "samplers": 1,
    "_pair_heads": 2,
    "_running": 2,
    "distances": 2,
    "similarities": 2,
    "pairs": 2,
    "reductions": 2,
    "margins": 2,
    "data": 2,
    "encoders": 2,
    "whitening": 2,
    "_classes": 2.5,
    "_blocks": 3,
    "_class_blocks": 3,
    "_problem": 3,
    "mining": 3,
    "_adaptation": 3.5,
    "_queue": 3,
    "_row_optimizer": 3,
    "_class_sample": 3.5,
    "_ring": 3.5,
    "_windows": 3.5,
    "_fused": 3.5,
    "heads": 4,
    "memory": 4,
    "transforms": 4,
    "rows": 4,
    "losses": 5,
    "metrics": 5,
    "gallery": 6,
    "plots": 6,
    "training": 7,
    "bundle": 8,
    "cli": 9,
}


def module_of(path: pathlib.Path) -> str:
    """The first name below the package: `metricjax/losses/_pairwise.py` -> losses."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: pathlib.Path) -> set[str]:
    """The modules of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        parts = [name.split(".") for name in names]
        found |= {p[1] for p in parts if p[0] == "metricjax" and len(p) > 1}
    return found


FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_from_lower_floors(path: pathlib.Path):
    own = module_of(path)
    assert own in FLOORS, f"give {own} a floor"
    for other in imports(path) - {own}:
        assert FLOORS[other] < FLOORS[own], f"{own} imports {other}"


def test_importing_the_package_loads_jax_and_numpy_alone():
    heavy = ["flax", "optax", "tensorflow_datasets", "orbax", "matplotlib", "sklearn"]
    code = (
        "import sys, metricjax, metricjax.losses, metricjax.mining; "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


def test_no_module_has_grown_beyond_reading():
    long = {
        str(path.relative_to(ROOT)): lines
        for path in [*FILES, *ROOT.glob("tests/**/*.py"), ROOT / "train.py"]
        if (lines := len(path.read_text().splitlines())) > 450
    }
    assert not long
