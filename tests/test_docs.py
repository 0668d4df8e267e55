"""Examples run: those of the docstrings, and the code of the README."""

import doctest
import importlib
import pathlib
import pkgutil
import re

import pytest

import metricjax
from tests import catalogue

ROOT = pathlib.Path(__file__).parents[1]
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(metricjax.__path__, "metricjax.")
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings(name: str):
    module = importlib.import_module(name)
    assert module.__doc__, name
    failed, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def test_the_catalogue_is_that_of_the_code():
    assert catalogue.PATH.read_text() == catalogue.text(), (
        "run python -m tests.catalogue"
    )


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)


@pytest.mark.parametrize("index", range(len(blocks())))
def test_code_of_the_readme(index: int, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = compile(blocks()[index], f"README.md block {index}", "exec")
    exec(code, {"__name__": "__main__"})
