"""Train an encoder by a recipe and measure it on classes that it never saw.

    python train.py                                the default recipe, arcface
    python train.py --recipe triplet --steps 200   another recipe, another setting
    python train.py --recipe triplet --help        all settings of a recipe
    python train.py --list                         all recipes
    python train.py --data folder:PATH             your images, a sub-folder for each
                                                   person or thing

The run's folder gets report.html and, for each split, a bundle for the command
metricjax. Started again, the same command continues where it was stopped.

Several machines train together if each runs the same command with --coordinator,
--processes and --process, or, on SLURM and TPU, with --distributed alone.
"""

import argparse
import contextlib
import dataclasses
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import tyro
from rich.console import Console

from metricjax import bundle, similarities
from metricjax.training import processes, recipes, run


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is not a setting of the recipe."""

    recipe: str = "arcface"
    """What to train: --list shows the recipes. The other flags depend on it."""

    list: tyro.conf.FlagCreatePairsOff[bool] = False
    """Show the recipes and stop."""

    out: Path | None = None
    """The run's folder; runs/RECIPE by default. A run in it is continued."""

    data_dir: Path | None = None
    """Folder of raw data files; METRICJAX_DATA_DIR by default."""

    devices: int | None = None
    """Divide each batch among so many devices; 0 for all that there are. By default 1,
    or all with --shard-classes and with other processes. A run may continue on another
    number of them."""

    shard_classes: tyro.conf.FlagCreatePairsOff[bool] = False
    """Divide the class weights of a margin softmax and what the optimiser keeps of them
    among the devices, for more classes than one device holds. The losses are the same,
    and a run may continue with or without."""

    coordinator: str = ""
    """Train with other processes: HOST:PORT of process 0, with a port that is free
    there; JAX_COORDINATOR_ADDRESS by default."""

    processes: int | None = None
    """How many processes train together; JAX_NUM_PROCESSES by default."""

    process: int | None = None
    """Which of them this is, from 0; JAX_PROCESS_ID by default."""

    distributed: tyro.conf.FlagCreatePairsOff[bool] = False
    """Train with the other processes of a job of SLURM, Open MPI or Kubernetes, or of a
    TPU slice, which are found without the three flags above."""

    lost_after: int = 60
    """Seconds without a sign of life after which a process counts as lost, and all
    stop."""

    @property
    def is_joined(self) -> bool:
        """Whether this is one of several processes."""
        named = self.coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
        return bool(named) or self.distributed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code."""
    try:
        return command(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        return fail(
            "Stopped. The same command continues from the last checkpoint.", 130
        )
    except ConnectionAbortedError as error:
        return fail(error, 1)


def command(arguments: Sequence[str]) -> int:
    """Parse the arguments, train, report; of several processes one alone reports."""
    with contextlib.ExitStack() as stack:
        try:
            options = parse(arguments)
            if options.list:
                return show_recipes(Console())
            use_compilation_cache()
            stack.enter_context(joined(options))
            console = Console(quiet=not processes.is_first())
            plan = prepare(options, console)
        except (ValueError, TypeError, OSError, ImportError) as error:
            return fail(error, 2)
        try:
            run.execute(plan, console=console)
            with processes.together("the writing of bundles"):
                if processes.is_first():
                    leave_bundles(plan, console)
        except (FloatingPointError, OSError) as error:
            return fail(error, 1)
    return 0


def joined(options: Any) -> contextlib.AbstractContextManager[None]:
    """What the flags say of other processes."""
    numbers = options.processes, options.process
    if options.is_joined:
        return processes.join(
            options.coordinator or None,
            count=options.processes,
            index=options.process,
            limit=options.lost_after,
        )
    if numbers != (None, None):
        raise ValueError(
            "Expected --coordinator HOST:PORT with --processes and --process, got none."
        )
    return contextlib.nullcontext()


def prepare(options: Any, console: Console) -> run.Plan:
    """Read the data and open the run's folder."""
    return run.prepare(
        recipes.load(options.recipe),
        options.settings,
        out=options.out or Path("runs", options.recipe),
        data_dir=options.data_dir,
        devices=options.devices,
        shard_classes=options.shard_classes,
        console=console,
    )


def parse(arguments: Sequence[str]) -> Any:
    """The options; their `settings` are those of the recipe that `--recipe` names."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--recipe", default=Options.recipe)
    settings = recipes.load(first.parse_known_args(arguments)[0].recipe).Settings
    options = dataclasses.make_dataclass(
        "Options",
        [("settings", tyro.conf.OmitArgPrefixes[settings])],
        bases=(Options,),
        frozen=True,
        kw_only=True,
    )
    return tyro.cli(options, args=arguments, prog="train.py", description=__doc__)


def leave_bundles(plan: run.Plan, console: Console) -> None:
    """Write the encoders for use by the command metricjax, and say how it goes on."""
    if plan.experiment.similarity is not similarities.cosine:
        return
    places = bundle.save_in_run(plan.folder, experiment=plan.experiment)
    if not places:
        return
    calibrated = plan.splits[0].calibration is not None
    first = shlex.quote(str(places[0]))
    steps = [
        f"  metricjax calibrate {first} FOLDER --far {plan.settings.far:g}",
        f"  metricjax enroll {first} FOLDER",
        f"  metricjax identify {first} IMAGE",
    ]
    say = "calibrated" if calibrated else "no threshold yet: calibrate it first"
    for line in (f"Bundle: {first} ({say})", *steps[calibrated:]):
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def show_recipes(console: Console) -> int:
    """Print what each recipe is, its data, its measured result and its source."""
    for name in recipes.names():
        about = recipes.about(name)
        console.print(f"[bold]{name}[/bold]: {about.summary}", soft_wrap=True)
        for line in (f"Data: {about.data}.", about.measured, about.source):
            if line:
                console.print(f"    {line}", soft_wrap=True, highlight=False)
    return 0


def use_compilation_cache() -> None:
    """Keep compiled programs between runs, unless the user has arranged that."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(root / "metricjax" / "jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def fail(reason: object, code: int) -> int:
    """Say why in one line, on standard error."""
    print(f"train.py: {reason}", file=sys.stderr)
    return code


if __name__ == "__main__":
    processes.leave(main())
