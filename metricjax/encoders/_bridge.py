"""Any model as a pure function: `apply(params, state, images, *, train, key)`.

Losses, training and evaluation see only this function and two plain nested dicts of
arrays, so they neither know nor import the library that a model was written in. Flax
NNX modules enter by `functional`, Flax Linen modules by `from_linen`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

Tree = Any  # a nested dict of arrays


class Apply(Protocol):
    """`apply(params, state, images, *, train, key=None) -> (embeddings, state)`."""

    def __call__(
        self,
        params: Tree,
        state: Tree,
        images: ArrayLike,
        *,
        train: bool,
        key: Array | None = None,
    ) -> tuple[Array, Tree]: ...


class Functional(NamedTuple):
    """A model as a pure function and its starting values.

    Attributes:
        apply: the function; pure, so that it jits, vmaps and differentiates.
        params: what the optimiser changes, a nested dict of arrays.
        state: what a training step changes besides (batch statistics), likewise.
    """

    apply: Apply
    params: Tree
    state: Tree


class Deferred(NamedTuple):
    """A model as a pure function, to be initialised by a key.

    Attributes:
        apply: as in `Functional`.
        init: `key -> (params, state)`, compiled.
    """

    apply: Apply
    init: Callable[[Array], tuple[Tree, Tree]]


def as_float(images: ArrayLike) -> Array:
    """Images as encoders see them: uint8 in 0..255 becomes float32 in 0..1.

    This is the one place where pixels are scaled; every `apply` made here calls it.
    Floating images are taken to be scaled already and pass unchanged, so that an
    augmentation may call it first.

    Args:
        images: `[batch, height, width, channels]`, uint8 or floating.

    Returns:
        The images in a floating dtype.

    Raises:
        TypeError: if the dtype is neither uint8 nor floating.

    Example:
        >>> as_float(jnp.array([0, 255], jnp.uint8)).tolist()
        [0.0, 1.0]
    """
    images = jnp.asarray(images)
    if jnp.issubdtype(images.dtype, jnp.floating):
        return images
    if images.dtype != jnp.uint8:
        raise TypeError(
            f"Expected `images` in uint8 (0..255) or a floating dtype (0..1), got "
            f"{images.dtype}; convert with images.astype(numpy.uint8)."
        )
    return images.astype(jnp.float32) / 255.0


def functional(model: nnx.Module) -> Functional:
    """A Flax NNX module as a pure function with plain dicts.

    The module is called as `model(images)`. Training and evaluation differ by the
    module's own switches (`use_running_average` of batch norm, `deterministic` of
    dropout), which are set for each. Random streams are seeded from `key` at each
    call and are not part of the state.

    Args:
        model: an NNX module that maps images `[batch, ...]` to `[batch, dim]`.

    Returns:
        `Functional(apply, params, state)`; unpack it as a triple.

    Example:
        >>> model = nnx.Linear(4, 2, rngs=nnx.Rngs(0))
        >>> apply, params, state = functional(model)
        >>> embeddings, state = apply(params, state, jnp.ones((3, 4)), train=False)
        >>> embeddings.shape, sorted(params), state
        ((3, 2), ['bias', 'kernel'], {})
    """
    graphs = {train: _split(_view(model, train=train))[0] for train in (True, False)}
    _, params, streams, state = _split(model)
    abstract_streams = jax.eval_shape(lambda: streams)

    def apply(
        params: Tree,
        state: Tree,
        images: ArrayLike,
        *,
        train: bool,
        key: Array | None = None,
    ) -> tuple[Array, Tree]:
        random = _seed(abstract_streams, key, train=train)
        # Arrays of JAX: a module would write its new statistics into those of NumPy.
        params, state = jax.tree.map(jnp.asarray, (params, state))
        merged = nnx.merge(graphs[train], params, random, state)
        embeddings = merged(as_float(images))
        return embeddings, _split(merged)[3]

    return Functional(apply, params, state)


def deferred(build: Callable[[nnx.Rngs], nnx.Module]) -> Deferred:
    """An NNX module as a pure function whose initialisation is compiled too.

    Building a module eagerly compiles and dispatches hundreds of small operations.
    This compiles them into one program, which serves any number of keys and which a
    second start takes from the compilation cache. On a CPU, a key of XLA's own
    generator, `jax.random.key(0, impl="rbg")`, makes that 15 times faster.

    Args:
        build: makes the module from its random streams.

    Returns:
        `Deferred(apply, init)`.

    Example:
        >>> apply, init = deferred(lambda rngs: nnx.Linear(4, 2, rngs=rngs))
        >>> params, state = init(jax.random.key(0))
        >>> apply(params, state, jnp.ones((3, 4)), train=False)[0].shape
        (3, 2)
    """
    abstract = nnx.eval_shape(lambda: build(nnx.Rngs(jax.random.key(0))))

    def init(key: Array) -> tuple[Tree, Tree]:
        _, params, _, state = _split(build(nnx.Rngs(key)))
        return params, state

    return Deferred(functional(abstract).apply, jax.jit(init))


def from_linen(
    module: Any,
    variables: Mapping[str, Tree],
    *,
    arguments: Callable[[bool], Mapping[str, Any]] = lambda train: {"train": train},
) -> Functional:
    """A Flax Linen module and its variables as the same pure function.

    Args:
        module: a Linen module that maps images `[batch, ...]` to `[batch, dim]`.
        variables: what `module.init` returned; initialise under `jax.jit`.
        arguments: the keyword arguments of the call in training (True) and in
            evaluation (False); `lambda train: {}` for a module without such a switch.

    Returns:
        `Functional(apply, params, state)`.

    Raises:
        ValueError: if `variables` has no collection "params".

    Example:
        >>> from flax import linen
        >>> module = linen.Dense(2)
        >>> variables = module.init(jax.random.key(0), jnp.ones((1, 4)))
        >>> model = from_linen(module, variables, arguments=lambda train: {})
        >>> model.apply(model.params, {}, jnp.ones((3, 4)), train=False)[0].shape
        (3, 2)
    """
    if "params" not in variables:
        raise ValueError(
            f"Expected `variables` with a collection 'params', got "
            f"{sorted(variables)}; pass what module.init returned."
        )

    def apply(
        params: Tree,
        state: Tree,
        images: ArrayLike,
        *,
        train: bool,
        key: Array | None = None,
    ) -> tuple[Array, Tree]:
        embeddings, changed = module.apply(
            {"params": params, **state},
            as_float(images),
            mutable=list(state) if train else [],
            rngs={"dropout": key} if train and key is not None else {},
            **arguments(train),
        )
        return embeddings, {**state, **changed}

    state = {name: dict(tree) for name, tree in variables.items() if name != "params"}
    return Functional(apply, variables["params"], state)


def _view(model: nnx.Module, *, train: bool) -> nnx.Module:
    return nnx.view(
        model,
        deterministic=not train,
        use_running_average=not train,
        raise_if_not_found=False,
    )


def _split(model: nnx.Module) -> tuple[nnx.GraphDef, Tree, Tree, Tree]:
    graph, *states = nnx.split(model, nnx.Param, nnx.RngState, ...)
    params, streams, state = (nnx.to_pure_dict(part) for part in states)
    return graph, params, streams, state


def _seed(streams: Tree, key: Array | None, *, train: bool) -> Tree:
    """Random streams made from one key: each gets its own; counters start at 0."""
    leaves, treedef = jax.tree.flatten(streams)
    if leaves and train and key is None:
        raise ValueError(
            "Expected `key` for a model that draws random numbers in training "
            "(dropout), got None; pass a key folded from the seed and the step."
        )
    key = jax.random.key(0) if key is None else key
    seeded = [
        _stream(key, index, leaf)
        if _is_key(leaf)
        else jnp.zeros(leaf.shape, leaf.dtype)
        for index, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(treedef, seeded)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _stream(key: Array, index: int, leaf: Any) -> Array:
    key = jax.random.fold_in(key, index)
    return jax.random.split(key, leaf.shape) if leaf.shape else key
