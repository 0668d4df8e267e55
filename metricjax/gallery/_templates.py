"""The gallery itself: templates of identities, added and removed at will."""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from metricjax import _checks


class Gallery(NamedTuple):
    """Templates of identities; NumPy arrays on the host.

    Attributes:
        embeddings: `[rows, dim]` float32, unit vectors, one row for each template.
        labels: `[rows]` int32, the identity of each row.
        weights: `[rows]` float32: 1 for a template of one image, and for a mean the
            length of the sum of unit vectors that it stands for.
        names: the name of each identity, in the order in which they were enrolled.
        encoder: fingerprint of the encoder that made the embeddings, "" if unknown.
    """

    embeddings: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    names: tuple[str, ...]
    encoder: str


def enroll(
    embeddings: ArrayLike, names: Sequence[str], *, encoder: str = ""
) -> Gallery:
    """A gallery of these items, each a template of its own.

    Rows are scaled to unit length, since galleries compare by cosine similarity.

    Args:
        embeddings: `[rows, dim]`, finite and not zero.
        names: the identity of each row. Equal names are one identity, whichever way
            their accents are encoded.
        encoder: fingerprint of the encoder; see `metricjax.bundle.fingerprint`.

    Returns:
        The gallery.

    Raises:
        ValueError: if shapes disagree, a name is empty, or a row is zero or not finite.
        TypeError: if the embeddings are not floating, or a name is not a string.

    Example:
        >>> people = enroll([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]], ["ann", "bob", "ann"])
        >>> people.names, people.labels.tolist()
        (('ann', 'bob'), [0, 1, 0])
        >>> people.embeddings[1].tolist()
        [0.0, 1.0]
    """
    _checks.check_embeddings("embeddings", np.asarray(embeddings))
    empty = Gallery(
        np.zeros((0, np.shape(embeddings)[1]), np.float32),
        np.zeros(0, np.int32),
        np.zeros(0, np.float32),
        (),
        encoder,
    )
    return add(empty, embeddings, names)


def add(gallery: Gallery, embeddings: ArrayLike, names: Sequence[str]) -> Gallery:
    """The gallery with more templates, of new identities or of known ones.

    Args:
        gallery: it is left as it is.
        embeddings: `[rows, dim]`, by the same encoder, finite and not zero.
        names: the identity of each row.

    Returns:
        The new gallery.

    Raises:
        ValueError: if shapes disagree, a name is empty, or a row is zero or not finite.
        TypeError: if the embeddings are not floating, or a name is not a string.

    Example:
        >>> people = enroll([[1.0, 0.0]], ["ann"])
        >>> people = add(people, [[0.0, 1.0], [0.6, 0.8]], ["bob", "ann"])
        >>> people.names, people.labels.tolist()
        (('ann', 'bob'), [0, 1, 0])
    """
    rows = unit_rows("embeddings", embeddings)
    check_dim(gallery, rows)
    if len(names) != len(rows):
        raise ValueError(
            f"Expected one name for each of the {len(rows)} embeddings, got "
            f"{len(names)}."
        )
    places = {name: label for label, name in enumerate(gallery.names)}
    labels = [places.setdefault(_name(name), len(places)) for name in names]
    return Gallery(
        np.concatenate([gallery.embeddings, rows]),
        np.concatenate([gallery.labels, np.array(labels, np.int32)]),
        np.concatenate([gallery.weights, np.ones(len(rows), np.float32)]),
        tuple(places),
        gallery.encoder,
    )


def remove(gallery: Gallery, names: Sequence[str]) -> Gallery:
    """The gallery without some identities.

    Args:
        gallery: it is left as it is.
        names: the identities to leave out.

    Returns:
        The new gallery; it may be empty.

    Raises:
        ValueError: if an identity is not in the gallery.

    Example:
        >>> people = enroll([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]], ["ann", "bob", "ann"])
        >>> people = remove(people, ["ann"])
        >>> people.names, people.embeddings.tolist()
        (('bob',), [[0.0, 1.0]])
    """
    leaving = {_name(name) for name in names}
    unknown = sorted(leaving - set(gallery.names))
    if unknown:
        raise ValueError(
            f"Expected names of the gallery, got {unknown[0]!r}, which is not one of "
            f"its {len(gallery.names)}; the comparison minds upper and lower case."
        )
    stays = np.array([name not in leaving for name in gallery.names], bool)
    kept = stays[gallery.labels]
    new_labels = np.cumsum(stays, dtype=np.int32) - 1
    return Gallery(
        gallery.embeddings[kept],
        new_labels[gallery.labels[kept]],
        gallery.weights[kept],
        tuple(n for n, stay in zip(gallery.names, stays, strict=True) if stay),
        gallery.encoder,
    )


def means(gallery: Gallery) -> Gallery:
    """The gallery with one template for each identity: the direction of the mean.

    Smaller and faster to search, and steadier where images are many and alike; several
    templates serve better where an identity has several looks. Calibration compares
    single images, so that against means its rates hold only roughly. More images can be
    added: a mean counts as the images that it stands for, so that
    `means(add(means(g), x, n))` is `means(add(g, x, n))`.

    Args:
        gallery: it is left as it is.

    Returns:
        The new gallery, rows in the order of `names`.

    Raises:
        ValueError: if the templates of an identity cancel out.

    Example:
        >>> x = [[3.0, 4.0], [0.0, 2.0], [3.0, -4.0]]
        >>> people = means(enroll(x, ["ann", "bob", "ann"]))
        >>> people.labels.tolist(), people.embeddings.round(4).tolist()
        ([0, 1], [[1.0, 0.0], [0.0, 1.0]])
    """
    sums = np.zeros((len(gallery.names), gallery.embeddings.shape[1]))
    np.add.at(sums, gallery.labels, gallery.weights[:, None] * gallery.embeddings)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    images = np.zeros(len(gallery.names))
    np.add.at(images, gallery.labels, gallery.weights)
    opposed = np.flatnonzero(lengths[:, 0] <= 1e-6 * images)
    if opposed.size:
        raise ValueError(
            f"Expected templates of {gallery.names[opposed[0]]!r} that point one way, "
            "got some that cancel out; keep them apart instead of taking their mean."
        )
    return Gallery(
        (sums / lengths).astype(np.float32),
        np.arange(len(gallery.names), dtype=np.int32),
        lengths[:, 0].astype(np.float32),
        gallery.names,
        gallery.encoder,
    )


def unit_rows(name: str, embeddings: ArrayLike) -> np.ndarray:
    """`embeddings` as unit vectors in float32, or an error that says which are not."""
    rows = np.asarray(embeddings)
    _checks.check_embeddings(name, rows)
    rows = rows.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if bad.size:
        raise ValueError(
            f"Expected finite `{name}`, got NaN or infinity in {_rows(bad, rows)}; "
            "check the images and whether training diverged."
        )
    peaks = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    bad = np.flatnonzero(peaks[:, 0] == 0)
    if bad.size:
        raise ValueError(
            f"Expected `{name}` that have a direction, got zeros in {_rows(bad, rows)};"
            " a cosine with them means nothing."
        )
    # Divided by the largest value first, so that no square overflows or vanishes.
    rows = rows / peaks
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _rows(bad: np.ndarray, rows: np.ndarray) -> str:
    shown = ", ".join(str(row) for row in bad[:5])
    return f"row {shown}{', ...' if bad.size > 5 else ''} of {len(rows)}"


def check_dim(gallery: Gallery, rows: np.ndarray) -> None:
    """Raise unless rows are of the gallery's dimension."""
    dim = gallery.embeddings.shape[1]
    if rows.shape[1] != dim:
        raise ValueError(
            f"Expected embeddings of dimension {dim}, as in the gallery, got "
            f"{rows.shape[1]}; they are from another encoder: enroll again."
        )


def _name(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"Expected the name of an identity as a string, got {name!r}.")
    name = unicodedata.normalize("NFC", name)
    if not name.strip():
        raise ValueError(f"Expected the name of an identity, got {name!r}.")
    return name
