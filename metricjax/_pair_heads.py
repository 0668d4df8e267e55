"""Pair heads: learned functions of two embeddings that say whether they match.

A head maps `x [n, dim]` and `y [n, dim]`, row by row, to logits `[n]` of "the same",
the same logits if `x` and `y` change places. Public in `metricjax.heads`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from metricjax import _checks, numerics

PairHead = Callable[[Array, Array], Array]


class WeightedL1(NamedTuple):
    """Parameters of `weighted_l1_logits`.

    Attributes:
        weights: `[dim]`; negative where a difference speaks against a match.
        bias: a scalar.
    """

    weights: Array
    bias: Array


class PairNetwork(NamedTuple):
    """Parameters of `pair_network_logits`.

    Attributes:
        kernel: `[2 * dim + 1, hidden]`: rows for the squared differences, for the
            differences of squares, and for the cosine.
        hidden_bias: `[hidden]`.
        output: `[hidden]`.
        bias: a scalar.
    """

    kernel: Array
    hidden_bias: Array
    output: Array
    bias: Array


def init_weighted_l1(
    key: Array, dim: int, *, dtype: DTypeLike = jnp.float32
) -> WeightedL1:
    """Random parameters of Koch's head: weights `N(0, 0.2^2)`, bias `N(0.5, 0.01^2)`.

    Args:
        key: a typed random key.
        dim: of the embeddings.
        dtype: of the parameters.

    Returns:
        `WeightedL1`.

    Raises:
        ValueError: if `dim` is not a positive integer.

    Example:
        >>> init_weighted_l1(jax.random.key(0), 64).weights.shape
        (64,)

    References:
        Koch, Zemel and Salakhutdinov, "Siamese Neural Networks for One-shot Image
        Recognition", ICML Deep Learning Workshop 2015, section 3.2.
    """
    _checks.check_positive_int("dim", dim, "pass the size of the embeddings")
    weights, bias = jax.random.split(key)
    return WeightedL1(
        jax.random.normal(weights, (dim,), dtype) * jnp.asarray(0.2, dtype),
        0.5 + jax.random.normal(bias, (), dtype) * jnp.asarray(0.01, dtype),
    )


def weighted_l1_logits(x: ArrayLike, y: ArrayLike, params: WeightedL1) -> Array:
    """Koch's head: `sum_d a_d |x_d - y_d| + b`, the logit that two items match.

    Args:
        x: `[n, dim]`; not normalised inside. Koch's embeddings end in a sigmoid.
        y: `[n, dim]`, the other item of each pair.
        params: `WeightedL1`; the paper has no bias, its descendants do.

    Returns:
        `[n]`, in at least float32; `jax.nn.sigmoid` makes it a probability.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if one is not floating.

    Example:
        >>> params = WeightedL1(jnp.array([-1.0, -2.0]), jnp.array(1.0))
        >>> weighted_l1_logits(jnp.zeros((1, 2)), jnp.ones((1, 2)), params).tolist()
        [-2.0]

    References:
        Koch, Zemel and Salakhutdinov, "Siamese Neural Networks for One-shot Image
        Recognition", ICML Deep Learning Workshop 2015, section 3.1.
    """
    x, y = _sides(x, y)
    weights = numerics.promote(params.weights)
    _checks.check_shape(
        "params.weights", weights, x.shape[1:], "one for each dimension"
    )
    return jnp.sum(jnp.abs(x - y) * weights[None, :], axis=1) + numerics.promote(
        params.bias
    )


def init_pair_network(
    key: Array, dim: int, *, hidden: int = 100, dtype: DTypeLike = jnp.float32
) -> PairNetwork:
    """Random parameters of `pair_network_logits`: Glorot uniform, biases zero.

    Args:
        key: a typed random key.
        dim: of the embeddings.
        hidden: number of hidden units.
        dtype: of the parameters.

    Returns:
        `PairNetwork`.

    Raises:
        ValueError: if `dim` or `hidden` is not a positive integer.

    Example:
        >>> init_pair_network(jax.random.key(0), 64).kernel.shape
        (129, 100)
    """
    _checks.check_positive_int("dim", dim, "pass the size of the embeddings")
    _checks.check_positive_int("hidden", hidden, "pass the number of hidden units")
    first, second = jax.random.split(key)
    glorot = jax.nn.initializers.glorot_uniform()
    return PairNetwork(
        glorot(first, (2 * dim + 1, hidden), dtype),
        jnp.zeros(hidden, dtype),
        glorot(second, (hidden, 1), dtype)[:, 0],
        jnp.zeros((), dtype),
    )


def pair_network_logits(x: ArrayLike, y: ArrayLike, params: PairNetwork) -> Array:
    """A small network on `(x - y)^2`, `x^2 - y^2` and the cosine, made symmetric.

    The features go through one hidden layer of rectified units to a logit. `x^2 - y^2`
    changes its sign when the items change places, so that the plain network scores (x,
    y) and (y, x) differently; this is the mean of the two logits, exactly symmetric. A
    mean, not absolute values: trained weights keep their meaning, no kink is added at
    `|x| = |y|`, and both orders share their products, since the odd feature is added in
    one and subtracted in the other.

    Args:
        x: `[n, dim]`; not normalised inside, but for the cosine.
        y: `[n, dim]`, the other item of each pair.
        params: `PairNetwork`.

    Returns:
        `[n]`, in at least float32; `jax.nn.sigmoid` makes it a probability.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if one is not floating.

    Example:
        >>> params = init_pair_network(jax.random.key(0), 2)
        >>> x, y = jnp.array([[1.0, 2.0]]), jnp.array([[0.5, -1.0]])
        >>> logits = pair_network_logits(x, y, params)
        >>> bool(jnp.all(logits == pair_network_logits(y, x, params)))
        True
    """
    x, y = _sides(x, y)
    dim, hidden = x.shape[1], jnp.shape(params.output)[0]
    shape = (2 * dim + 1, hidden)
    _checks.check_shape(
        "params.kernel", params.kernel, shape, "rows for two features and the cosine"
    )
    kernel = numerics.promote(params.kernel)
    gap, total = x - y, x + y
    cosine = jnp.sum(numerics.l2_normalize(x) * numerics.l2_normalize(y), axis=1)
    even = numerics.matmul(jnp.square(gap), kernel[:dim])
    even = even + cosine[:, None] * kernel[2 * dim] + params.hidden_bias
    odd = numerics.matmul(gap * total, kernel[dim : 2 * dim])
    both = jax.nn.relu(even + odd) + jax.nn.relu(even - odd)
    output = numerics.promote(params.output)
    return jnp.sum(both * output, axis=1) / 2.0 + params.bias


def drop_units(key: Array, params: PairNetwork, rate: ArrayLike) -> PairNetwork:
    """Dropout for `pair_network_logits`: the parameters with hidden units left out.

    One choice of units for all pairs that are then scored, in both orders, so that the
    score stays symmetric. Use it in training, with a new key for each step; for another
    choice for each pair `vmap` over keys and pairs.

    Args:
        key: a typed random key.
        params: `PairNetwork`.
        rate: share of the hidden units to leave out, in [0, 1); the others count
            `1 / (1 - rate)` times.

    Returns:
        `PairNetwork`.

    Example:
        >>> params = init_pair_network(jax.random.key(0), 2, hidden=8)
        >>> dropped = drop_units(jax.random.key(1), params, 0.5)
        >>> bool(jnp.all((dropped.output == 0) | (dropped.output == 2 * params.output)))
        True
    """
    keep = jax.random.bernoulli(key, 1.0 - rate, jnp.shape(params.output))
    output = jnp.where(keep, params.output / (1.0 - rate), 0.0)
    return params._replace(output=output.astype(jnp.result_type(params.output)))


def pairwise(x: ArrayLike, y: ArrayLike | None = None, *, head: PairHead) -> Array:
    """Logits of a pair head for all pairs, one row at a time.

    Memory is `m * dim` a few times and the result: no `[n, m, dim]`, and the gradient
    recomputes each row.

    Args:
        x: `[n, dim]`.
        y: `[m, dim]`; `x` if None.
        head: `(x [m, dim], y [m, dim]) -> [m]`, one of this module or your own, its
            parameters bound with `jax.tree_util.Partial`.

    Returns:
        `[n, m]`.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if one is not floating.

    Example:
        >>> from jax.tree_util import Partial
        >>> params = WeightedL1(jnp.array([-1.0]), jnp.array(0.0))
        >>> head = Partial(weighted_l1_logits, params=params)
        >>> pairwise(jnp.array([[0.0], [3.0]]), head=head).tolist()
        [[0.0, -3.0], [-3.0, 0.0]]
    """
    y = x if y is None else y
    _checks.check_embeddings("x", x)
    _checks.check_embeddings("y", y)
    _checks.check_same_dim("x", x, "y", y)
    y = jnp.asarray(y)

    @jax.checkpoint
    def one(row: Array) -> Array:
        return head(jnp.broadcast_to(row[None], y.shape), y)

    return jax.lax.map(one, jnp.asarray(x))


def _sides(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    _checks.check_embeddings("x", x)
    _checks.check_shape("y", y, jnp.shape(x), "give one row of `y` for each of `x`")
    _checks.check_float("y", y)
    return numerics.promote(x), numerics.promote(y)
