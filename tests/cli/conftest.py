"""A calibrated bundle with a gallery on disk, and the command that works on it."""

import json
import shutil

import numpy as np
import pytest

from metricjax import bundle, cli, gallery
from tests.bundle.conftest import digits, picture, ready

__all__ = ["digits", "picture", "ready"]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, ready, digits):
    """Calibrated on digits 5 to 9; digits 0 and 1 enrolled."""
    root = tmp_path_factory.mktemp("prepared") / "b"
    embed = bundle.embedder(ready)
    x = embed(digits[5:].reshape(-1, 28, 28, 1))
    known = embed(digits[:2, :3].reshape(-1, 28, 28, 1))
    names = np.repeat(["zero", "one"], 3).tolist()
    mark = bundle.fingerprint(ready)
    whole = ready._replace(
        calibration=gallery.calibrate(x, np.repeat(np.arange(5), 6), far=0.1),
        calibrated_on=tuple("56789"),
        gallery=gallery.enroll(known, names, encoder=mark),
    )
    bundle.save(root, whole)
    return root


@pytest.fixture
def faces(tmp_path, prepared):
    """A copy of the prepared bundle, to be changed."""
    return shutil.copytree(prepared, tmp_path / "faces")


@pytest.fixture
def images(tmp_path, digits, picture):
    """A folder of the ten digits, six images each."""
    root = tmp_path / "images"
    for digit in range(10):
        for i, pixels in enumerate(digits[digit]):
            picture(root / f"d{digit}" / f"{i}.png", pixels)
    return root


class Result:
    """What a command left: its exit code, its lines, and the JSON among them."""

    def __init__(self, code, captured):
        self.code = code
        self.out = captured.out
        self.lines = captured.out.splitlines()
        self.errors = captured.err.splitlines()

    @property
    def json(self):
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def mj(capsys):
    """`mj("show", folder)` runs the command; it writes no traceback."""

    def run(*arguments):
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        result = Result(code, capsys.readouterr())
        assert not any("Traceback" in line for line in result.errors)
        return result

    return run


def content(folder):
    """Every file below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
