"""The conventions of the public interface, read off the signatures themselves."""

import importlib
import inspect
import pkgutil
import re

import pytest

import metricjax

# Modules of pure functions, whose conventions are strict.
PURE = [
    "cohorts",
    "distances",
    "heads",
    "losses",
    "margins",
    "memory",
    "mining",
    "numerics",
    "pairs",
    "reductions",
    "rows",
    "samplers",
    "similarities",
    "transforms",
    "whitening",
]


def functions(module_name: str):
    module = importlib.import_module(f"metricjax.{module_name}")
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isfunction(value):
            yield pytest.param(value, id=f"{module_name}.{name}")


PUBLIC = [case for name in PURE for case in functions(name)]
LOSSES = list(functions("losses"))


@pytest.mark.parametrize("name", PURE)
def test_all_is_sorted_and_complete(name: str):
    module = importlib.import_module(f"metricjax.{name}")
    assert list(module.__all__) == sorted(module.__all__)


@pytest.mark.parametrize("function", PUBLIC)
def test_docstring_says_arguments_and_result_and_shows_an_example(function):
    doc = inspect.getdoc(function) or ""
    for section in ("Args:", "Returns:", "Example:"):
        assert section in doc, section
    first = doc.splitlines()[0]
    assert first.endswith("."), first
    for name in inspect.signature(function).parameters:
        assert re.search(rf"^ +\*{{0,2}}{name}:", doc, re.MULTILINE), name


@pytest.mark.parametrize("function", LOSSES)
def test_losses_cite_their_source_and_say_what_they_raise(function):
    doc = inspect.getdoc(function) or ""
    assert "Raises:" in doc
    if function.__name__ not in {"triplet"}:
        assert "References:" in doc


@pytest.mark.parametrize("function", PUBLIC)
def test_what_has_a_default_is_keyword_only_and_annotated(function):
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter.name
        if parameter.default is inspect.Parameter.empty:
            continue
        # `y=None` of a distance is the one exception: f(x) is f(x, x).
        optional_side = parameter.name in {"y", "where", "ref_multi_hot"}
        keyword_only = parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert keyword_only or optional_side, parameter.name


@pytest.mark.parametrize("function", LOSSES)
def test_losses_take_their_arguments_in_one_order(function):
    parameters = inspect.signature(function).parameters.values()
    positional = [
        p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    if "labels" in positional:
        assert positional[-1] == "labels"
    if "key" in positional:
        assert positional[0] == "key"


def test_no_symbol_has_two_public_paths():
    seen: dict[int, str] = {}
    for name in PURE:
        module = importlib.import_module(f"metricjax.{name}")
        for symbol in module.__all__:
            value = getattr(module, symbol)
            if inspect.isfunction(value) or inspect.isclass(value):
                path = f"{name}.{symbol}"
                assert id(value) not in seen, (seen[id(value)], path)
                seen[id(value)] = path


def test_every_public_module_is_listed_and_imports():
    found = {
        module.name
        for module in pkgutil.iter_modules(metricjax.__path__)
        if not module.name.startswith("_")
    }
    assert set(metricjax.__all__) | {"cli"} >= found
    for name in metricjax.__all__:
        assert getattr(metricjax, name).__doc__
