"""Pictures of one-shot tasks, pairs and triplets: what is drawn and marked."""

import numpy as np
import pytest

from metricjax import data, plots

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def images():
    return data.load("digits", size=14).images[::25]


def pixels(axes):
    return np.asarray(axes.images[0].get_array())


def look(axes):
    """What frames and marks an image: colour, line, symbol."""
    spine = axes.spines["top"]
    marks = [text.get_text() for text in axes.texts]
    return spine.get_edgecolor(), spine.get_linestyle(), marks


def shown(figure):
    return [axes for axes in figure.axes if axes.images]


# nway_task


def test_a_task_draws_query_and_candidates_with_right_and_chosen_marked(images):
    figure = plots.nway_task(
        *(images[0], images[20:40]),
        truth=3,
        chosen=7,
        names=[f"character{i}" for i in range(20)],
        title="Omniglot, task 1",
    )
    assert figure.get_suptitle() == "Omniglot, task 1\n20-way task: chosen wrongly"
    query, *support = shown(figure)
    assert query.get_title() == "query"
    for axes, image in zip([query, *support], [images[0], *images[20:40]], strict=True):
        np.testing.assert_array_equal(pixels(axes), image[..., 0])
    titles = {i: axes.get_title() for i, axes in enumerate(support) if axes.get_title()}
    assert titles == {3: "right", 7: "chosen"}
    right, wrong = look(support[3]), look(support[7])
    assert all(a != b for a, b in zip(right, wrong, strict=True))
    assert not support[0].texts
    assert [axes.get_xlabel() for axes in support[:2]] == ["character0", "character1"]


def test_a_right_answer_is_marked_once(images):
    figure = plots.nway_task(images[0], images[:5], truth=1, chosen=1)
    assert figure.get_suptitle() == "5-way task: chosen rightly"
    titles = [axes.get_title() for axes in shown(figure)]
    assert titles == ["query", "", "chosen, right", "", "", ""]


def test_the_query_is_larger_than_the_candidates(images):
    for ways in (2, 5, 20):
        figure = plots.nway_task(images[0], images[:ways], truth=0, chosen=0)
        figure.draw_without_rendering()
        sizes = [axes.get_window_extent().width for axes in shown(figure)]
        assert sizes[0] > 1.4 * max(sizes[1:])


@pytest.mark.parametrize(("ways", "shape"), [(2, (1, 2)), (5, (1, 5)), (20, (4, 5))])
def test_candidates_fill_their_grid(images, ways, shape):
    figure = plots.nway_task(images[0], images[:ways], truth=0, chosen=0)
    figure.draw_without_rendering()
    boxes = [axes.get_window_extent() for axes in shown(figure)[1:]]
    corners = {(round(box.y0), round(box.x0)) for box in boxes}
    rows, columns = (len(set(places)) for places in zip(*corners, strict=True))
    assert (len(corners), rows, columns) == (ways, *shape)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.25, -0.03152], ["0.250", "-0.032"]),
        ([120.34, 2.0], ["120", "2"]),
        ([np.nan, np.inf], ["nan", "inf"]),
        ([0.0, 0.0], ["0.00", "0.00"]),
    ],
)
def test_scores_have_three_digits_and_the_same_decimals(images, scores, expected):
    figure = plots.nway_task(images[0], images[:2], truth=0, chosen=0, scores=scores)
    assert [axes.get_xlabel() for axes in shown(figure)[1:]] == expected


def test_long_names_are_cut_at_the_front(images):
    names = ["Alphabet_of_the_Magi_and_more/character07", "short"]
    figure = plots.nway_task(images[0], images[:2], truth=0, chosen=0, names=names)
    first, second = (axes.get_xlabel().split("\n") for axes in shown(figure)[1:])
    assert (len(first), second) == (2, ["short"])
    assert first[1].endswith("character07")
    assert max(map(len, first)) <= 15


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"truth": 3}, ValueError, r"`truth` in \[0, 3\)"),
        ({"chosen": -1}, ValueError, r"`chosen` in \[0, 3\)"),
        ({"scores": [1.0]}, ValueError, "scores"),
        ({"names": ["a"]}, ValueError, "3 `names`"),
        ({"support": np.zeros((3, 4, 4))}, ValueError, "`support` of images"),
        ({"query": np.zeros((4, 4))}, ValueError, "`query` of images"),
        ({"query": np.zeros((4, 4, 1), int)}, TypeError, "`query` in uint8"),
        ({"support": np.zeros((0, 4, 4, 1))}, ValueError, "`support` of images"),
    ],
)
def test_bad_tasks_are_refused(images, change, error, match):
    good = {"query": images[0], "support": images[:3], "truth": 0, "chosen": 0}
    with pytest.raises(error, match=match):
        plots.nway_task(**good | change)


# pairs_sheet and triplets_sheet


def test_pairs_are_drawn_in_order_and_told_apart_without_colour(images):
    same = np.array([True, False, False])
    figure = plots.pairs_sheet(
        *(images[:3], images[3:6], same), scores=[0.9, 0.1, 0.45], title="Step 0"
    )
    assert figure.get_suptitle() == "Step 0\n3 pairs, 1 of one class"
    places = shown(figure)
    for axes, index in zip(places, (0, 3, 1, 4, 2, 5), strict=True):
        np.testing.assert_array_equal(pixels(axes), images[index, ..., 0])
    titles = [axes.get_title(loc="left") for axes in places[::2]]
    assert titles == ["same  0.900", "different  0.100", "different  0.450"]
    looks = [look(axes) for axes in places[1::2]]
    assert all(a != b for a, b in zip(looks[0], looks[1], strict=True))
    assert looks[1] == looks[2]


def test_triplets_are_drawn_in_order_with_headings_in_the_first_row(images):
    figure = plots.triplets_sheet(images[:3], images[3:6], images[6:9])
    assert figure.get_suptitle() == "3 triplets"
    places = shown(figure)
    order = (0, 3, 6, 1, 4, 7, 2, 5, 8)
    for axes, index in zip(places, order, strict=True):
        np.testing.assert_array_equal(pixels(axes), images[index, ..., 0])
    words = ["anchor", "positive", "negative"]
    assert [axes.get_title() for axes in places] == [*words, *words, "", "", ""]
    positive, negative = look(places[1]), look(places[2])
    assert all(a != b for a, b in zip(positive, negative, strict=True))


def test_floats_are_drawn_as_the_bytes_that_they_came_from(images):
    noisy = images[:2] / np.float32(255) + np.array([0.0, 2.0], "f4").reshape(
        2, 1, 1, 1
    )
    figure = plots.pairs_sheet(images[:2], noisy, np.array([True, True]))
    first, as_float, _, too_bright = shown(figure)
    np.testing.assert_array_equal(pixels(first), pixels(as_float))
    assert pixels(too_bright).min() == 255


def test_more_than_the_limit_are_counted_and_not_drawn(images, tmp_path):
    same = np.arange(30) % 2 == 0
    figure = plots.pairs_sheet(images[:30], images[30:60], same, limit=5)
    assert figure.get_suptitle() == "30 pairs, 15 of one class, the first 5 drawn"
    assert len(shown(figure)) == 10
    colour = np.repeat(images[:9], 3, axis=-1)
    figure = plots.triplets_sheet(colour, colour, colour, limit=1)
    assert figure.get_suptitle() == "9 triplets, the first 1 drawn"
    plots.save(figure, tmp_path / "triplets.png")
    assert (tmp_path / "triplets.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"second": np.zeros((2, 14, 14, 1))}, ValueError, "second"),
        ({"same": np.array([1, 0, 1])}, TypeError, "bool"),
        ({"same": np.array([True])}, ValueError, "same"),
        ({"first": np.zeros((0, 14, 14, 1))}, ValueError, "`first` of images"),
        ({"limit": 0}, ValueError, "limit"),
        ({"scores": [1.0]}, ValueError, "scores"),
    ],
)
def test_bad_pairs_are_refused(images, change, error, match):
    good = {"first": images[:3], "second": images[:3], "same": np.ones(3, bool)}
    with pytest.raises(error, match=match):
        plots.pairs_sheet(**good | change)


def test_triplets_of_unequal_numbers_are_refused(images):
    with pytest.raises(ValueError, match="negatives"):
        plots.triplets_sheet(images[:3], images[:3], images[:2])
