"""From the terms of each anchor to one number.

A batch loss makes `Terms`; a reduction turns them into a scalar. Any function of
`Terms` will do as a reduction. Those of this module but `per_anchor` read only the sums
over anchors, and say so with `reads_sums`: for them a loss computes its value and its
gradient in a single pass.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from metricjax import numerics

__all__ = ["Terms", "mean", "mean_active", "per_anchor", "reads_sums", "sum"]


class Terms(NamedTuple):
    """What a loss is made of; each field is `[batch]`, or `[batch, parts]`.

    A loss whose parts are averaged apart (contrastive: positives and negatives) has the
    trailing axis: each part is reduced, then the parts are added.

    Attributes:
        total: sum of the anchor's terms.
        count: number of its terms; each loss says what a term is.
        active: number of its terms that are not zero; each loss says which those are.
    """

    total: Array
    count: Array
    active: Array


Reduction = Callable[[Terms], Array]


def reads_sums(reduction: Reduction) -> Reduction:
    """Mark a reduction that reads nothing but the sums over anchors of each field.

    Such a reduction gets `Terms` of one row that holds the sums: `[1]` or `[1, parts]`.

    Args:
        reduction: a function `Terms -> scalar` that sums over axis 0 first.

    Returns:
        The same function, marked.

    Example:
        >>> @reads_sums
        ... def mean_of_logs(terms):
        ...     return jnp.log(jnp.sum(terms.total)) - jnp.log(jnp.sum(terms.count))
    """
    setattr(reduction, "reads_sums", True)  # noqa: B010 (functions have no such field)
    return reduction


@reads_sums
def sum(terms: Terms) -> Array:
    """Sum of all terms.

    Args:
        terms: `Terms` `[batch]` or `[batch, parts]`.

    Returns:
        A scalar.

    Example:
        >>> terms = Terms(*jnp.array([[3.0, 5.0], [2.0, 2.0], [1.0, 1.0]]))
        >>> float(sum(terms))
        8.0
    """
    return jnp.sum(terms.total)


@reads_sums
def mean(terms: Terms) -> Array:
    """Mean over all terms, `sum total / sum count`; 0 if there is none.

    Args:
        terms: `Terms` `[batch]` or `[batch, parts]`.

    Returns:
        A scalar; with parts, the sum of their means.

    Example:
        >>> terms = Terms(*jnp.array([[3.0, 5.0], [2.0, 2.0], [1.0, 1.0]]))
        >>> float(mean(terms))
        2.0
    """
    total, count = jnp.sum(terms.total, axis=0), jnp.sum(terms.count, axis=0)
    return jnp.sum(numerics.divide(total, count))


@reads_sums
def mean_active(terms: Terms) -> Array:
    """Mean over the active terms, `sum total / sum active`; 0 if there is none.

    Hermans et al. (2017, arXiv:1703.07737, section 2) use it for batch-all triplets,
    where most terms soon are zero.

    Args:
        terms: `Terms` `[batch]` or `[batch, parts]`.

    Returns:
        A scalar; with parts, the sum of their means.

    Example:
        >>> terms = Terms(*jnp.array([[3.0, 5.0], [2.0, 2.0], [1.0, 1.0]]))
        >>> float(mean_active(terms))
        4.0
    """
    total, active = jnp.sum(terms.total, axis=0), jnp.sum(terms.active, axis=0)
    return jnp.sum(numerics.divide(total, active))


def per_anchor(terms: Terms) -> Array:
    """Mean over the terms of each anchor; 0 for an anchor without terms.

    Args:
        terms: `Terms` `[batch]` or `[batch, parts]`.

    Returns:
        `[batch]`; with parts, the sum of their means.

    Example:
        >>> terms = Terms(*jnp.array([[3.0, 5.0], [2.0, 2.0], [1.0, 1.0]]))
        >>> per_anchor(terms).tolist()
        [1.5, 2.5]
    """
    each = numerics.divide(terms.total, terms.count)
    return each if each.ndim == 1 else jnp.sum(each, axis=1)
