"""Clustering: does k-means find the classes again? On the host, by scikit-learn.

NMI grows with the number of clusters, however poor they are; AMI and ARI are corrected
for chance and are the ones to compare.

References:
    Vinh, Epps & Bailey, "Information Theoretic Measures for Clusterings Comparison",
    JMLR 2010 (NMI, AMI). Hubert & Arabie, "Comparing Partitions", Journal of
    Classification 1985 (ARI).
"""

from types import ModuleType
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from metricjax import _checks, numerics

__all__ = ["Clustering", "agreement", "evaluate", "kmeans"]


class Clustering(NamedTuple):
    """Agreement of clusters and classes; 1 if they are the same partition."""

    nmi: float  # normalised mutual information, 2 I / (H + H'), in [0, 1]
    ami: float  # adjusted for chance: 0 expected at random
    ari: float  # adjusted Rand index: 0 expected at random


def evaluate(
    embeddings: ArrayLike, labels: ArrayLike, *, seed: int, restarts: int = 10
) -> Clustering:
    """Cluster unit vectors into as many clusters as there are classes, and compare.

    Args:
        embeddings: `[batch, dim]`; normalised inside.
        labels: `[batch]` int; items with a negative label are left out.
        seed: of k-means.
        restarts: the best of so many runs is taken.

    Returns:
        A `Clustering`.

    Raises:
        ValueError: if shapes disagree or no item is left.
        TypeError: if a dtype is wrong.

    Example:
        >>> x = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
        >>> evaluate(x, np.repeat([5, 7, 9], 4), seed=0).ami
        1.0
    """
    _checks.check_embeddings("embeddings", embeddings)
    _checks.check_labels("labels", labels, np.shape(embeddings)[0])
    labels = np.asarray(labels)
    known = labels >= 0
    if not known.any():
        raise ValueError("Expected labelled items, got none; labels count from 0.")
    x = np.asarray(numerics.l2_normalize(embeddings))[known]
    classes = len(np.unique(labels[known]))
    clusters = kmeans(x, clusters=classes, seed=seed, restarts=restarts)
    return agreement(clusters, labels[known])


def kmeans(
    embeddings: ArrayLike, *, clusters: int, seed: int, restarts: int = 10
) -> np.ndarray:
    """Clusters by Lloyd's algorithm with k-means++ starts.

    Args:
        embeddings: `[batch, dim]`, as they are; not normalised.
        clusters: how many.
        seed: of the starts.
        restarts: the best of so many runs is taken.

    Returns:
        `[batch]` int32, the cluster of each item.

    Raises:
        ValueError: if there are fewer items than clusters.
        ImportError: if scikit-learn is not installed.

    Example:
        >>> kmeans(np.array([[0.0], [0.1], [9.0]]), clusters=2, seed=0).shape
        (3,)

    References:
        Arthur & Vassilvitskii, "k-means++: The Advantages of Careful Seeding", SODA
        2007.
    """
    _checks.check_embeddings("embeddings", embeddings)
    _checks.check_positive_int("clusters", clusters, "one for each class is usual")
    x = np.asarray(embeddings)
    if len(x) < clusters:
        raise ValueError(
            f"Expected at least {clusters} items for {clusters} clusters, got {len(x)}."
        )
    model = _sklearn("cluster").KMeans(
        clusters, n_init=restarts, random_state=seed, copy_x=True
    )
    return model.fit_predict(x)


def agreement(clusters: ArrayLike, labels: ArrayLike) -> Clustering:
    """NMI, AMI and ARI of two partitions.

    Args:
        clusters: `[batch]` int.
        labels: `[batch]` int.

    Returns:
        A `Clustering`; entropies are averaged arithmetically.

    Raises:
        ValueError: if shapes disagree.
        TypeError: if a dtype is wrong.
        ImportError: if scikit-learn is not installed.

    Example:
        >>> agreement(np.array([1, 1, 0]), np.array([4, 4, 7]))
        Clustering(nmi=1.0, ami=1.0, ari=1.0)
    """
    clusters, labels = np.asarray(clusters), np.asarray(labels)
    _checks.check_labels("clusters", clusters, clusters.size)
    _checks.check_labels("labels", labels, clusters.size)
    metrics = _sklearn("metrics")
    return Clustering(
        nmi=float(metrics.normalized_mutual_info_score(labels, clusters)),
        ami=float(metrics.adjusted_mutual_info_score(labels, clusters)),
        ari=float(metrics.adjusted_rand_score(labels, clusters)),
    )


def _sklearn(name: str) -> ModuleType:
    # Here and not above: it takes a second, and is not among the core's dependencies.
    try:
        import sklearn.cluster
        import sklearn.metrics
    except ImportError as error:
        raise ImportError(
            "Expected scikit-learn, got none; "
            'install it with: pip install "metricjax[train]"'
        ) from error
    return getattr(sklearn, name)
