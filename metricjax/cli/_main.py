"""The entry: find the command, run it, say in one line what went wrong."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import tyro

from metricjax.cli import _answers, _bundles, _evaluation
from metricjax.cli._output import printable

COMMANDS = {
    "bundle": _bundles.bundle,
    "calibrate": _bundles.calibrate,
    "enroll": _bundles.enroll,
    "evaluate": _evaluation.evaluate,
    "export": _bundles.export,
    "identify": _answers.identify,
    "remove": _bundles.remove,
    "show": _bundles.show,
    "verify": _answers.verify,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `metricjax`.

    Args:
        arguments: what follows the name of the command; `sys.argv[1:]` if None.

    Returns:
        The exit code: 0, or 1 if some images could not be read, or 2 for bad input.

    Example:
        >>> main(["show", "no/such/folder"])
        2
    """
    use_compilation_cache()
    try:
        code = tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="metricjax",
            description="A trained encoder in use: who is this, are these the same?",
            args=sys.argv[1:] if arguments is None else list(arguments),
            config=(tyro.conf.FlagCreatePairsOff,),
        )
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read the output has seen enough; nothing more can be written to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return fail(_reason(error))
    except (ValueError, TypeError, ImportError) as error:
        return fail(str(error))
    except KeyboardInterrupt:
        fail("Stopped.")
        return 130


def _reason(error: OSError) -> str:
    if error.filename is None or error.strerror is None:
        return str(error)
    return f"{os.fsdecode(error.filename)}: {error.strerror}."


def fail(reason: str) -> int:
    """Say why in one line, on standard error."""
    print(f"metricjax: {printable(reason)}", file=sys.stderr)
    return 2


def use_compilation_cache() -> None:
    """Keep compiled programs between commands, unless the user has arranged that."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(root / "metricjax" / "jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
