"""Contrastive losses whose negatives another model has looked at."""

from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import _checks, _running, numerics, reductions, rows, similarities
from metricjax.losses import _infonce
from metricjax.losses._infonce import AlignedOptions
from metricjax.reductions import Reduction

Rows = tuple[tuple[Array, ...], tuple[Array, ...]]


def gist(
    embeddings: ArrayLike,
    other_embeddings: ArrayLike,
    guide_embeddings: ArrayLike,
    other_guide_embeddings: ArrayLike,
    *,
    margin: ArrayLike = 0.0,
    temperature: ArrayLike = 0.01,
    within: bool = True,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[AlignedOptions],
) -> Any:
    """GISTEmbed: InfoNCE without the negatives that a guide takes for positives.

    `-log(exp(s(x_i, y_i) / t) / (exp(s(x_i, y_i) / t) + sum exp(s / t)))`, where `s` is
    the cosine and the sum runs over `s(x_i, y_j)`, `s(x_i, x_j)` and `s(y_i, y_j)` for
    `j != i`, each as long as the guide's cosine of the same two is at most the guide's
    cosine of `x_i` and `y_i`, less the margin. For other losses there is
    `pairs.without_false_negatives`. Memory is six blocks of rows.

    Args:
        embeddings: `[batch, dim]`, of the questions; normalised inside.
        other_embeddings: `[batch, dim]`, of the answer to each; normalised inside.
        guide_embeddings: `[batch, guide_dim]`, of the questions by the guide, a model
            that is not trained: no gradient flows.
        other_guide_embeddings: `[batch, guide_dim]`, of the answers by the guide.
        margin: in units of the cosine; the larger, the more negatives are dropped. The
            paper has none, sentence-transformers calls it absolute.
        temperature: `t`; sentence-transformers has 0.01.
        within: whether questions are also contrasted with questions, and answers with
            answers. Static.
        reduction: of `Terms`, whose terms are rows; active are those to which a
            negative that was kept is at least as similar as their partner.
        **options: see `AlignedOptions`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.eye(2), jnp.array([[1.0, 0.0], [0.6, 0.8]])
        >>> round(float(gist(x, y, x, y, temperature=1.0)), 4)
        0.998
        >>> strict = gist(x, y, x, y, temperature=1.0, margin=0.5)
        >>> round(float(strict), 4)
        0.4772

    References:
        Solatorio, "GISTEmbed: Guided In-sample Selection of Training Negatives for Text
        Embedding Fine-tuning", 2024, arXiv:2402.16829.
    """
    sides = (embeddings, other_embeddings, guide_embeddings, other_guide_embeddings)
    step = Partial(_gist_step, temperature=temperature, margin=margin)
    row = rows.Fold(step, _infonce.info_nce_terms)
    return _apply(row, *sides, within=within, reduction=reduction, **options)


def _apply(
    row: rows.Fold,
    embeddings: ArrayLike,
    other_embeddings: ArrayLike,
    guide_embeddings: ArrayLike,
    other_guide_embeddings: ArrayLike,
    *,
    within: bool,
    reduction: Reduction | None,
    labels: ArrayLike | None = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    block_size: int | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    ring: bool = False,
) -> Any:
    """A row loss over the batch of both sets by both models, side by side."""
    x, items = _infonce.side(embeddings, labels, where, axis_name)
    _infonce.check_other("other_embeddings", other_embeddings, x.shape)
    _checks.check_embeddings("guide_embeddings", guide_embeddings)
    guide_dim = jnp.shape(guide_embeddings)[1]
    shape = (x.shape[0], guide_dim)
    _infonce.check_other("guide_embeddings", guide_embeddings, shape)
    _infonce.check_other("other_guide_embeddings", other_guide_embeddings, shape)
    y, *guides = (
        numerics.l2_normalize(numerics.mask_rows(side, where))
        for side in (other_embeddings, guide_embeddings, other_guide_embeddings)
    )
    guide_x, guide_y = jax.lax.stop_gradient(guides)
    partners = (jnp.sum(x * y, axis=1), jnp.sum(guide_x * guide_y, axis=1))
    return rows.apply(
        row,
        jnp.concatenate((x, y, guide_x, guide_y), axis=1),
        items.labels,
        measure=Partial(_six_rows, dim=x.shape[1], guide_dim=guide_dim, within=within),
        reduction=reduction,
        per_anchor=(*partners, items.where),
        where=items.where,
        weights=weights,
        block_size=block_size,
        axis_name=axis_name,
        ring=ring,
    )


def _six_rows(a: Array, b: Array, *, dim: int, guide_dim: int, within: bool) -> Rows:
    """Cosines by the model and by the guide: across the sets, and within each."""
    ends = [dim, 2 * dim, 2 * dim + guide_dim]
    x, y, guide_x, guide_y = jnp.split(a, ends, axis=1)
    all_x, all_y, all_guide_x, all_guide_y = jnp.split(b, ends, axis=1)
    across = [(x, all_y), (guide_x, all_guide_y)]
    inside = [(x, all_x), (y, all_y), (guide_x, all_guide_x), (guide_y, all_guide_y)]
    if within:
        own, guided = (across[0], *inside[:2]), (across[1], *inside[2:])
    else:
        own, guided = across[:1], across[1:]
    return (
        tuple(similarities.dot(*sides) for sides in own),
        tuple(similarities.dot(*sides) for sides in guided),
    )


def _gist_step(
    rows: Rows,
    positive: Array,
    negative: Array,
    anchor: tuple[Array, Array, Array],
    *,
    temperature: ArrayLike,
    margin: ArrayLike,
) -> tuple[_running.Exponentials, Array]:
    del positive
    partner, guide_partner = (x[:, None] for x in anchor[:2])
    limit = guide_partner - margin
    kept = jnp.concatenate([negative & (guide <= limit) for guide in rows[1]], axis=1)
    cosine = jnp.concatenate(rows[0], axis=1)
    gap = (cosine - partner) / temperature
    return _running.exponentials(gap, kept), _infonce.is_wrong(cosine, kept, partner)
