"""Proxy losses: learned vectors stand for each class in the place of examples."""

from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from metricjax import _checks, numerics, reductions, rows, similarities
from metricjax.losses._classification import (
    ClassOptions,
    SoftmaxOptions,
    margin_softmax,
)
from metricjax.losses._regularizers import sparse_centers
from metricjax.reductions import Reduction, Terms


def proxy_nca(
    embeddings: ArrayLike,
    proxies: ArrayLike,
    labels: ArrayLike,
    *,
    temperature: ArrayLike = 1 / 9,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[ClassOptions],
) -> Any:
    """Proxy-NCA: an example is nearer to its proxy than to the others.

    `-log(exp(-d_y / t) / sum_{z != y} exp(-d_z / t))`, where `d` is the squared
    Euclidean distance of unit vectors. The true proxy is not in the denominator, so
    that the loss can be negative and pulls without end; `proxy_nca_pp` has it there,
    as has the loss that pytorch-metric-learning calls ProxyNCALoss.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        proxies: `[classes, dim]`; rows normalised inside. Draw them with
            `heads.init_class_weights`; give them a larger learning rate than the rest.
        labels: int `[batch]` in [0, classes). Another value is no class: its example
            costs nothing and is not counted.
        temperature: `t`. The paper leaves the length of the vectors open; 1/9, vectors
            of length 3, is that of the public code and of Proxy-NCA++.
        reduction: of `Terms`, whose terms are examples; active are those with another
            proxy at least as near as their own.
        **options: see `ClassOptions`.

    Returns:
        A scalar, or what `reduction` returns; 0 if there is one class only.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, p, y = jnp.array([[1.0, 0.5]]), jnp.eye(2), jnp.array([0])
        >>> round(float(proxy_nca(x, p, y, temperature=1.0)), 4)
        -0.8944

    References:
        Movshovitz-Attias et al., "No Fuss Distance Metric Learning using Proxies", ICCV
        2017, arXiv:1703.07464.
    """
    _check_proxies(embeddings, proxies)
    return _against_classes(
        Partial(_proxy_nca_row, temperature=temperature),
        embeddings,
        jnp.asarray(proxies),
        labels,
        reduction,
        options,
    )


def proxy_nca_pp(
    embeddings: ArrayLike,
    proxies: ArrayLike,
    labels: ArrayLike,
    *,
    temperature: ArrayLike = 1 / 9,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[SoftmaxOptions],
) -> Any:
    """Proxy-NCA++: Proxy-NCA as a probability, with all proxies in the denominator.

    `-log(exp(-d_y / t) / sum_z exp(-d_z / t))`, where `d` is the squared Euclidean
    distance of unit vectors. Since `d = 2 - 2 c`, it is `normface` of scale `2 / t`.
    The paper's other changes are outside of the loss: pooling by the maximum, layer
    normalisation, proxies that learn faster.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        proxies: `[classes, dim]`; rows normalised inside. Draw them with
            `heads.init_class_weights`.
        labels: int `[batch]`; see `proxy_nca`.
        temperature: `t`.
        reduction: of `Terms`, whose terms are examples; active are those with another
            proxy at least as near as their own.
        **options: see `SoftmaxOptions`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, p, y = jnp.array([[1.0, 0.5]]), jnp.eye(2), jnp.array([0])
        >>> round(float(proxy_nca_pp(x, p, y, temperature=1.0)), 4)
        0.3428

    References:
        Teh et al., "ProxyNCA++: Revisiting and Revitalizing Proxy Neighborhood
        Component Analysis", ECCV 2020, arXiv:2004.01113.
    """
    _check_proxies(embeddings, proxies)
    return margin_softmax(
        embeddings,
        proxies,
        labels,
        margin=numerics.promote,
        scale=jnp.divide(2.0, temperature),
        reduction=reduction,
        **options,
    )


def proxy_anchor(
    embeddings: ArrayLike,
    proxies: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 0.1,
    scale: ArrayLike = 32.0,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[ClassOptions],
) -> Any:
    """Proxy-Anchor: each proxy is an anchor, the examples its candidates.

    `1/|P+| sum_p log(1 + sum_{y = p} exp(-a (c - m))) + 1/|P| sum_p log(1 + sum_{y !=
    p} exp(a (c + m)))`, where `c` is the cosine of proxy and example, `P+` are the
    classes present in the batch and `P` all classes. Harder examples get more of the
    gradient. Memory is a block of proxies times the batch.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        proxies: `[classes, dim]`; rows normalised inside. `heads.init_class_weights`
            draws their directions as the authors do; their rows, `N(0, 2 / classes)`,
            differ in length alone, which divides the learning rate. That of the proxies
            is a hundred times that of the encoder in the paper.
        labels: int `[batch]` in [0, classes). Another value is no class: its example
            is no candidate.
        margin: `m`, in units of the cosine.
        scale: `a`.
        reduction: of `Terms`, whose rows are the proxies, not the examples, with two
            parts, positives and negatives, averaged apart and then added. Terms are the
            proxies, for the positives' part those present in the batch; active are
            those with a positive (a negative). `reductions.per_anchor` gives a value
            for each class.
        **options: see `ClassOptions`. An example of weight `w` counts as `w` examples,
            so that one of weight 0 is absent. `block_size` is of proxies. With
            `axis_name` each device takes its share of the proxies, and has their rows
            where the reduction keeps rows.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, p, y = jnp.array([[1.0, 0.5]]), jnp.eye(2), jnp.array([0])
        >>> round(float(proxy_anchor(x, p, y, scale=1.0)), 4)
        0.8747

    References:
        Kim et al., "Proxy Anchor Loss for Deep Metric Learning", CVPR 2020,
        arXiv:2003.13911, eq. 4.
    """
    _check_proxies(embeddings, proxies)
    row = Partial(_proxy_anchor_row, margin=margin, scale=scale)
    return _apply_to_proxies(
        row, embeddings, jnp.asarray(proxies), labels, reduction, **options
    )


def soft_triple(
    embeddings: ArrayLike,
    centers: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 0.01,
    scale: ArrayLike = 20.0,
    temperature: ArrayLike = 0.1,
    regularization: ArrayLike = 0.2,
    reduction: Reduction | None = reductions.mean,
    **options: Unpack[ClassOptions],
) -> Any:
    """SoftTriple: softmax over classes that have several centers each.

    `-log(exp(s (S_y - m)) / (exp(s (S_y - m)) + sum_{j != y} exp(s S_j))) + r R`, where
    `S_j = sum_k softmax_k(c_jk / t) c_jk` is the relaxed largest cosine to the centers
    of class j, and `R` (`sparse_centers`) merges centers that a class does not need.
    pytorch-metric-learning leaves `R` out.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        centers: `[classes, k, dim]`; normalised inside. The paper has 10 for each
            class: `heads.init_class_weights(key, classes, dim, subcenters=10)`.
        labels: int `[batch]`; see `proxy_nca`.
        margin: `m`, in units of the cosine.
        scale: `s`.
        temperature: `t`; towards 0 the nearest center alone counts.
        regularization: `r`. The regulariser is added to each example's term, so that
            its share does not depend on `reduction` or `weights`.
        reduction: of `Terms`, whose terms are examples; active are those for which
            another class has at least the logit of the true one.
        **options: see `ClassOptions`.

    Returns:
        A scalar, or what `reduction` returns.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.

    Example:
        >>> x, y = jnp.array([[1.0, 0.5]]), jnp.array([0])
        >>> centers = jnp.array([[[1.0, 0.0], [0.6, 0.8]], [[0.0, 1.0], [-1.0, 0.0]]])
        >>> round(float(soft_triple(x, centers, y, scale=5.0)), 4)
        0.2219

    References:
        Qian et al., "SoftTriple Loss: Deep Metric Learning Without Triplet Sampling",
        ICCV 2019, arXiv:1909.05235.
    """
    _checks.check_embeddings("embeddings", embeddings)
    penalty = regularization * sparse_centers(centers)
    _checks.check_same_dim("embeddings", embeddings, "centers", centers)
    centers = jnp.asarray(centers)
    row = Partial(
        _soft_triple_row,
        centers=centers.shape[1],
        margin=margin,
        scale=scale,
        temperature=temperature,
        penalty=penalty,
    )
    flat = centers.reshape(-1, centers.shape[2])
    return _against_classes(
        row, embeddings, flat, labels, reduction, options, centers=centers.shape[1]
    )


def _check_proxies(embeddings: ArrayLike, proxies: ArrayLike) -> None:
    _checks.check_embeddings("embeddings", embeddings)
    _checks.check_embeddings("proxies", proxies)
    _checks.check_same_dim("embeddings", embeddings, "proxies", proxies)


def _against_classes(
    row: Partial,
    embeddings: ArrayLike,
    vectors: Array,
    labels: ArrayLike,
    reduction: Reduction | None,
    options: ClassOptions,
    *,
    centers: int = 1,
) -> Any:
    """A row loss over the cosines to `vectors`, `centers` of them for each class."""
    classes = jnp.arange(vectors.shape[0]) // centers
    return rows.apply(
        row,
        embeddings,
        labels,
        measure=similarities.dot,
        prepare=numerics.l2_normalize,
        reduction=reduction,
        ref_embeddings=vectors,
        ref_labels=classes.astype(jnp.result_type(labels)),
        **options,
    )


def _proxy_nca_row(
    cosine: Array, positive: Array, negative: Array, *, temperature: ArrayLike
) -> Terms:
    # -d = 2 c - 2, and the constant cancels.
    logits = 2.0 * cosine / temperature
    known = jnp.any(positive, axis=1) & jnp.any(negative, axis=1)
    hit = jnp.sum(jnp.where(positive, logits, 0.0), axis=1)
    # A row without negatives gives log(0); its total is left out below.
    rest = jnp.where(known, numerics.logsumexp(logits, negative), 0.0)
    wrong = jnp.any(negative & (logits >= hit[:, None]), axis=1)
    return Terms(
        jnp.where(known, rest - hit, 0.0),
        known.astype(logits.dtype),
        (known & wrong).astype(logits.dtype),
    )


def _soft_triple_row(
    cosine: Array,
    positive: Array,
    negative: Array,
    *,
    centers: int,
    margin: ArrayLike,
    scale: ArrayLike,
    temperature: ArrayLike,
    penalty: ArrayLike,
) -> Terms:
    cosine = cosine.reshape(cosine.shape[0], -1, centers)
    share = jax.nn.softmax(cosine / temperature, axis=2)
    similarity = jnp.sum(share * cosine, axis=2)
    # All centers of a class have its label, so the first tells.
    positive, negative = positive[:, ::centers], negative[:, ::centers]
    known = jnp.any(positive, axis=1)
    logits = scale * jnp.where(positive, similarity - margin, similarity)
    hit = jnp.sum(jnp.where(positive, logits, 0.0), axis=1)
    cost = jax.nn.logsumexp(logits, axis=1) - hit + penalty
    wrong = jnp.any(negative & (logits >= hit[:, None]), axis=1)
    return Terms(
        jnp.where(known, cost, 0.0),
        known.astype(logits.dtype),
        (known & wrong).astype(logits.dtype),
    )


# --- proxies as anchors -------------------------------------------------------------


def _apply_to_proxies(
    row: Partial,
    embeddings: ArrayLike,
    proxies: Array,
    labels: ArrayLike,
    reduction: Reduction | None,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    block_size: int | None = None,
    axis_name: rows.Axis | None = None,
) -> Any:
    batch = _examples(embeddings, labels, proxies.shape[0], where, weights)
    if axis_name is not None:
        batch = jax.lax.all_gather(batch, axis_name, tiled=True)
    candidates, classes, usable, log_weights = batch
    anchors, index, real = _share(proxies, classes.dtype, axis_name)
    return rows.apply(
        row,
        anchors,
        index,
        measure=similarities.dot,
        prepare=numerics.l2_normalize,
        reduction=reduction,
        per_anchor=real.astype(log_weights.dtype),
        per_candidate=log_weights,
        where=real,
        ref_embeddings=candidates,
        ref_labels=classes,
        ref_where=usable,
        block_size=block_size,
        axis_name=axis_name,
    )


def _examples(
    embeddings: ArrayLike,
    labels: ArrayLike,
    classes: int,
    where: ArrayLike | None,
    weights: ArrayLike | None,
) -> tuple[Array, Array, Array, Array]:
    """Embeddings, labels, which of them count, and the logarithm of their weights."""
    x = numerics.promote(embeddings)
    _checks.check_labels("labels", labels, x.shape[0])
    labels = jnp.asarray(labels)
    usable = (labels >= 0) & (labels < classes)
    if where is not None:
        _checks.check_mask("where", where, labels.shape)
        usable = usable & jnp.asarray(where)
    if weights is None:
        return x, labels, usable, jnp.zeros(labels.shape, x.dtype)
    _checks.check_shape("weights", weights, labels.shape, "one weight for each example")
    weights = jax.lax.stop_gradient(numerics.promote(weights))
    usable = usable & (weights > 0)
    return x, labels, usable, jnp.log(jnp.where(usable, weights, 1.0))


def _share(
    proxies: Array, dtype: Any, axis_name: rows.Axis | None
) -> tuple[Array, Array, Array]:
    """This device's proxies, their classes, and which of them are not padding."""
    classes = proxies.shape[0]
    if axis_name is None:
        return proxies, jnp.arange(classes, dtype=dtype), jnp.ones(classes, bool)
    devices = jax.lax.axis_size(axis_name)
    size = -(-classes // devices)
    proxies = jnp.pad(proxies, ((0, size * devices - classes), (0, 0)))
    first = jax.lax.axis_index(axis_name) * size
    mine = jax.lax.dynamic_slice_in_dim(proxies, first, size)
    index = first + jnp.arange(size, dtype=jnp.int32)
    return mine, index.astype(dtype), index < classes


def _proxy_anchor_row(
    cosine: Array,
    positive: Array,
    negative: Array,
    real: Array,
    log_weights: Array,
    *,
    margin: ArrayLike,
    scale: ArrayLike,
) -> Terms:
    pull = scale * (margin - cosine) + log_weights[None, :]
    push = scale * (cosine + margin) + log_weights[None, :]
    near = numerics.softplus_sum(pull, positive)
    far = numerics.softplus_sum(push, negative)
    present, opposed = (
        jnp.any(mask, axis=1).astype(cosine.dtype) for mask in (positive, negative)
    )
    # Every class counts among the negatives, `real` says which rows are classes.
    parts = ((near, far), (present, real), (present, opposed))
    return Terms(*(jnp.stack(fields, axis=1) for fields in parts))
