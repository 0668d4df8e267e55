import unicodedata

import numpy as np
import pytest

from metricjax import gallery
from tests.gallery.conftest import sample


def enrolled(identities=4, images=3, seed=0):
    x, labels = sample(identities, images, seed=seed)
    return x, gallery.enroll(x, [f"p{label}" for label in labels], encoder="e")


def as_dict(people):
    """Every identity with its templates, whatever their order."""
    return {
        name: sorted(people.embeddings[people.labels == label].tolist())
        for label, name in enumerate(people.names)
    }


def test_rows_are_scaled_to_unit_length_in_float32():
    x, people = enrolled()
    expected = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(people.embeddings, expected, rtol=1e-6)
    assert people.embeddings.dtype == np.float32
    assert people.names == ("p0", "p1", "p2", "p3")
    assert people.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


@pytest.mark.parametrize("scale", [1e-300, 1e-40, 1e300])
def test_tiny_and_huge_rows_keep_their_direction(scale):
    people = gallery.enroll(np.array([[3.0, 4.0]]) * scale, ["a"])
    np.testing.assert_allclose(people.embeddings, [[0.6, 0.8]], rtol=1e-6)


def test_adding_in_parts_is_enrolling_at_once():
    x, people = enrolled()
    names = [people.names[label] for label in people.labels]
    parts = gallery.enroll(x[:5], names[:5], encoder="e")
    parts = gallery.add(parts, x[5:], names[5:])
    assert as_dict(parts) == as_dict(people)
    assert parts.encoder == "e"


def test_removing_what_was_added_gives_the_gallery_back():
    x, people = enrolled()
    more = gallery.add(people, x[:2], ["new", "p1"])
    fewer = gallery.remove(more, ["new"])
    assert fewer.names == people.names
    assert len(fewer.embeddings) == len(people.embeddings) + 1
    without = gallery.remove(people, ["p0", "p2"])
    assert without.names == ("p1", "p3")
    assert without.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert as_dict(without).items() <= as_dict(people).items()


def test_everyone_can_be_removed_and_enrolled_again():
    x, people = enrolled()
    empty = gallery.remove(people, people.names)
    assert empty.names == ()
    assert empty.embeddings.shape == (0, 8)
    assert gallery.means(empty).embeddings.shape == (0, 8)
    assert gallery.add(empty, x[:1], ["p0"]).names == ("p0",)


def test_a_mean_template_is_the_direction_of_the_sum_of_unit_vectors():
    x, people = enrolled()
    means = gallery.means(people)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    for label in range(4):
        total = sum(unit[row] for row in range(len(x)) if people.labels[row] == label)
        expected = total / np.linalg.norm(total)
        np.testing.assert_allclose(means.embeddings[label], expected, rtol=1e-6)
    assert means.labels.tolist() == [0, 1, 2, 3]


def test_means_taken_step_by_step_are_the_means_of_all():
    x, people = enrolled()
    names = [people.names[label] for label in people.labels]
    steps = gallery.means(gallery.enroll(x[:7], names[:7]))
    steps = gallery.means(gallery.add(steps, x[7:], names[7:]))
    whole = gallery.means(gallery.enroll(x, names))
    np.testing.assert_allclose(steps.embeddings, whole.embeddings, atol=1e-6)
    np.testing.assert_allclose(steps.weights, whole.weights, rtol=1e-6)


def test_templates_that_cancel_out_have_no_mean():
    people = gallery.enroll([[1.0, 0.0], [-1.0, 0.0]], ["a", "a"])
    with pytest.raises(ValueError, match="templates of 'a' .* cancel out"):
        gallery.means(people)


def test_a_name_is_one_identity_however_its_accents_are_encoded():
    forms = [unicodedata.normalize(form, "Zoë Ångström") for form in ("NFC", "NFD")]
    assert forms[0] != forms[1]
    people = gallery.enroll(np.eye(2, dtype=np.float32), forms)
    assert people.names == (forms[0],)
    assert gallery.remove(people, [forms[1]]).names == ()


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_rows_without_a_direction_are_refused_by_number(value):
    x = np.ones((4, 3))
    x[2] = value
    with pytest.raises(ValueError, match="row 2 of 4"):
        gallery.enroll(x, list("abcd"))


def test_shapes_dtypes_and_names_are_checked():
    _, people = enrolled()
    with pytest.raises(ValueError, match=r"\[rows, dim\]"):
        gallery.enroll(np.ones(3), ["a"])
    with pytest.raises(TypeError, match="floating"):
        gallery.enroll(np.ones((1, 3), int), ["a"])
    with pytest.raises(ValueError, match="one name for each of the 2"):
        gallery.enroll(np.ones((2, 3)), ["a"])
    with pytest.raises(ValueError, match="dimension 8, as in the gallery, got 3"):
        gallery.add(people, np.ones((1, 3)), ["a"])
    with pytest.raises(ValueError, match="got 'nobody'"):
        gallery.remove(people, ["p1", "nobody"])
    with pytest.raises(ValueError, match="name of an identity, got '  '"):
        gallery.enroll(np.ones((1, 3)), ["  "])
    with pytest.raises(TypeError, match="as a string, got 7"):
        gallery.enroll(np.ones((1, 3)), [7])  # type: ignore[list-item]
