"""Labels from another column."""

import numpy as np
import pytest

from metricjax import data


@pytest.fixture
def spoken():
    """Six recordings of two words by speakers 7, 4 and 9."""
    return data.Dataset(
        np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1),
        np.array([0, 1, 0, 1, 0, 1], np.int32),
        ("no", "yes"),
        {
            "speaker": np.array([7, 4, 9, 7, 4, 9], np.int32),
            "take": np.array([0, 0, 0, 1, 1, 1], np.int32),
        },
    )


def test_values_become_labels_and_labels_become_a_column(spoken):
    found = data.relabel(spoken, "speaker")
    assert found.labels.tolist() == [1, 0, 2, 1, 0, 2]
    assert found.labels.dtype == np.int32
    assert found.names == ("4", "7", "9")
    assert set(found.extra) == {"speaker", "take", "label"}
    np.testing.assert_array_equal(found.extra["label"], spoken.labels)
    np.testing.assert_array_equal(found.extra["speaker"], spoken.extra["speaker"])
    assert found.images is spoken.images
    assert "label" not in spoken.extra


def test_values_that_are_indices_can_be_named(spoken):
    found = data.relabel(spoken, "take", names=("first", "second", "third"))
    assert found.names == ("first", "second")
    back = data.relabel(found, "label", names=spoken.names)
    np.testing.assert_array_equal(back.labels, spoken.labels)
    assert back.names == spoken.names
    np.testing.assert_array_equal(back.extra["label"], spoken.extra["take"])


def test_a_column_or_a_name_that_is_missing_is_refused(spoken):
    with pytest.raises(ValueError, match=r"\['speaker', 'take'\].*got 'alphabet'"):
        data.relabel(spoken, "alphabet")
    with pytest.raises(ValueError, match="4 to 9, got 3 names"):
        data.relabel(spoken, "speaker", names=("a", "b", "c"))
