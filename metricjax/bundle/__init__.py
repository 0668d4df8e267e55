"""A trained encoder with all that is needed to use it, in one folder.

    bundle = metricjax.bundle
    ready = bundle.from_run("runs/arcface")        # or `bundle.make` from parameters
    bundle.save("faces", ready)

    ready = bundle.load("faces")
    embed = bundle.embedder(ready)
    embeddings = embed(images)                     # uint8 [n, height, width, channels]

A bundle holds weights, architecture, image size, calibration, gallery and versions,
with checksums; using it needs neither the run nor the data that it was trained on. The
command `metricjax` works on bundles.
"""

from metricjax.bundle._bundle import Bundle, embedder, fingerprint, make
from metricjax.bundle._export import export, save_onnx, save_safetensors
from metricjax.bundle._files import load, save
from metricjax.bundle._images import Embedded, embed_files, read_image
from metricjax.bundle._runs import from_run, save_in_run
from metricjax.data.image_files import Files, find_identities, find_images

__all__ = [
    "Bundle",
    "Embedded",
    "Files",
    "embed_files",
    "embedder",
    "export",
    "find_identities",
    "find_images",
    "fingerprint",
    "from_run",
    "load",
    "make",
    "read_image",
    "save",
    "save_in_run",
    "save_onnx",
    "save_safetensors",
]
