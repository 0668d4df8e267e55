"""Galleries on disk: a checked folder of plain arrays, no pickle."""

import json
import os
from functools import partial
from pathlib import Path

import numpy as np

from metricjax import _sealed
from metricjax.gallery._templates import Gallery

ARRAYS, NAMES = "gallery.npz", "names.json"


def save(folder: str | os.PathLike[str], gallery: Gallery) -> None:
    """Write a gallery, whole or not at all.

    Args:
        folder: a path that does not exist, an empty folder, or a gallery, which is
            replaced in one step.
        gallery: what to write.

    Raises:
        ValueError: if the folder holds something else; nothing is changed then.
        OSError: if it cannot be written; what was there before is still there.

    Example:
        >>> import tempfile
        >>> from metricjax.gallery import enroll
        >>> folder = tempfile.mkdtemp()
        >>> save(folder, enroll([[1.0, 0.0]], ["ann"], encoder="1f0c"))
        >>> load(folder, encoder="1f0c").names
        ('ann',)
    """
    content = {"encoder": gallery.encoder}
    _sealed.write(folder, kind="gallery", content=content, files=files(gallery))


def load(folder: str | os.PathLike[str], *, encoder: str | None = None) -> Gallery:
    """Read a gallery that is as it was written.

    Args:
        folder: that `save` wrote.
        encoder: fingerprint of the encoder that it will be used with; not checked if
            None.

    Returns:
        The gallery.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if a file was changed or cut short, or the gallery was written by a
            newer version or made by another encoder.
    """
    sealed = _sealed.read(folder, kind="gallery")
    gallery = from_files(sealed, sealed.content["encoder"])
    if encoder is not None:
        check_encoder(gallery, encoder, folder)
    return gallery


def files(gallery: Gallery) -> dict[str, _sealed.Write]:
    """What writes each file of a gallery, for a folder that holds more besides."""
    arrays = {
        "embeddings": gallery.embeddings,
        "labels": gallery.labels,
        "weights": gallery.weights,
    }
    # Escaped to ASCII, so that names that are no valid Unicode come back as they were.
    names = json.dumps(gallery.names).encode()
    return {
        ARRAYS: partial(np.savez, allow_pickle=False, **arrays),
        NAMES: lambda file: file.write(names),
    }


def from_files(sealed: _sealed.Sealed, encoder: str) -> Gallery:
    """The gallery in a checked folder."""
    names: list[str] = json.loads(Path(sealed.files[NAMES]).read_text())
    with np.load(sealed.files[ARRAYS], allow_pickle=False) as arrays:
        return Gallery(
            arrays["embeddings"],
            arrays["labels"],
            arrays["weights"],
            tuple(names),
            encoder,
        )


def check_encoder(gallery: Gallery, encoder: str, source: object) -> None:
    """Raise if the gallery was made by another encoder."""
    if gallery.encoder != encoder:
        raise ValueError(
            f"Expected a gallery made by the encoder {encoder[:12]} in {source}, got "
            f"one made by {gallery.encoder[:12] or 'an unknown one'}; embeddings of "
            "two encoders cannot be compared: enroll the images again."
        )
