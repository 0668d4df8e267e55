"""Commands that make and change bundles."""

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from metricjax import bundle as bundles
from metricjax import gallery as galleries
from metricjax.bundle import Bundle, Embedded, Files
from metricjax.cli._output import (
    BundleFolder,
    Folder,
    Json,
    check_all_good,
    note,
    percent,
    print_json,
    progress,
    say,
)
from metricjax.gallery import Calibration, Gallery


def bundle(run: Folder, out: Folder, *, split: int = 0) -> int:
    """Make a bundle from a finished training run.

    Args:
        run: folder of the run, as train.py leaves it.
        out: folder of the new bundle.
        split: which split of the run.
    """
    made = bundles.from_run(run, split=split)
    bundles.save(out, made)
    say(f"{out}: an encoder of images {_by(made.image_shape)}. Now calibrate it.")
    return 0


def calibrate(
    bundle: BundleFolder,
    images: Folder,
    *,
    far: float,
    confidence: float = 0.95,
    isotonic: bool = False,
    skip_bad: bool = False,
    as_json: Json = False,
) -> int:
    """Choose the threshold at a false accept rate.

    Args:
        bundle: folder of the bundle; the result is stored there.
        images: folder of identities that neither trained the encoder nor test it.
        far: false accept rate: the share of pairs of two identities that may pass.
        confidence: level of the interval of that rate.
        isotonic: fit probabilities by isotonic regression instead of a sigmoid.
        skip_bad: go on without images that cannot be used.
        as_json: print JSON.
    """
    ready = bundles.load(bundle)
    found = embed_identities(ready, images, skip_bad=skip_bad)
    check_unseen(found.names, ready.trained_on, "trained on")
    names, labels = np.unique(np.array(found.names), return_inverse=True)
    result = galleries.calibrate(
        found.embeddings,
        labels,
        far=far,
        confidence=confidence,
        fit=galleries.isotonic if isotonic else galleries.platt,
    )
    seen = tuple(str(name) for name in names)
    bundles.save(bundle, ready._replace(calibration=result, calibrated_on=seen))
    show_calibration(result, json=as_json)
    return 0


def enroll(
    bundle: BundleFolder,
    images: Folder,
    *,
    name: str | None = None,
    mean: bool = False,
    gallery: Path | None = None,
    skip_bad: bool = False,
    as_json: Json = False,
) -> int:
    """Add identities to the gallery, or images to identities that are there.

    Args:
        bundle: folder of the bundle.
        images: folder with one sub-folder for each identity; with --name an image, or
            a folder of images.
        name: the identity of all the images.
        mean: keep one template for each identity, the mean, instead of all.
        gallery: folder of a gallery of its own, instead of the one in the bundle.
        skip_bad: go on without images that cannot be used.
        as_json: print JSON.
    """
    ready = bundles.load(bundle)
    mark = bundles.fingerprint(ready)
    if name is None:
        files = bundles.find_identities(images)
    else:
        files = bundles.find_images(images)
        files = files._replace(names=(name,) * len(files.paths))
    found = embed(ready, files, skip_bad=skip_bad)
    before = open_gallery(ready, mark, gallery)
    if before is None:
        after = galleries.enroll(found.embeddings, found.names, encoder=mark)
    else:
        after = galleries.add(before, found.embeddings, found.names)
    after = galleries.means(after) if mean else after
    _store(bundle, ready, after, gallery)
    _report(before, after, len(found.paths), json=as_json)
    return 0


def remove(
    bundle: BundleFolder,
    names: Annotated[tuple[str, ...], tyro.conf.Positional],
    *,
    gallery: Path | None = None,
    as_json: Json = False,
) -> int:
    """Take identities out of the gallery.

    Args:
        bundle: folder of the bundle.
        names: of the identities.
        gallery: folder of a gallery of its own, instead of the one in the bundle.
        as_json: print JSON.
    """
    ready = bundles.load(bundle)
    before = need_gallery(ready, bundles.fingerprint(ready), gallery)
    after = galleries.remove(before, names)
    _store(bundle, ready, after, gallery)
    _report(before, after, 0, json=as_json)
    return 0


def show(bundle: BundleFolder, *, as_json: Json = False) -> int:
    """Check a bundle and say what is in it.

    Args:
        bundle: folder of the bundle.
        as_json: print JSON.
    """
    ready = bundles.load(bundle)
    people = ready.gallery
    about = {
        "encoder": bundles.fingerprint(ready),
        "architecture": dict(ready.architecture),
        "image_shape": list(ready.image_shape),
        "trained_on": len(ready.trained_on),
        "calibration": calibration_json(ready.calibration),
        "identities": 0 if people is None else len(people.names),
        "templates": 0 if people is None else len(people.embeddings),
    }
    if as_json:
        print_json(about)
        return 0
    kind = ready.architecture.get("encoder") or ready.architecture.get("recipe")
    say(f"encoder      {kind}, fingerprint {about['encoder'][:12]}")
    say(f"images       {_by(ready.image_shape)}")
    say(f"trained on   {about['trained_on']} identities")
    say(
        f"gallery      {about['identities']} identities, {about['templates']} templates"
    )
    if ready.calibration is None:
        say("calibration  none")
    else:
        show_calibration(ready.calibration, json=False)
    return 0


def export(
    bundle: BundleFolder,
    out: Folder,
    *,
    platforms: tuple[str, ...] = ("cpu", "cuda", "tpu"),
) -> int:
    """Write the encoder for use without this library.

    Args:
        bundle: folder of the bundle.
        out: the file. What it becomes is told by its suffix: .stablehlo, a program
            with its weights for jax.export.deserialize; .mlir, the same as plain
            StableHLO bytecode; .onnx, an ONNX model; .safetensors, the weights alone.
        platforms: where the program is to run.
    """
    ready = bundles.load(bundle)
    writers = {
        ".stablehlo": lambda path: path.write_bytes(
            bundles.export(ready, platforms=platforms).serialize()
        ),
        ".mlir": lambda path: path.write_bytes(
            bundles.export(ready, platforms=platforms).mlir_module_serialized
        ),
        ".onnx": lambda path: bundles.save_onnx(path, ready),
        ".safetensors": lambda path: bundles.save_safetensors(path, ready),
    }
    if out.suffix not in writers:
        raise ValueError(
            f"Expected a file that ends in {', '.join(writers)}, got {out}."
        )
    part = out.with_name(f".metricjax-{secrets.token_hex(8)}{out.suffix}")
    try:
        writers[out.suffix](part)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    say(f"{out}: {os.path.getsize(out)} bytes")
    return 0


def embed_identities(ready: Bundle, folder: Path, *, skip_bad: bool) -> Embedded:
    """Embeddings of a folder of identities."""
    return embed(ready, bundles.find_identities(folder), skip_bad=skip_bad)


def embed(ready: Bundle, files: Files, *, skip_bad: bool) -> Embedded:
    """Embeddings of files, all of them good unless that is waived."""
    with progress("Embedding", len(files.paths)) as advance:
        found = bundles.embed_files(ready, files, advance=advance)
    check_all_good(found.problems, skip_bad=skip_bad)
    if files.ignored:
        note(f"{len(files.ignored)} files that are no images were passed over.")
    if not found.paths:
        raise ValueError("Expected a usable image, got none.")
    return found


def check_unseen(
    names: Sequence[str], seen: Sequence[str], how: str, *, also: str = ""
) -> None:
    """Raise if an identity has been used for something else before."""
    both = sorted(set(names) & set(seen))
    if both:
        raise ValueError(
            f"Expected identities that the encoder was not {how}, got {len(both)} that "
            f"it was ({both[0]!r} is one): they look better than new ones do. Take "
            f"others{f', or leave them out by {also}' if also else ''}; if only the "
            "names agree, rename the folders."
        )


def open_gallery(ready: Bundle, mark: str, folder: Path | None) -> Gallery | None:
    """The gallery of a bundle, or the one in a folder if there is any."""
    if folder is None:
        return ready.gallery
    if not folder.exists():
        return None
    return galleries.load(folder, encoder=mark)


def need_gallery(ready: Bundle, mark: str, folder: Path | None) -> Gallery:
    """The same, but there has to be one."""
    found = open_gallery(ready, mark, folder)
    if found is None or not found.names:
        raise ValueError(
            "Expected identities in the gallery, got none; metricjax enroll adds some."
        )
    return found


def need_calibration(ready: Bundle) -> Calibration:
    """The calibration of a bundle, which has to be there."""
    if ready.calibration is None:
        raise ValueError(
            "Expected a bundle with a threshold, got one without; metricjax calibrate "
            "finds it on identities that neither trained nor test."
        )
    return ready.calibration


def _store(folder: Path, ready: Bundle, people: Gallery, place: Path | None) -> None:
    if place is None:
        bundles.save(folder, ready._replace(gallery=people))
    else:
        galleries.save(place, people)


def _report(before: Gallery | None, after: Gallery, images: int, *, json: bool) -> None:
    known = len(before.names) if before is not None else 0
    about = {
        "images": images,
        "added": len(after.names) - known,
        "identities": len(after.names),
        "templates": len(after.embeddings),
    }
    if json:
        print_json(about)
    else:
        say(
            f"{images} images, {about['added']:+d} identities. The gallery has "
            f"{about['identities']} identities and {about['templates']} templates."
        )


def calibration_json(result: Calibration | None) -> dict | None:
    """A calibration without its curves."""
    if result is None:
        return None
    curves = ("log_odds", "fars", "thresholds")
    return {key: v for key, v in result._asdict().items() if key not in curves}


def show_calibration(result: Calibration, *, json: bool) -> None:
    """Print what a calibration found."""
    if json:
        print_json(calibration_json(result) or {})
        return
    low, high = result.far_interval
    say(f"threshold    {result.threshold:.4f}, for a FAR of {percent(result.far)}")
    say(
        f"measured     FAR {percent(result.observed_far)} "
        f"({percent(result.confidence)} interval {percent(low)} to {percent(high)}), "
        f"TAR {percent(result.tar)}"
    )
    say(
        f"on           {result.identities} identities, {result.genuine} genuine and "
        f"{result.impostors} impostor pairs"
    )


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
