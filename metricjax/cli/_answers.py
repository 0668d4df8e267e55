"""Commands that answer: are these the same, and who is this?"""

import csv
import itertools
from pathlib import Path
from typing import Annotated

import tyro

from metricjax import bundle as bundles
from metricjax import gallery as galleries
from metricjax.bundle import Bundle, Embedded, Files
from metricjax.cli._bundles import need_calibration, need_gallery
from metricjax.cli._output import (
    BundleFolder,
    Json,
    notes,
    percent,
    print_json,
    progress,
    say,
)

Images = Annotated[tuple[Path, ...], tyro.conf.Positional]
Pairs = list[tuple[Path, Path]]


def verify(
    bundle: BundleFolder,
    images: Images = (),
    *,
    pairs: Path | None = None,
    far: float | None = None,
    prior: float = 0.5,
    as_json: Json = False,
) -> int:
    """Are two images of the same identity?

    Args:
        bundle: folder of the bundle, calibrated.
        images: two images; of two folders, all images of the one with all of the other.
        pairs: a CSV file of two columns, paths relative to it, instead of the images.
        far: false accept rate to decide by, instead of the calibrated one.
        prior: how often a compared pair is of one identity; for the probability.
        as_json: print JSON, one object a line.
    """
    ready = bundles.load(bundle)
    calibration = need_calibration(ready)
    wanted = _read_pairs(pairs) if pairs is not None else _product(images)
    paths = tuple(dict.fromkeys(itertools.chain(*wanted)))
    found = _embed(ready, Files(paths, ("",) * len(paths)))
    rows = {path: row for row, path in enumerate(found.paths)}
    wanted = [pair for pair in wanted if pair[0] in rows and pair[1] in rows]
    if not wanted:
        raise ValueError(found.problems[0])
    left, right = ([rows[pair[side]] for pair in wanted] for side in (0, 1))
    answer = galleries.verify(
        found.embeddings[left],
        found.embeddings[right],
        calibration,
        far=far,
        prior=prior,
    )
    for i, (a, b) in enumerate(wanted):
        line = {
            "a": str(a),
            "b": str(b),
            "same": bool(answer.same[i]),
            "similarity": float(answer.similarities[i]),
            "probability": float(answer.probabilities[i]),
            "threshold": answer.threshold,
            "far": answer.far,
        }
        if as_json:
            print_json(line)
        else:
            _say_verified(line, alone=len(wanted) == 1)
    return _finish(found)


def _say_verified(line: dict, *, alone: bool) -> None:
    answer = "same" if line["same"] else "different"
    numbers = (
        f"(similarity {line['similarity']:.4f}, probability {line['probability']:.3f}; "
        f"threshold {line['threshold']:.4f}, FAR {percent(line['far'])})"
    )
    say(answer if alone else f"{line['a']}  {line['b']}  {answer}", numbers)


def identify(
    bundle: BundleFolder,
    images: Images,
    *,
    k: int = 3,
    fpir: float | None = None,
    prior_unknown: float = 0.5,
    gallery: Path | None = None,
    as_json: Json = False,
) -> int:
    """Who is on an image, or is it someone unknown?

    Args:
        bundle: folder of the bundle, calibrated.
        images: images, and folders of images.
        k: how many identities to name.
        fpir: decide such that at most this share of strangers is taken for someone; by
            default by the calibrated threshold of single comparisons.
        prior_unknown: how often an image is of a stranger; for the probabilities.
        gallery: folder of a gallery of its own, instead of the one in the bundle.
        as_json: print JSON, one object a line.
    """
    if not images:
        raise ValueError("Expected an image or a folder of images, got none.")
    ready = bundles.load(bundle)
    calibration = need_calibration(ready)
    people = need_gallery(ready, bundles.fingerprint(ready), gallery)
    files = [bundles.find_images(path) for path in images]
    paths = tuple(itertools.chain(*(f.paths for f in files)))
    problems = tuple(itertools.chain(*(f.problems for f in files)))
    found = _embed(ready, Files(paths, ("",) * len(paths), problems))
    if not found.paths:
        raise ValueError(found.problems[0])
    answer = galleries.identify(
        found.embeddings,
        people,
        calibration,
        k=k,
        fpir=fpir,
        prior_unknown=prior_unknown,
    )
    for i, path in enumerate(found.paths):
        line = _identified(answer, i, path)
        if as_json:
            print_json(line)
        else:
            _say_identified(line)
    if not as_json:
        say(
            f"threshold {answer.threshold:.4f}; of strangers at most "
            f"{percent(answer.fpir)} are taken for someone"
        )
    return _finish(found)


def _identified(answer: galleries.Identification, i: int, path: Path) -> dict:
    candidates = [
        {"name": name, "similarity": float(similarity), "probability": float(share)}
        for name, similarity, share in zip(
            answer.names[i],
            answer.similarities[i],
            answer.probabilities[i],
            strict=False,
        )
    ]
    return {
        "image": str(path),
        "known": bool(answer.known[i]),
        "name": answer.names[i][0] if answer.known[i] else None,
        "candidates": candidates,
        "probability_unknown": float(answer.unknown[i]),
        "threshold": answer.threshold,
        "fpir": answer.fpir,
    }


def _say_identified(line: dict) -> None:
    named = [
        f"{c['name']} (probability {c['probability']:.3f}, similarity "
        f"{c['similarity']:.4f})"
        for c in line["candidates"]
    ]
    if line["known"]:
        rest = f"; then {', '.join(named[1:])}" if named[1:] else ""
        say(f"{line['image']}  {named[0]}{rest}")
    else:
        unknown = f"unknown (probability {line['probability_unknown']:.3f})"
        say(f"{line['image']}  {unknown}; nearest {', '.join(named)}")


def _embed(ready: Bundle, files: Files) -> Embedded:
    with progress("Embedding", len(files.paths)) as advance:
        return bundles.embed_files(ready, files, advance=advance)


def _finish(found: Embedded) -> int:
    notes(found.problems)
    return 1 if found.problems else 0


def _product(images: tuple[Path, ...]) -> Pairs:
    if len(images) != 2:
        raise ValueError(
            f"Expected two images, two folders or --pairs, got {len(images)} paths."
        )
    left, right = (bundles.find_images(path) for path in images)
    problems = (*left.problems, *right.problems)
    if problems:
        raise ValueError(problems[0])
    return list(itertools.product(left.paths, right.paths))


def _read_pairs(path: Path) -> Pairs:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"Expected a CSV file in {path}, got: {error}.") from error
    for number, row in enumerate(rows, start=1):
        if len(row) != 2:
            raise ValueError(
                f"Expected two paths in row {number} of {path}, got {len(row)} columns."
            )
    if not rows:
        raise ValueError(f"Expected pairs of paths in {path}, got none.")
    return [(path.parent / a, path.parent / b) for a, b in rows]
