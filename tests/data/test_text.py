"""Texts as counts of n-grams, and pairs of texts from CSV files."""

import os
import subprocess
import sys

import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from metricjax import encoders
from metricjax.data import text
from tests.data.conftest import damaged, whole_or_refused
from tests.oracles import text as oracle

DATA_DIR = os.environ.get("METRICJAX_DATA_DIR")
needs_files = pytest.mark.skipif(
    not DATA_DIR, reason="METRICJAX_DATA_DIR names no folder of raw files"
)

# hashed_ngrams


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=5
    ),
    st.sampled_from([1, 7, 64]),
    st.sampled_from([(1,), (2, 3, 4), (3, 9)]),
)
def test_counts_are_those_of_single_ngrams(texts, buckets, sizes):
    found = text.hashed_ngrams(texts, buckets=buckets, sizes=sizes)
    expected = [oracle.hashed_ngrams(one, buckets, sizes) for one in texts]
    np.testing.assert_array_equal(found, np.reshape(expected, (-1, buckets)))
    assert found.dtype == np.uint8


def test_more_texts_than_a_block_are_counted_one_by_one():
    texts = [f"Question {i}?" for i in range(600)]
    found = text.hashed_ngrams(texts, buckets=128)
    for i in (0, 255, 256, 511, 512, 599):
        np.testing.assert_array_equal(
            found[i], oracle.hashed_ngrams(texts[i], 128, (2, 3, 4))
        )


def test_counts_stop_at_255():
    found = text.hashed_ngrams(["a" * 300, "a" * 100], buckets=512, sizes=(2,))
    assert found.max(axis=1).tolist() == [255, 99]


def test_case_and_white_space_do_not_count_but_words_do():
    texts = ["Where is my CARD", "  where is\tmy\ncard ", "wheres my card", " \t"]
    one, same, other, blank = text.hashed_ngrams(texts)
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    assert blank.sum() == 0


def test_counts_are_the_same_in_another_process():
    code = (
        "from metricjax.data import text; "
        "print(text.hashed_ngrams(['Straße 12']).nonzero()[1].tolist())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "5"}
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    here = text.hashed_ngrams(["Straße 12"]).nonzero()[1].tolist()
    assert out.stdout.strip() == str(here)


@pytest.mark.parametrize(
    ("texts", "kwargs", "error", "match"),
    [
        ("one text", {}, TypeError, "put it into a list"),
        (["a"], {"buckets": 0}, ValueError, "buckets"),
        (["a"], {"sizes": (2, 0)}, ValueError, "sizes"),
    ],
)
def test_hashed_ngrams_refuses_bad_arguments(texts, kwargs, error, match):
    with pytest.raises(error, match=match):
        text.hashed_ngrams(texts, **kwargs)


def test_the_dense_encoder_takes_counts():
    counts = text.hashed_ngrams(["lost card", "top up"], buckets=64)
    model = encoders.MLP(image_shape=(64,), hidden=(8,), dim=4, rngs=nnx.Rngs(0))
    model.eval()
    embeddings = np.asarray(model(encoders.as_float(counts)))
    assert embeddings.shape == (2, 4)
    assert (embeddings[0] != embeddings[1]).any()


# read_pairs


def written(tmp_path, content):
    path = tmp_path / "pairs.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


PAIRS = (("Hi, you", "Ärger\nüber 你好"), ('"Hello"', "Bye"), [True, False])
ROWS = '"Hi, you","""Hello""",1\n"Ärger\nüber 你好",Bye,0\n'


@pytest.mark.parametrize(
    "content",
    [
        ROWS,
        "text1,text2,same\n" + ROWS,
        "\ufeffQuestion1,QUESTION2, is_duplicate \r\n" + ROWS.replace("0\n", "0\r\n"),
        "sentence1,sentence2,label\n\n" + ROWS,
        '7,"Hi, you","""Hello""",1\n8,"Ärger\nüber 你好",Bye,0\n',
    ],
)
def test_pairs_are_found_with_and_without_a_header(tmp_path, content):
    first, second, same = text.read_pairs(written(tmp_path, content))
    assert (first, second, same.tolist()) == PAIRS
    assert same.dtype == bool


def test_columns_may_stand_in_any_order_and_be_named(tmp_path):
    path = written(tmp_path, "match,id,b,a\n1,5,Hello,Hi\n0,6,Bye,Hi\n")
    first, second, same = text.read_pairs(path, columns=("a", "b", "match"))
    assert first == ("Hi", "Hi")
    assert second == ("Hello", "Bye")
    assert same.tolist() == [True, False]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "empty file"),
        ("text1,text2,same\n", "below the header"),
        ("a,b,c\nHi,Hello,1\n", r"Expected a header with text1, text2, same"),
        ("Hi,1\n", "Expected a header"),
        ("Hi,Hello,1\nHi,Bye,2\n", "0 or 1 in line 2 of"),
        ("Hi,Hello,1\n,Bye,0\n", "two texts and 0 or 1 in line 2"),
        ("Hi,Hello,1\nHi,Bye, now,0\n", "3 cells in line 2 .*got 4.*double quotes"),
        ('Hi,Hello,1\n"Hi,Bye,0\n', "whole CSV file in UTF-8"),
        (b"Hi,Hello,1\nHi,\xff\xfe,0\n", "whole CSV file in UTF-8"),
    ],
)
def test_bad_files_of_pairs_are_refused_by_name(tmp_path, content, match):
    path = written(tmp_path, content)
    with pytest.raises(ValueError, match=match) as caught:
        text.read_pairs(path)
    assert str(path) in str(caught.value)


def test_a_named_column_that_is_missing_is_refused(tmp_path):
    path = written(tmp_path, "text1,text2,same\nHi,Hello,1\n")
    with pytest.raises(ValueError, match="header with a, text2, same"):
        text.read_pairs(path, columns=("a", "text2", "same"))
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        text.read_pairs(tmp_path / "none.csv")


def test_a_damaged_file_gives_pairs_or_an_error_that_names_it(tmp_path):
    whole = ("text1,text2,same\n" + ROWS * 3).encode()
    for content in damaged(whole, 60, seed=0):
        path = written(tmp_path, content)
        assert whole_or_refused(lambda path: text.read_pairs(path).same, path)


@needs_files
def test_real_pairs_of_questions_are_half_duplicates():
    path = f"{DATA_DIR}/text/medical_question_pairs.csv"
    first, second, same = text.read_pairs(path)
    assert len(first) == len(second) == 3048
    assert same.sum() == 1524
    assert len(set(first)) == 1524
