"""Transforms of encoders: functions from `encoders.Apply` to `encoders.Apply`."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from metricjax import _blocks, _checks, encoders

__all__ = ["compute_in", "grad_cache"]

Tree = Any
Step = Callable[[Any, tuple[Any, Any]], tuple[Any, Any]]


def compute_in(apply: encoders.Apply, dtype: DTypeLike) -> encoders.Apply:
    """Mixed precision: an encoder that computes in bfloat16, say, and gives float32.

    Parameters and images are rounded on the way in, embeddings are float32 on the way
    out, so that distances and losses keep their precision. The parameters themselves,
    their gradients and the optimiser stay as they were, and so does the encoder's
    state: the running means of batch norm move by less than bfloat16 can tell.

    Args:
        apply: see `encoders.Apply`; its layers compute in the dtype of what they are
            given, as those of Flax do by default.
        dtype: a floating dtype. Static.

    Returns:
        A function of the same arguments and results as `apply`.

    Raises:
        TypeError: if `dtype` is not floating.

    Example:
        >>> def apply(params, state, images, *, train, key=None):
        ...     return images @ params, state
        >>> coarse = compute_in(apply, jnp.bfloat16)
        >>> x = coarse(jnp.ones((2, 1)), {}, jnp.full((1, 2), 0.501), train=False)[0]
        >>> x.dtype.name, x.tolist()
        ('float32', [[1.0]])

    References:
        Micikevicius et al., "Mixed Precision Training", ICLR 2018, arXiv:1710.03740,
        section 3.1.
    """
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"Expected `dtype` to be floating, got {jnp.dtype(dtype)}; pass "
            "jax.numpy.bfloat16."
        )

    def lowered(
        params: Tree,
        state: Tree,
        images: ArrayLike,
        *,
        train: bool,
        key: Array | None = None,
    ) -> tuple[Array, Tree]:
        coarse = jax.tree.map(lambda x: _cast(x, dtype), params)
        images = encoders.as_float(images).astype(dtype)
        embeddings, after = apply(coarse, state, images, train=train, key=key)
        after = jax.tree.map(lambda new, old: _cast(new, old.dtype), after, state)
        return embeddings.astype(jnp.float32), after

    return lowered


def _cast(x: Array, dtype: DTypeLike) -> Array:
    return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x


def grad_cache(
    apply: encoders.Apply, *, chunk: int, unroll: bool | None = None
) -> encoders.Apply:
    """GradCache: an encoder that goes through its batch a chunk at a time.

    The first pass makes the embeddings and keeps nothing else. From them any batch loss
    takes its value and its gradient with respect to the embeddings; the second pass
    encodes each chunk again, with the same keys, and adds up the gradients of the
    parameters. They are those of the loss of the whole batch, exactly: activations of
    one chunk exist at a time, for one more pass. In training wrap the encoder,
    `supervised(grad_cache(apply, chunk=64), loss)`; nothing else changes.

    A chunk is made of rows that are evenly spread over the batch, so that a batch that
    is sharded over devices stays where it is. Chance comes from the key folded with the
    number of the chunk. A layer that normalises by the batch normalises by the chunk,
    and its state goes from one chunk to the next: embeddings are then not those of the
    whole batch, which layers without state give. No gradient flows through the state;
    derivatives are of first order, backwards. Inside `jax.shard_map` each device has
    its own chunks: fold the key with its index, and make the state the same on all, for
    instance with `jax.lax.pmean`.

    Args:
        apply: see `encoders.Apply`; its embeddings are `[batch, dim]`.
        chunk: rows in a chunk; the last chunk is smaller if they do not divide the
            batch. Static.
        unroll: whether the program repeats the encoder for each chunk, in a row, or has
            a loop. By default repeated on a CPU, where a convolution in a loop is ten
            times slower, and a loop elsewhere, which compiles faster. Static.

    Returns:
        A function of the same arguments and results as `apply`.

    Raises:
        ValueError: if `chunk` is not a positive integer.

    Example:
        >>> from metricjax import losses
        >>> def apply(params, state, images, *, train, key=None):
        ...     return jnp.tanh(images @ params), state
        >>> def loss(params, apply):
        ...     images, labels = jnp.eye(6), jnp.array([0, 1, 2, 0, 1, 2])
        ...     return losses.supcon(apply(params, {}, images, train=True)[0], labels)
        >>> params = jnp.sin(jnp.arange(12.0)).reshape(6, 2)
        >>> direct = jax.grad(loss)(params, apply)
        >>> cached = jax.grad(loss)(params, grad_cache(apply, chunk=2))
        >>> bool(jnp.allclose(cached, direct, rtol=1e-5))
        True

    References:
        Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited
        Setup", RepL4NLP 2021, arXiv:2101.06983, section 3.2.
    """
    _checks.check_positive_int("chunk", chunk, "pass how many rows to encode at a time")

    def chunked(
        params: Tree,
        state: Tree,
        images: ArrayLike,
        *,
        train: bool,
        key: Array | None = None,
    ) -> tuple[Array, Tree]:
        loop = unroll
        if loop is None:
            loop = jax.default_backend() == "cpu"
        images = jax.tree.map(jnp.asarray, images)
        # A replicated parameter must vary before its gradient is taken; see there.
        leaves, treedef = jax.tree.flatten((params, state, images, key))
        leaves = _blocks.vary_alike(leaves)
        return _encode(
            _Plan(apply, train, chunk, loop), *jax.tree.unflatten(treedef, leaves)
        )

    return chunked


class _Plan(NamedTuple):
    """What is static."""

    apply: encoders.Apply
    train: bool
    chunk: int
    unroll: bool

    def encode(
        self, params: Tree, state: Tree, images: Any, key: Array | None, index: Any
    ) -> tuple[Array, Tree]:
        """Embeddings of one chunk, and the state after it."""
        key = None if key is None else jax.random.fold_in(key, index)
        return self.apply(params, state, images, train=self.train, key=key)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _encode(
    plan: _Plan, params: Tree, state: Tree, images: Any, key: Array | None
) -> tuple[Array, Tree]:
    def step(state: Tree, one: tuple[Any, Any]) -> tuple[Tree, Array]:
        index, images = one
        embeddings, state = plan.encode(params, state, images, key, index)
        return state, embeddings

    state, embeddings = _over_chunks(plan, step, state, images)
    return embeddings, state


def _encode_forwards(
    plan: _Plan, *arguments: Any
) -> tuple[tuple[Array, Tree], tuple[Any, ...]]:
    return _encode(plan, *arguments), arguments


def _encode_backwards(
    plan: _Plan, arguments: tuple[Any, ...], slopes: tuple[Array, Tree]
) -> tuple[Any, ...]:
    params, state, images, key = arguments
    leaves, treedef = jax.tree.flatten(images)
    smooth = all(jnp.issubdtype(x.dtype, jnp.floating) for x in leaves)

    def step(carry: tuple[Tree, Tree], one: tuple[Any, Any]) -> tuple[Any, Any]:
        index, (images, slope) = one
        state, summed = carry

        def encode(params: Tree, *images: Any) -> tuple[Array, Tree]:
            images = jax.tree.unflatten(treedef, images)
            return plan.encode(params, state, images, key, index)

        images = jax.tree.leaves(images)
        if smooth:
            _, pullback, state = jax.vjp(encode, params, *images, has_aux=True)
        else:
            constant = functools.partial(_with_images, encode, images)
            _, pullback, state = jax.vjp(constant, params, has_aux=True)
        gradient, *of_images = pullback(slope)
        return (state, jax.tree.map(jnp.add, summed, gradient)), of_images

    zeros = jax.tree.map(jnp.zeros_like, params)
    (_, summed), of_images = _over_chunks(
        plan, step, (state, zeros), (images, slopes[0])
    )
    of_images = jax.tree.unflatten(treedef, of_images) if smooth else None
    return summed, None, of_images, None


_encode.defvjp(_encode_forwards, _encode_backwards)


def _with_images(
    encode: Callable[..., tuple[Array, Tree]], images: list[Any], params: Tree
) -> tuple[Array, Tree]:
    return encode(params, *images)


def _over_chunks(plan: _Plan, step: Step, carry: Any, rows: Any) -> tuple[Any, Any]:
    """`step(carry, (number, chunk of rows)) -> (carry, rows)` over all chunks."""
    batch = jax.tree.leaves(rows)[0].shape[0]
    chunk = min(plan.chunk, batch)
    count = batch // chunk
    whole = count * chunk

    def cut(x: Array) -> Array:
        # Chunk i has the rows i, i + count, ...: a part of what each device holds.
        return jnp.swapaxes(x[:whole].reshape(chunk, count, *x.shape[1:]), 0, 1)

    def uncut(x: Array) -> Array:
        return jnp.swapaxes(x, 0, 1).reshape(whole, *x.shape[2:])

    chunks = (jnp.arange(count), jax.tree.map(cut, rows))
    carry, out = (_in_a_row if plan.unroll else jax.lax.scan)(step, carry, chunks)
    out = jax.tree.map(uncut, out)
    if whole == batch:
        return carry, out
    rest = jax.tree.map(lambda x: x[whole:], rows)
    carry, last = step(carry, (count, _after((carry, out), rest)))
    return carry, jax.tree.map(lambda *parts: jnp.concatenate(parts), out, last)


def _in_a_row(step: Step, carry: Any, chunks: tuple[Array, Any]) -> tuple[Any, Any]:
    """`jax.lax.scan` without a loop, one step after the other."""
    results = []
    for index in range(chunks[0].shape[0]):
        number, rows = jax.tree.map(lambda x, i=index: x[i], chunks)
        if results:
            rows = _after((carry, results[-1]), rows)
        carry, out = step(carry, (number, rows))
        results.append(out)
    return carry, jax.tree.map(lambda *parts: jnp.stack(parts), *results)


def _after(done: Any, rows: Any) -> Any:
    """The rows, which can't be had before `done` is there.

    Else the compiler may run all chunks at once, and needs the memory of all; it drops
    `jax.lax.optimization_barrier` before it decides on the order.
    """
    ends = [
        x.ravel()[0].astype(jnp.float32) for x in jax.tree.leaves(done) if _is_float(x)
    ]
    total = sum(ends, start=jnp.zeros((), jnp.float32))
    never = (total > 1.0) & (total < -1.0)
    return jax.tree.map(lambda x: jnp.where(never, jnp.zeros_like(x), x), rows)


def _is_float(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating) and x.size > 0
