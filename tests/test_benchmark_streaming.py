"""The benchmark of streaming: its files and its table; nothing is timed."""

import numpy as np

from benchmarks import streaming
from metricjax.data import deferred


def test_its_files_hold_the_images_enlarged(tmp_path):
    images, labels, source = streaming.read(None)
    assert (len(images), source) == (streaming.COUNT, "digits")
    assert set(labels) == set(range(10))
    for suffix in streaming.FORMATS:
        paths = streaming.write(tmp_path / suffix, images[:3], labels[:3], suffix)
        rows = deferred.of_files(paths, np.arange(3), (28, 28, 1))
        assert np.abs(rows[:].astype(int)[..., 0] - images[:3]).mean() < 8.0


def test_rates_count_images_and_the_table_shows_them():
    drawn = []
    found = streaming.rate(lambda t: t, consume=drawn.append, seconds=0.0)
    assert found > 0.0
    assert drawn == list(range(len(drawn)))
    record = {
        "machine": {"device": "a machine", "cores": 2},
        "images": {"source": "digits", "stored": 224, "seen": 112},
        "rates": {"png": {"decoding": 1234.4}, "jpg": {"decoding": 9.0}},
    }
    assert "| decoding | 1,234 | 9 |" in streaming.table(record).splitlines()
