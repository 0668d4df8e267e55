"""InfoNCE and its relatives: two sets of embeddings whose rows belong together."""

from typing import Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import (
    _checks,
    _running,
    numerics,
    pairs,
    reductions,
    rows,
    similarities,
)
from metricjax.reductions import Reduction, Terms


class AlignedOptions(TypedDict, total=False):
    """What every loss over two aligned sets takes, by keyword.

    Attributes:
        labels: int `[batch]`; rows of equal label are not negatives of each other, for
            instance two images with the same caption. A row of negative label is left
            out. By default each row is a class of its own.
        where: bool `[batch]`; False marks padding, in both sets.
        weights: float `[batch]`; importance of each row, a constant.
        block_size: anchors in a block. Static.
        axis_name: inside `jax.shard_map`, the mesh axis (or axes) over which both sets
            are sharded; the candidates are then those of all devices.
        ring: with `axis_name`, whether the candidates are passed from device to device
            in the place of being gathered; see `rows.Options`. Static.
    """

    labels: ArrayLike | None
    where: ArrayLike | None
    weights: ArrayLike | None
    block_size: int | None
    axis_name: str | tuple[str, ...] | None
    ring: bool


def info_nce(
    embeddings: ArrayLike,
    other_embeddings: ArrayLike,
    *,
    temperature: ArrayLike = 0.07,
    negative_embeddings: ArrayLike | None = None,
    negative_where: ArrayLike | None = None,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[AlignedOptions],
) -> Any:
    """InfoNCE: each row should find its partner among the rows of the other set.

    `-log(exp(s_ii / t) / (exp(s_ii / t) + sum_{j != i} exp(s_ij / t) + sum_k exp(s_ik /
    t)))`, where `s` is the cosine of row i of the one set to row j of the other, or to
    a further negative k. MoCo's loss, whose only negatives are a queue, has equal
    labels for all rows. Memory is a block of rows.

    Args:
        embeddings: `[batch, dim]`, the queries; normalised inside.
        other_embeddings: `[batch, dim]`, the key of each query; normalised inside.
        temperature: `t`; MoCo's is 0.07. If it is learned, learn its logarithm.
        negative_embeddings: `[n, dim]`, further negatives of all rows: hard negatives,
            or a queue; normalised inside. With `axis_name` those of this device, to be
            gathered like the batch.
        negative_where: bool `[n]`; False for places of a queue that are not filled.
        reduction: of `Terms`, whose terms are rows; active are those to which another
            candidate is at least as similar as their partner.
        **options: see `AlignedOptions`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.eye(2), jnp.array([[1.0, 0.0], [1.0, 0.0]])
        >>> round(float(info_nce(x, y, temperature=1.0)), 4)
        0.6931

    References:
        van den Oord et al., "Representation Learning with Contrastive Predictive
        Coding", 2018, arXiv:1807.03748, eq. 4; with a queue: He et al., "Momentum
        Contrast", CVPR 2020, arXiv:1911.05722, eq. 1.
    """
    return _apply(
        _info_nce(temperature=temperature),
        embeddings,
        other_embeddings,
        negative_embeddings,
        negative_where,
        reduction=reduction,
        **options,
    )


def multiple_negatives(
    embeddings: ArrayLike,
    other_embeddings: ArrayLike,
    *,
    negative_embeddings: ArrayLike | None = None,
    negative_where: ArrayLike | None = None,
    scale: ArrayLike = 20.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[AlignedOptions],
) -> Any:
    """Multiple negatives ranking: the answers to other questions are wrong answers.

    `info_nce` from questions to answers, with `scale` for `1 / t` as in
    sentence-transformers, where hard negatives of one question are negatives of all.

    Args:
        embeddings: `[batch, dim]`, of the questions; normalised inside.
        other_embeddings: `[batch, dim]`, of the answer to each; normalised inside.
        negative_embeddings: `[n, dim]`, of answers that are wrong for all, for instance
            hard negatives of each question, one after the other.
        negative_where: bool `[n]`; False for padding.
        scale: of the cosine; the paper has dot products and no scale,
            sentence-transformers 20.
        reduction: see `info_nce`.
        **options: see `AlignedOptions`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.eye(2), jnp.array([[1.0, 0.0], [0.6, 0.8]])
        >>> round(float(multiple_negatives(x, y, scale=1.0)), 4)
        0.4421
        >>> hard = jnp.array([[0.8, 0.6]])
        >>> round(float(multiple_negatives(x, y, negative_embeddings=hard)), 4)
        0.0183

    References:
        Henderson et al., "Efficient Natural Language Response Suggestion for Smart
        Reply", 2017, arXiv:1705.00652, section 4.4; Reimers and Gurevych,
        "Sentence-BERT", EMNLP 2019, arXiv:1908.10084.
    """
    return _apply(
        _info_nce(scale=scale),
        embeddings,
        other_embeddings,
        negative_embeddings,
        negative_where,
        reduction=reduction,
        **options,
    )


def clip(
    embeddings: ArrayLike,
    other_embeddings: ArrayLike,
    *,
    temperature: ArrayLike = 0.07,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[AlignedOptions],
) -> Any:
    """CLIP: InfoNCE both ways, from images to texts and from texts to images.

    The mean of `info_nce(x, y)` and `info_nce(y, x)`. Memory is a block of rows.

    Args:
        embeddings: `[batch, dim]`, of the images; normalised inside.
        other_embeddings: `[batch, dim]`, of the text of each; normalised inside.
        temperature: `t`; the paper learns its logarithm, from log 0.07, and keeps it at
            0.01 or more.
        reduction: of `Terms`, see `info_nce`; each way is reduced, then the two are
            averaged.
        **options: see `AlignedOptions`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.eye(2), jnp.array([[1.0, 0.0], [0.6, 0.8]])
        >>> round(float(clip(x, y, temperature=1.0)), 4)
        0.4489

    References:
        Radford et al., "Learning Transferable Visual Models From Natural Language
        Supervision", ICML 2021, arXiv:2103.00020, figure 3.
    """
    row = _info_nce(temperature=temperature)
    both = (embeddings, other_embeddings), (other_embeddings, embeddings)
    ways = [_apply(row, *sides, reduction=reduction, **options) for sides in both]
    return jax.tree.map(lambda x, y: (x + y) / 2.0, *ways)


def siglip(
    embeddings: ArrayLike,
    other_embeddings: ArrayLike,
    *,
    scale: ArrayLike = 10.0,
    bias: ArrayLike = -10.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[AlignedOptions],
) -> Any:
    """SigLIP: is this text of this image? A logistic loss for each pair on its own.

    `log(1 + exp(-(t s_ii + b))) + sum_{j != i} log(1 + exp(t s_ij + b))`, where `s` is
    the cosine of row i of the one set to row j of the other. Memory is a block of rows.

    Args:
        embeddings: `[batch, dim]`, of the images; normalised inside.
        other_embeddings: `[batch, dim]`, of the text of each; normalised inside.
        scale: `t`; the paper learns its logarithm, from log 10.
        bias: `b`; the paper learns it, from -10, since almost all pairs are negative.
        reduction: of `Terms`, whose terms are rows of the first set, as in the paper,
            which divides by the batch and not by the pairs; active are those to which
            another candidate is at least as similar as their partner.
        **options: see `AlignedOptions`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.eye(2), jnp.array([[1.0, 0.0], [0.6, 0.8]])
        >>> round(float(siglip(x, y)), 4)
        1.4191

    References:
        Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023,
        arXiv:2303.15343, eq. 2.
    """
    row = rows.Fold(
        Partial(_siglip_step, scale=scale, bias=bias),
        Partial(_siglip_terms, scale=scale, bias=bias),
    )
    return _apply(row, embeddings, other_embeddings, reduction=reduction, **options)


def _apply(
    row: rows.Fold,
    embeddings: ArrayLike,
    other_embeddings: ArrayLike,
    negative_embeddings: ArrayLike | None = None,
    negative_where: ArrayLike | None = None,
    *,
    reduction: Reduction | None,
    labels: ArrayLike | None = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    block_size: int | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    ring: bool = False,
) -> Any:
    """A row loss of each row of the first set against all rows of the second."""
    x, items = side(embeddings, labels, where, axis_name)
    check_other("other_embeddings", other_embeddings, jnp.shape(embeddings))
    y = numerics.l2_normalize(numerics.mask_rows(other_embeddings, where))
    others = (y, items.labels, items.where)
    if negative_embeddings is not None:
        further = _further(negative_embeddings, negative_where, x, items.labels)
        others = jax.tree.map(lambda *ends: jnp.concatenate(ends), others, further)
    elif negative_where is not None:
        raise ValueError(
            "Expected `negative_embeddings` with `negative_where`, got None; pass the "
            "negatives, or leave both out."
        )
    if axis_name is not None and not ring:
        others = jax.lax.all_gather(others, axis_name, tiled=True)
    ref_embeddings, ref_labels, ref_where = others
    return rows.apply(
        row,
        x,
        items.labels,
        measure=similarities.dot,
        reduction=reduction,
        per_anchor=(jnp.sum(x * y, axis=1), items.where),
        where=items.where,
        weights=weights,
        ref_embeddings=ref_embeddings,
        ref_labels=ref_labels,
        ref_where=ref_where,
        block_size=block_size,
        axis_name=axis_name,
        ring=ring,
    )


def side(
    embeddings: ArrayLike,
    labels: ArrayLike | None,
    where: ArrayLike | None,
    axis_name: str | tuple[str, ...] | None,
) -> tuple[Array, pairs.Items]:
    """Unit vectors `[batch, dim]`, their labels, and which of them count."""
    _checks.check_embeddings("embeddings", embeddings)
    size = jnp.shape(embeddings)[0]
    if labels is None:
        first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * size
        labels = jnp.arange(size, dtype=jnp.int32) + first
    items = pairs.items("", labels, where, None, rows=size)
    items = items._replace(where=items.where & (items.labels >= 0))
    return numerics.l2_normalize(numerics.mask_rows(embeddings, where)), items


def check_other(name: str, x: ArrayLike, shape: tuple[int, ...]) -> None:
    """Raise unless `x` is floating and has a row for each row of the first set."""
    _checks.check_shape(name, x, shape, "row i is the partner of row i")
    _checks.check_float(name, x)


def _further(
    negative_embeddings: ArrayLike,
    negative_where: ArrayLike | None,
    x: Array,
    labels: Array,
) -> tuple[Array, Array, Array]:
    """Negatives of all rows, with a label that no row has."""
    _checks.check_embeddings("negative_embeddings", negative_embeddings)
    _checks.check_same_dim("embeddings", x, "negative_embeddings", negative_embeddings)
    size = jnp.shape(negative_embeddings)[:1]
    there = jnp.ones(size, bool) if negative_where is None else negative_where
    _checks.check_mask("negative_where", there, size)
    z = numerics.l2_normalize(numerics.mask_rows(negative_embeddings, there))
    nobody = jnp.full(size, np.iinfo(labels.dtype).max, labels.dtype)
    return z, nobody, jnp.asarray(there)


def _info_nce(**hyperparameters: ArrayLike) -> rows.Fold:
    return rows.Fold(Partial(_info_nce_step, **hyperparameters), info_nce_terms)


def _info_nce_step(
    cosine: Array,
    positive: Array,
    negative: Array,
    anchor: tuple[Array, Array],
    *,
    scale: ArrayLike = 1.0,
    temperature: ArrayLike = 1.0,
) -> tuple[_running.Exponentials, Array]:
    del positive
    partner = anchor[0][:, None]
    gap = scale * (cosine - partner) / temperature
    return _running.exponentials(gap, negative), is_wrong(cosine, negative, partner)


def info_nce_terms(
    state: tuple[_running.Exponentials, Array], anchor: tuple[Array, ...]
) -> Terms:
    """`log(1 + sum)` of the exponentials of the negatives, of each row that is real."""
    return _over_rows(_running.softplus(state[0]), state[1], anchor[-1])


def _siglip_step(
    cosine: Array,
    positive: Array,
    negative: Array,
    anchor: tuple[Array, Array],
    *,
    scale: ArrayLike,
    bias: ArrayLike,
) -> tuple[Array, Array]:
    del positive
    other = jax.nn.softplus(scale * cosine + bias)
    cost = jnp.sum(jnp.where(negative, other, 0.0), axis=1)
    return cost, is_wrong(cosine, negative, anchor[0][:, None])


def _siglip_terms(
    state: tuple[Array, Array],
    anchor: tuple[Array, Array],
    *,
    scale: ArrayLike,
    bias: ArrayLike,
) -> Terms:
    cost, wrong = state
    partner, real = anchor
    cost += jax.nn.softplus(-(scale * partner + bias))
    return _over_rows(cost, wrong, real)


def is_wrong(cosine: Array, negative: Array, partner: Array) -> Array:
    """Bool `[b]`: a negative is at least as similar as the partner."""
    return jnp.any(negative & (cosine >= partner), axis=1)


def _over_rows(cost: Array, wrong: Array, real: Array) -> Terms:
    """`Terms` of one cost for each row that is real."""
    return Terms(
        jnp.where(real, cost, 0.0),
        real.astype(cost.dtype),
        (real & wrong).astype(cost.dtype),
    )
