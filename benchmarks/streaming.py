"""How fast image files are decoded for training, beside the training step itself.

    python -m benchmarks.streaming [--data-dir DIR] [--seconds S] [--out FILE]
    python -m benchmarks.streaming table [--out FILE]

Files of 224 pixels a side are written to a temporary folder, as PNG and as JPEG: the
embedded digits, enlarged, or with DIR the faces of DIR/att_faces/att_orl_faces.npz.
Measured are images per second: decoded by one, two, ... threads and shrunk to 112
pixels; trained on by SupCon and a small residual net from memory; and trained on from
the files, each batch decoded when it is asked for, or two batches ahead as training
does. On a CPU decoding takes cores from the step; with an accelerator it does not.
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import harness
from metricjax import _cores, data
from metricjax.data import dataset, deferred, image_files
from metricjax.training import inputs, recipes
from metricjax.training.splits import Examples

RESULT = Path(__file__).parent / "results" / "streaming.json"
STORED, SEEN, COUNT = 224, 112, 400
CLASSES, EXAMPLES = 8, 8
FORMATS = {"png": {}, "jpg": {"quality": 90}}

Draw = Callable[[int], Any]


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.streaming",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    choices = ["run", "table"]
    parser.add_argument("command", nargs="?", choices=choices, default="run")
    parser.add_argument("--data-dir", type=Path, help="folder of att_faces")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each figure")
    parser.add_argument("--out", type=Path, default=RESULT, help="the record")
    arguments = parser.parse_args()
    if arguments.command == "run":
        run(arguments.data_dir, arguments.seconds, arguments.out)
    print(table(json.loads(arguments.out.read_text())))
    return 0


def run(data_dir: Path | None, seconds: float, path: Path) -> None:
    """Measure everything and write the record."""
    images, labels, source = read(data_dir)
    with tempfile.TemporaryDirectory() as folder:
        rates = {
            suffix: measure(
                write(Path(folder, suffix), images, labels, suffix),
                labels,
                seconds,
            )
            for suffix in FORMATS
        }
    record = {
        "machine": harness.machine(),
        "images": {"source": source, "stored": STORED, "seen": SEEN},
        "batch": CLASSES * EXAMPLES,
        "rates": rates,
    }
    path.write_text(json.dumps(record, indent=1) + "\n")


def read(data_dir: Path | None) -> tuple[np.ndarray, np.ndarray, str]:
    """Images `[n, height, width]`, their labels, and what they are."""
    if data_dir is None:
        digits = data.load("digits")
        rows = np.linspace(0, len(digits.labels) - 1, COUNT).astype(int)
        return digits.images[rows, ..., 0], digits.labels[rows], "digits"
    with np.load(data_dir / "att_faces" / "att_orl_faces.npz") as file:
        people, each = file["images"].shape[:2]
        labels = np.repeat(np.arange(people, dtype=np.int32), each)
        return file["images"].reshape(-1, *file["images"].shape[2:]), labels, "faces"


def write(
    folder: Path, images: np.ndarray, labels: np.ndarray, suffix: str
) -> list[Path]:
    """The images as files of one format."""
    folder.mkdir(parents=True)
    pillow = dataset.import_pillow()
    paths = [folder / f"{i:04}-{label}.{suffix}" for i, label in enumerate(labels)]
    for path, pixels in zip(paths, images, strict=True):
        image = pillow.fromarray(pixels).resize((STORED, STORED))
        image.save(path, **FORMATS[suffix])
    return paths


def measure(paths: list[Path], labels: np.ndarray, seconds: float) -> dict[str, float]:
    """Images per second of each kind of work."""
    assert image_files.is_grey(paths[0])
    shape = (SEEN, SEEN, 1)

    def examples(threads: int | None = None) -> Examples:
        rows = deferred.of_files(paths, np.arange(len(paths)), shape, threads=threads)
        images: Any = rows
        return Examples(images, labels)

    counts = sorted({1, 2, 4, _cores.count()})
    rates = {
        f"decoding, {count} thread{'s' * (count > 1)}": rate(
            plain(examples(count)), consume=lambda batch: None, seconds=seconds
        )
        for count in counts
        if count <= _cores.count()
    }
    held = examples()._replace(images=np.asarray(examples().images))
    module = recipes.load("supcon")
    settings = module.Settings(
        content="photos",
        symmetries=1,
        batch_classes=CLASSES,
        batch_examples=EXAMPLES,
    )
    problem = module.build(settings, shape, int(labels.max()) + 1)
    draws = {
        "training from memory": plain(held),
        "training, decoded when asked for": plain(examples()),
        "training, decoded ahead": problem.batches(examples(), 0),
    }
    for name, draw in draws.items():
        rates[name] = rate(draw, consume=trainer(problem), seconds=seconds)
    return rates


def plain(examples: Examples) -> Draw:
    """Batches that are made when they are asked for."""
    settings = recipes.load("supcon").Settings(symmetries=1)
    return inputs.pk_batches(settings, classes=CLASSES, examples=EXAMPLES)(examples, 0)


def trainer(problem: Any) -> Callable[[Any], None]:
    """One training step after the other, each dispatched before the last one ended."""
    held = {"state": problem.init(jax.random.key(0, impl="rbg")), "loss": None}

    def train(batch: Any) -> None:
        last = held["loss"]
        held["state"], metrics = problem.step(held["state"], batch)
        held["loss"] = metrics["loss"]
        if last is not None:
            jax.block_until_ready(last)

    return train


def rate(draw: Draw, *, consume: Callable[[Any], None], seconds: float) -> float:
    """Images per second, once the first few steps have compiled and warmed up."""
    warm, start = 4, 0.0
    for t in itertools.count():
        if t == warm:
            start = time.perf_counter()
        consume(draw(t))
        spent = time.perf_counter() - start
        if t > warm + 2 and spent > seconds:
            return (t + 1 - warm) * CLASSES * EXAMPLES / spent
    raise AssertionError("steps do not end")


def table(record: dict[str, Any]) -> str:
    """Markdown: a line for each kind of work."""
    rates = record["rates"]
    lines = [f"| images/s | {' | '.join(rates)} |", "|---|" + "---:|" * len(rates)]
    for name in next(iter(rates.values())):
        cells = " | ".join(f"{rates[suffix][name]:,.0f}" for suffix in rates)
        lines.append(f"| {name} | {cells} |")
    machine, images = record["machine"], record["images"]
    foot = (
        f"{machine['device']}, {machine['cores']} cores; {images['source']} of "
        f"{images['stored']} pixels a side, shrunk to {images['seen']}."
    )
    return "\n".join([*lines, "", foot])


if __name__ == "__main__":
    sys.exit(main())
