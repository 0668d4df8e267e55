"""A few real digits in every file format."""

import numpy as np
import pytest

from metricjax import data


@pytest.fixture(scope="session")
def digits():
    """The embedded digits."""
    return data.load("digits")


@pytest.fixture(scope="session")
def few(digits):
    """Images [20, 28, 28] and labels [20] of real digits, two of each class."""
    return digits.images[::250, ..., 0], digits.labels[::250]


@pytest.fixture
def people(tmp_path, few):
    """Five identities of four digits each, as grey files of one size."""
    image_module = pytest.importorskip("PIL.Image")
    root = tmp_path / "people"
    for i, image in enumerate(few[0]):
        path = root / f"p{i // 4}" / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image_module.fromarray(image).save(path)
    return root


@pytest.fixture(autouse=True)
def no_data_dir(monkeypatch):
    """Tests say themselves where their data lies."""
    monkeypatch.delenv("METRICJAX_DATA_DIR", raising=False)
    # TensorFlow Datasets reads its environment variable once, when imported.
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", "/nonexistent")


def damaged(content: bytes, count: int, seed: int):
    """Copies of a file cut short or with a few bytes changed."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        copy = bytearray(content)
        if i % 2:
            yield bytes(copy[: rng.integers(len(copy))])
        else:
            for place in rng.integers(len(copy), size=3):
                copy[place] = rng.integers(256)
            yield bytes(copy)


def whole_or_refused(read, path) -> bool:
    """Whether `read` gives an array, or a ValueError that names the file."""
    try:
        return read(path).size > 0
    except ValueError as error:
        return str(path) in str(error)
