"""Errors of the official one-shot runs of Omniglot where nothing is learned.

    python -m benchmarks.omniglot_baselines --data-dir DIR

Prints them, and writes them to benchmarks/results/omniglot-baselines.json. They are the
floor for whatever is trained: the nearest drawing by its pixels, as they are or as
means of 3 x 3 of them, and by the modified Hausdorff distance of its ink, with which
Lake et al. publish the runs (38.8 %; Koch et al. give 78.3 % for nearest neighbours).
"""

import argparse
import json
import pathlib
import sys

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from benchmarks import harness
from metricjax import distances, similarities
from metricjax.metrics import fewshot
from metricjax.training import evaluate, official_runs

RESULT = pathlib.Path(__file__).parent / "results" / "omniglot-baselines.json"
SIDES = (105, 35)
SIMILARITIES = {
    "cosine of pixels": similarities.cosine,
    "Euclidean distance of pixels": Partial(
        similarities.negative, distance=distances.euclidean
    ),
}


def errors(runs: fewshot.OneShotRuns) -> dict[str, float]:
    """The share of wrong answers by each baseline, mean of the runs."""
    found = {
        f"{name}, {side} x {side}": official_runs.error(
            runs, evaluate.raw_pixels, size=side, similarity=similarity
        )
        for name, similarity in SIMILARITIES.items()
        for side in SIDES
    }
    drawn = zip(runs.queries, runs.support, strict=True)
    scores = np.stack([-fewshot.modified_hausdorff(*sides) for sides in drawn])
    by_ink = fewshot.one_shot_error(scores, runs.answers)
    return {**found, "modified Hausdorff distance of ink": float(jnp.mean(by_ink))}


def table(found: dict[str, float]) -> str:
    """The errors as Markdown."""
    rows = [f"| {name} | {100 * error:.2f} % |" for name, error in found.items()]
    return "\n".join(["| nothing learned | error |", "|---|---:|", *rows])


def main() -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.omniglot_baselines",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data-dir", help="of omniglot/all_runs.zip; METRICJAX_DATA_DIR by default"
    )
    runs = official_runs.find(parser.parse_args().data_dir)
    if runs is None:
        parser.error("no omniglot/all_runs.zip there; give --data-dir")
    found = errors(runs)
    record = {
        "command": "python -m benchmarks.omniglot_baselines --data-dir DIR",
        "runs": len(runs.answers),
        "machine": harness.machine(),
        "errors": {name: round(error, 6) for name, error in found.items()},
    }
    RESULT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
