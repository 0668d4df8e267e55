"""Leaves of a nested dict named by paths, and chosen by glob patterns."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax

Tree = Any  # a nested dict of arrays


def named(tree: Tree) -> dict[str, Any]:
    """Every leaf of a tree by its path, such as `encoder/stem/kernel`."""
    return {name(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def name(path: Iterable[Any]) -> str:
    """The keys of a path of `jax.tree_util`, joined by slashes."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def fits(path: str, pattern: str) -> bool:
    """Whether a pattern names a path, or something that the path is part of.

    A star stands for any letters, slashes too.
    """
    return fnmatchcase(path, pattern) or fnmatchcase(path, f"{pattern}/*")


def chosen(path: str, patterns: Sequence[str]) -> bool:
    """Whether patterns choose a path; those that begin with `!` take back."""
    back = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    return any(fits(path, pattern) for pattern in patterns) and not any(
        fits(path, pattern) for pattern in back
    )


def check_patterns(
    argument: str, patterns: Sequence[str], paths: Iterable[str]
) -> None:
    """Raise if a pattern names none of the paths."""
    check_sequence(argument, patterns)
    paths = list(paths)
    for pattern in patterns:
        if not any(fits(path, pattern.removeprefix("!")) for path in paths):
            raise ValueError(
                f"Expected each pattern of `{argument}` to match a path, got "
                f"{pattern!r}, which matches none of: {', '.join(paths)}."
            )


def check_sequence(argument: str, patterns: Sequence[str]) -> None:
    """Raise if patterns are one string, whose letters would be taken for patterns."""
    if isinstance(patterns, str):
        raise TypeError(
            f"Expected `{argument}` as a sequence of patterns, got the string "
            f"{patterns!r}; put it into a list."
        )
