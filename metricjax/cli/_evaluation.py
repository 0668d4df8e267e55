"""The command that says what to expect of a bundle on identities it never saw."""

from collections.abc import Set
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metricjax import bundle as bundles
from metricjax import gallery as galleries
from metricjax.bundle import Bundle, Files
from metricjax.cli._bundles import (
    check_unseen,
    embed,
    need_calibration,
)
from metricjax.cli._output import (
    BundleFolder,
    Folder,
    Json,
    note,
    percent,
    print_json,
    say,
)
from metricjax.gallery import Calibration
from metricjax.metrics import identification, retrieval, verification

FARS = (0.1, 0.01, 0.001)


class Probes(NamedTuple):
    """A gallery of half of the identities, and images to be identified."""

    gallery: np.ndarray  # bool [n], these images are enrolled
    probes: np.ndarray  # bool [n], the other images; some of identities not enrolled


def evaluate(
    bundle: BundleFolder,
    images: Folder,
    *,
    seed: int = 0,
    unseen: bool = False,
    skip_bad: bool = False,
    as_json: Json = False,
) -> int:
    """Verification, identification and retrieval on identities that are new to it.

    For identification, half of the images of half of the identities are enrolled. The
    other images are looked up: those of enrolled identities should be found, those of
    the others should be unknown.

    Args:
        bundle: folder of the bundle, calibrated.
        images: folder of identities that neither trained nor calibrated it.
        seed: which identities are enrolled.
        unseen: leave out identities that trained or calibrated it, by their names,
            instead of refusing the folder.
        skip_bad: go on without images that cannot be used.
        as_json: print JSON.
    """
    ready = bundles.load(bundle)
    calibration = need_calibration(ready)
    files = bundles.find_identities(images)
    if unseen:
        files = _without(files, {*ready.trained_on, *ready.calibrated_on})
    check_unseen(files.names, ready.trained_on, "trained on", also="--unseen")
    check_unseen(files.names, ready.calibrated_on, "calibrated on", also="--unseen")
    found = embed(ready, files, skip_bad=skip_bad)
    names, labels = np.unique(np.array(found.names), return_inverse=True)
    few = np.count_nonzero(np.bincount(labels) < 2)
    if few:
        note(f"{few} identities have a single image: no genuine pair of theirs.")
    about = measure(ready, calibration, found.embeddings, labels, seed=seed)
    about = {"images": len(labels), "identities": len(names), **about}
    if as_json:
        print_json(about)
    else:
        _say(about, Path(images))
    return 0


def _without(files: Files, names: Set[str]) -> Files:
    """The files of all other identities."""
    kept = [i for i, name in enumerate(files.names) if name not in names]
    left = len(set(files.names)) - len({files.names[i] for i in kept})
    if left:
        note(f"{left} identities that it has seen were left out.")
    if not kept:
        raise ValueError("Expected identities that it has not seen, got none.")
    return files._replace(
        paths=tuple(files.paths[i] for i in kept),
        names=tuple(files.names[i] for i in kept),
    )


def measure(
    ready: Bundle,
    calibration: Calibration,
    x: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int,
) -> dict[str, Any]:
    """All figures, as plain numbers."""
    curve = verification.evaluate(x, labels, fars=FARS)
    ranked = retrieval.evaluate(x, labels, ks=(1,))
    rates = galleries.rates_at(
        x, labels, calibration.threshold, confidence=calibration.confidence
    )
    return {
        "verification": {
            "auc": curve.auc,
            "eer": curve.eer.rate,
            "tar_at_far": {
                f"{far:g}": float(tar)
                for far, tar in zip(FARS, curve.tar_at_far.tar, strict=True)
            },
            "genuine": curve.genuine,
            "impostors": curve.impostors,
        },
        "at_threshold": {
            "threshold": calibration.threshold,
            "far_wanted": calibration.far,
            "far": rates.far,
            "far_interval": rates.far_interval,
            "confidence": calibration.confidence,
            "tar": rates.tar,
        },
        "retrieval": {
            "recall_at_1": float(ranked.recall_at_k[0]),
            "map_at_r": float(ranked.map_at_r),
        },
        "identification": _open_set(calibration, x, labels, seed),
    }


def _open_set(
    calibration: Calibration, x: np.ndarray, labels: np.ndarray, seed: int
) -> dict[str, Any] | None:
    halves = _divide(labels, seed)
    if halves is None:
        return None
    rows, probes = x[halves.gallery], x[halves.probes]
    known, asked = labels[halves.gallery], labels[halves.probes]
    found = identification.search(probes, asked, rows, known)
    people = galleries.enroll(rows, [str(label) for label in known])
    answer = galleries.identify(probes, people, calibration, k=1)
    mated = found.mated
    right = np.array([names[0] for names in answer.names]) == asked.astype(str)
    tpir = identification.tpir_at_fpir(found, fpirs=(0.1, 0.01))
    return {
        "enrolled": len(people.names),
        "templates": len(rows),
        "mated_probes": int(mated.sum()),
        "unmated_probes": int((~mated).sum()),
        "rank_1": float(identification.cmc(found, max_rank=1)[0]),
        "auroc": identification.auroc(found),
        "tpir_at_fpir": {
            f"{fpir:g}": float(rate)
            for fpir, rate in zip(tpir.fpirs, tpir.tpir, strict=True)
        },
        "mated_identified": float(np.mean((answer.known & right)[mated])),
        "mated_called_unknown": float(np.mean(~answer.known[mated])),
        "strangers_accepted": float(np.mean(answer.known[~mated])),
    }


def _divide(labels: np.ndarray, seed: int) -> Probes | None:
    """Enroll the first half of the images of half of the identities, if that can be."""
    counts = np.bincount(labels)
    able = np.flatnonzero(counts >= 2)
    chosen = np.random.default_rng(seed).permutation(able)[: max(1, len(counts) // 2)]
    if not chosen.size or len(chosen) == len(counts):
        return None
    enrolled = np.zeros(len(labels), bool)
    for identity in chosen:
        own = np.flatnonzero(labels == identity)
        enrolled[own[: len(own) // 2]] = True
    return Probes(enrolled, ~enrolled)


def _say(about: dict[str, Any], folder: Path) -> None:
    pairs, at, ranks = (
        about[key] for key in ("verification", "at_threshold", "retrieval")
    )
    say(f"{folder}: {about['images']} images of {about['identities']} identities")
    say(
        f"verification    EER {percent(pairs['eer'])}, AUC {pairs['auc']:.4f} "
        f"({pairs['genuine']} genuine, {pairs['impostors']} impostor pairs)"
    )
    for far, tar in pairs["tar_at_far"].items():
        known = not np.isnan(tar)
        text = percent(tar) if known else "too few impostor pairs to say"
        say(f"                TAR at FAR {percent(float(far))}: {text}")
    low, high = at["far_interval"]
    say(
        f"at threshold    {at['threshold']:.4f}: FAR {percent(at['far'])} "
        f"({percent(at['confidence'])} interval {percent(low)} to {percent(high)}; "
        f"wanted {percent(at['far_wanted'])}), TAR {percent(at['tar'])}"
    )
    say(
        f"retrieval       Recall@1 {percent(ranks['recall_at_1'])}, MAP@R "
        f"{percent(ranks['map_at_r'])}"
    )
    found = about["identification"]
    if found is None:
        say("identification  needs two identities, one with two images")
        return
    say(
        f"identification  rank 1 {percent(found['rank_1'])}, known against unknown "
        f"AUROC {found['auroc']:.4f} ({found['enrolled']} identities enrolled, "
        f"{found['mated_probes']} of their images and {found['unmated_probes']} of "
        "strangers looked up)"
    )
    for fpir, tpir in found["tpir_at_fpir"].items():
        known = not np.isnan(tpir)
        text = percent(tpir) if known else "too few strangers to say"
        say(f"                TPIR at FPIR {percent(float(fpir))}: {text}")
    say(
        f"                by the threshold: {percent(found['mated_identified'])} of "
        f"the enrolled identified, {percent(found['mated_called_unknown'])} called "
        f"unknown; {percent(found['strangers_accepted'])} of strangers accepted"
    )
