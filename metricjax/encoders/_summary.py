"""What an encoder consists of, as a table."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from metricjax.encoders._bridge import Deferred, Functional, deferred

Tree = Any  # a nested dict of arrays
Path = tuple[Any, ...]  # keys: names, and positions in lists
_EMPTY = "\N{EN DASH}"
_CALL = "__call__"


class _Layer(NamedTuple):
    kind: str
    output: tuple[int, ...] | None


def summary(
    model: Callable[[nnx.Rngs], nnx.Module] | Functional | Deferred,
    image_shape: Sequence[int],
) -> str:
    """A Markdown table of layers, output shapes and parameter counts.

    Nothing is computed and no parameter is allocated: the model is only traced. Layers
    come in the order in which the model was given them as attributes; a dash stands for
    the output of one that is not called, or whose class inherits its call. A model that
    is a pure function already has no layers left: its parameters are listed instead.

    Args:
        model: what builds an NNX module from its random streams, as
            `metricjax.encoders.deferred` takes it; or a `Functional` or `Deferred`.
        image_shape: `(height, width, channels)` of one image.

    Returns:
        The table; output shapes are without the batch.

    Raises:
        ValueError: if `image_shape` is not of three sizes.

    Example:
        >>> from metricjax.encoders import MLP
        >>> def build(rngs):
        ...     return MLP(hidden=(16,), dim=4, rngs=rngs)
        >>> print(summary(build, (28, 28, 1)))
        | layer | kind | output | parameters |
        |---|---|---|---:|
        | hidden/0 | Linear | 16 | 12,560 |
        | dropout | Dropout | 16 | 0 |
        | embedding | Linear | 4 | 68 |
        | total | MLP | 4 | 12,628 |
    """
    if len(image_shape) != 3:
        raise ValueError(
            "Expected `image_shape` (height, width, channels), got "
            f"{tuple(image_shape)}."
        )
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    if isinstance(model, Functional):
        return _of_function(model.apply, model.params, model.state, images)
    if isinstance(model, Deferred):
        params, state = jax.eval_shape(model.init, jax.random.key(0))
        return _of_function(model.apply, params, state, images)
    return _of_module(model, images)


def _of_module(
    build: Callable[[nnx.Rngs], nnx.Module], images: jax.ShapeDtypeStruct
) -> str:
    init: Any = deferred(build).init
    params, state = jax.eval_shape(init, jax.random.key(0))
    layers = _layers(build, images)
    counts = dict.fromkeys(layers, 0)
    for path, leaf in _leaves(params):
        owner = next(path[:n] for n in range(len(path), -1, -1) if path[:n] in counts)
        counts[owner] += math.prod(leaf.shape)
    rows = [
        (_name(path) or "(itself)", layer.kind, _size(layer.output), counts[path])
        for path, layer in layers.items()
        if counts[path] or (layer.output and not _has_parts(path, layers))
    ]
    whole = layers[()]
    total = ("total", whole.kind, _size(whole.output), sum(counts.values()))
    return _table(("layer", "kind", "output"), [*rows, total], state)


def _of_function(
    apply: Callable[..., Any], params: Tree, state: Tree, images: jax.ShapeDtypeStruct
) -> str:
    def embed(params: Tree, state: Tree, images: jax.Array) -> jax.Array:
        return apply(params, state, images, train=False)[0]

    output = jax.eval_shape(embed, params, state, images)
    rows = [
        (
            _name(path),
            " x ".join(map(str, leaf.shape)) or "scalar",
            math.prod(leaf.shape),
        )
        for path, leaf in _leaves(params)
    ]
    count = sum(row[-1] for row in rows)
    total = ("total", f"output {_size(output.shape)}", count)
    return _table(("parameter", "shape"), [*rows, total], state)


def _layers(
    build: Callable[[nnx.Rngs], nnx.Module], images: jax.ShapeDtypeStruct
) -> dict[Path, _Layer]:
    """The modules in the order of their attributes; outputs None if not called."""
    kinds: dict[Path, str] = {}

    def trace(images: jax.Array) -> Tree:
        module = build(nnx.Rngs(jax.random.key(0)))
        # Noted while tracing: what leaves the trace has its attributes sorted by name.
        parts = dict(nnx.iter_modules(module))
        for path in sorted(parts, key=_place(module)):
            kinds[path] = type(parts[path]).__name__
        module.eval()
        kept = nnx.Intermediate
        capture = nnx.capture(module, kept, method_outputs=kept)
        embeddings, outputs = capture(images)
        return embeddings, nnx.to_pure_dict(outputs)

    embeddings, outputs = jax.eval_shape(trace, images)
    shapes = {
        path[: path.index(_CALL)]: leaf.shape
        for path, leaf in _leaves(outputs)
        if _CALL in path
    }
    shapes[()] = embeddings.shape
    return {path: _Layer(kind, shapes.get(path)) for path, kind in kinds.items()}


def _place(module: nnx.Module) -> Callable[[Path], tuple[int, ...]]:
    """Where a layer stands among the attributes of the module, as a sort key."""

    def place(path: Path) -> tuple[int, ...]:
        part: Any = module
        places = []
        for key in path:
            names = list(vars(part))
            places.append(key if isinstance(key, int) else names.index(key))
            part = part[key] if isinstance(key, int) else getattr(part, key)
        return tuple(places)

    return place


def _leaves(tree: Tree) -> Iterator[tuple[Path, Any]]:
    for path, leaf in jax.tree.leaves_with_path(tree):
        yield tuple(getattr(key, "key", getattr(key, "idx", "")) for key in path), leaf


def _name(path: Path) -> str:
    return "/".join(map(str, path))


def _has_parts(path: Path, paths: Iterable[Path]) -> bool:
    return any(len(p) > len(path) and p[: len(path)] == path for p in paths)


def _size(shape: Sequence[int] | None) -> str:
    return _EMPTY if shape is None else " x ".join(map(str, shape[1:]))


def _table(
    heads: tuple[str, ...], rows: Sequence[tuple[str | int, ...]], state: Tree
) -> str:
    kept = sum(math.prod(leaf.shape) for _, leaf in _leaves(state))
    if kept:
        rows = [*rows, ("state, not trained", *[_EMPTY] * (len(heads) - 1), kept)]
    lines = [
        f"| {' | '.join((*heads, 'parameters'))} |",
        f"|{'---|' * len(heads)}---:|",
        *(f"| {' | '.join(map(str, row[:-1]))} | {row[-1]:,} |" for row in rows),
    ]
    return "\n".join(lines)
