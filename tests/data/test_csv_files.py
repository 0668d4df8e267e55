"""CSV files of labelled texts and of labelled images."""

import os

import numpy as np
import pytest

from metricjax import data
from tests.data.conftest import damaged, whole_or_refused

Image = pytest.importorskip("PIL.Image")

DATA_DIR = os.environ.get("METRICJAX_DATA_DIR")
TEXTS = 'text,category\nLost card,card\n"Top up, please",top_up\nKarte weg ü,card\n'


def written(tmp_path, content):
    path = tmp_path / "list.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def load(tmp_path, content, **kwargs):
    return data.load(f"csv:{written(tmp_path, content)}", **kwargs)


@pytest.fixture
def pictures(tmp_path, few):
    """Twenty digits as image files in a folder below the CSV file."""
    images, labels = few
    (tmp_path / "ink").mkdir()
    lines = []
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(tmp_path / "ink" / f"{i}.png")
        lines.append(f"ink/{i}.png,digit {label}")
    return lines


def test_texts_are_counts_and_labels_are_in_the_order_of_names(tmp_path):
    found = load(tmp_path, TEXTS)
    texts = ["Lost card", "Top up, please", "Karte weg ü"]
    np.testing.assert_array_equal(found.images, data.text.hashed_ngrams(texts))
    assert found.labels.tolist() == [0, 1, 0]
    assert found.labels.dtype == np.int32
    assert found.names == ("card", "top_up")


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff" + TEXTS,
        TEXTS.replace("\n", "\r\n"),
        TEXTS.replace("text,category", " Sentence ,LABEL"),
        'id,category,text\n1,card,Lost card\n2,top_up,"Top up, please"\n'
        "3,card,Karte weg ü\n",
    ],
)
def test_other_forms_of_the_same_file_give_the_same_set(tmp_path, content):
    expected, found = load(tmp_path, TEXTS), load(tmp_path, content)
    np.testing.assert_array_equal(found.images, expected.images)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.names == expected.names


@pytest.mark.parametrize("column", ["path", "image", "File"])
def test_images_are_found_beside_the_file(tmp_path, few, pictures, column):
    found = load(tmp_path, "\n".join([f"{column},label", *pictures]))
    np.testing.assert_array_equal(found.images[..., 0], few[0])
    np.testing.assert_array_equal(found.labels, few[1])
    assert found.names[3] == "digit 3"


def test_images_take_a_size_and_colour_from_any_of_them(tmp_path, pictures):
    colour = np.random.default_rng(0).integers(0, 256, (14, 14, 3)).astype(np.uint8)
    Image.fromarray(colour).save(tmp_path / "colour.png")
    content = "\n".join(["path,label", *pictures[:3], "colour.png,other"])
    found = load(tmp_path, content, size=14)
    assert found.images.shape == (4, 14, 14, 3)
    np.testing.assert_array_equal(found.images[3], colour)
    assert (found.images[0] == found.images[0, ..., :1]).all()
    with pytest.raises(ValueError, match="give a common size"):
        load(tmp_path, content)


def test_a_missing_image_is_named_with_its_line(tmp_path, pictures):
    content = "\n".join(["path,label", pictures[0], "ink/99.png,x"])
    with pytest.raises(FileNotFoundError, match=r"line 3 of .*ink/99\.png"):
        load(tmp_path, content)


def test_a_damaged_image_is_named(tmp_path, pictures):
    (tmp_path / "ink" / "0.png").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match=r"image file in .*ink/0\.png"):
        load(tmp_path, "\n".join(["path,label", *pictures[:2]]))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "empty file"),
        ("text,label\n", "below the header"),
        ("Lost card,card\nTop up,top_up\n", "header with text or path, and label"),
        ("text,name\nLost card,card\n", "header with text or path, and label"),
        ("text,path,label\na,b,c\n", "header with text or path, and label"),
        ("text1,text2,same\na,b,1\n", "read_pairs"),
        ("text,label\nLost card,\n", "empty one in line 2"),
        ("text,label\nLost card,card\n ,card\n", "column 1 .*empty one in line 3"),
        ("text,label\nLost, card,card\n", "2 cells in line 2"),
        ('text,label\n"Lost card,card\n', "whole CSV file"),
        (b"text,label\n\xff,card\n", "UTF-8"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, content, match):
    path = written(tmp_path, content)
    with pytest.raises(ValueError, match=match) as caught:
        data.load(f"csv:{path}")
    assert str(path) in str(caught.value)


def test_what_does_not_fit_a_csv_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no size for the texts"):
        load(tmp_path, TEXTS, size=28)
    with pytest.raises(ValueError, match='split "train"'):
        load(tmp_path, TEXTS, split="test")
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        data.load(f"csv:{tmp_path}/none.csv")


def test_a_damaged_file_gives_a_set_or_an_error_that_names_it(tmp_path):
    for content in damaged(TEXTS.encode() * 3, 60, seed=1):
        path = written(tmp_path, content)
        assert whole_or_refused(lambda path: data.load(f"csv:{path}").images, path)


@pytest.mark.skipif(not DATA_DIR, reason="METRICJAX_DATA_DIR names no folder")
def test_real_intents_have_77_classes():
    found = data.load(f"csv:{DATA_DIR}/text/banking77_test.csv")
    assert found.images.shape == (3080, 2048)
    assert np.bincount(found.labels).tolist() == [40] * 77
    assert found.names[1] == "activate_my_card"
