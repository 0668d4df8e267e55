"""Pictures: what is drawn, what the titles say, and that nothing global is touched."""

import re
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from metricjax import data, plots
from tests.oracles import plots as oracle

matplotlib = pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def digits():
    found = data.load("digits", size=14)
    return found._replace(images=found.images[::25], labels=found.labels[::25])


@pytest.fixture(scope="module")
def pixels(digits):
    return digits.images.reshape(len(digits.images), -1) / np.float32(255)


def drawn(axes):
    """The number of points and whether they are filled, of each collection."""
    return [
        (
            len(np.asarray(points.get_offsets())),
            len(np.asarray(points.get_facecolor())) > 0,
        )
        for points in axes.collections
    ]


def numbers(text):
    return [float(number) for number in re.findall(r"\d+\.\d+", text)]


# principal_axes


def test_principal_axes_are_the_leading_eigenvectors_of_the_covariance(rng):
    x = rng.normal(size=(50, 6)) * [5.0, 1.0, 3.0, 0.5, 0.2, 0.1] + 7.0
    basis = plots.principal_axes(x)
    values, vectors = np.linalg.eigh(np.cov(x.T))
    np.testing.assert_allclose(basis.mean, x.mean(axis=0), rtol=1e-12)
    for axis, vector in zip(basis.axes, vectors.T[::-1], strict=False):
        assert abs(axis @ vector) == pytest.approx(1.0, abs=1e-9)
    assert values[-1] > values[-2]


# scatter


def test_a_scatter_draws_every_example_once(pixels, digits):
    figure = plots.scatter(pixels, digits.labels, title="digits")
    counts = drawn(figure.axes[0])
    assert sum(count for count, _ in counts) == 200
    assert all(filled for _, filled in counts)
    assert figure.axes[0].get_title() == "digits"


def test_unseen_classes_are_hollow_and_named_so(pixels, digits):
    seen = digits.labels < 7
    figure = plots.scatter(pixels, digits.labels, names=digits.names, seen=seen)
    counts = drawn(figure.axes[0])
    assert sum(count for count, filled in counts if not filled) == 60
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == [*"0123456", "7 (unseen)", "8 (unseen)", "9 (unseen)"]


def test_no_two_of_many_classes_look_the_same(rng):
    labels = np.arange(56)
    figure = plots.scatter(rng.normal(size=(56, 2)), labels)
    looks = set()
    for points in figure.axes[0].collections:
        colour = tuple(np.ravel(points.get_facecolor()))
        shape = tuple(np.ravel(points.get_paths()[0].vertices).round(3))
        looks.add((colour, shape))
    assert len(looks) == 56


def test_many_classes_are_counted_and_not_listed(rng):
    labels = np.arange(60)
    figure = plots.scatter(rng.normal(size=(60, 3)), labels, seen=labels < 40)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["40 classes", "20 classes (unseen)"]
    assert not figure.axes[0].texts


def test_two_dimensions_are_drawn_as_they_are(rng):
    x = rng.normal(size=(30, 2))
    figure = plots.scatter(x, np.zeros(30, int))
    points = np.concatenate([c.get_offsets() for c in figure.axes[0].collections])
    order = np.lexsort(points.T), np.lexsort(x.T)
    np.testing.assert_allclose(points[order[0]], x[order[1]])
    assert figure.axes[0].get_xlabel().startswith("dimension 1")


def test_axis_titles_give_the_share_of_variance(rng):
    x = rng.normal(size=(2000, 3)) * [3.0, 2.0, 1.0]
    figure = plots.scatter(x, np.zeros(2000, int))
    variances = np.linalg.eigvalsh(np.cov(x.T))[::-1]
    shares = (100 * variances / variances.sum()).round().astype(int)
    assert figure.axes[0].get_xlabel() == (
        f"principal axis 1 ({shares[0]} % of variance)"
    )
    assert figure.axes[0].get_ylabel() == (
        f"principal axis 2 ({shares[1]} % of variance)"
    )


def test_a_given_basis_is_used(rng):
    x = rng.normal(size=(30, 4))
    basis = plots.Basis(np.ones(4), np.eye(4)[[3, 0]])
    figure = plots.scatter(x, np.zeros(30, int), basis=basis)
    points = np.concatenate([c.get_offsets() for c in figure.axes[0].collections])
    expected = x[:, [3, 0]] - 1.0
    np.testing.assert_allclose(sorted(points.tolist()), sorted(expected.tolist()))


def test_more_examples_than_the_limit_are_thinned_evenly(rng):
    labels = np.repeat(np.arange(4), 250)
    figure = plots.scatter(rng.normal(size=(1000, 2)), labels, limit=300)
    assert sum(count for count, _ in drawn(figure.axes[0])) == 250


def test_embeddings_may_be_of_half_precision_and_all_alike():
    x = jnp.ones((6, 3), jnp.bfloat16)
    figure = plots.scatter(x, np.arange(6) % 2)
    assert "0 % of variance" in figure.axes[0].get_xlabel()


# before_after


def test_before_and_after_have_axes_of_their_own(pixels, digits):
    figure = plots.before_after(
        pixels, pixels[:, 90:100], digits.labels, titles=("raw", "cut")
    )
    assert [axes.get_title() for axes in figure.axes] == ["raw", "cut"]
    for axes in figure.axes:
        assert sum(count for count, _ in drawn(axes)) == 200
        assert axes.get_xlabel().startswith("principal axis 1")


def test_a_shared_basis_draws_both_on_the_same_axes(pixels, digits, tmp_path):
    figure = plots.before_after(pixels, 3 * pixels, digits.labels, shared_basis=True)
    plots.save(figure, tmp_path / "shared.png")
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()
    first, second = (
        np.concatenate([c.get_offsets() for c in axes.collections])
        for axes in figure.axes
    )
    basis = plots.principal_axes(np.concatenate([pixels, 3 * pixels]))
    shift = basis.mean @ basis.axes.T
    np.testing.assert_allclose(3 * (first + shift), second + shift, atol=1e-4)


def test_a_shared_basis_needs_equal_dimensions(pixels, digits):
    with pytest.raises(ValueError, match="same last axis"):
        plots.before_after(pixels, pixels[:, :5], digits.labels, shared_basis=True)


# distance_histograms


@pytest.mark.parametrize("decimals", [1, 6])
def test_the_title_of_histograms_has_the_true_numbers(rng, decimals):
    # One decimal makes many ties.
    positive = np.abs(rng.normal(0.5, 0.2, size=200)).round(decimals)
    negative = np.abs(rng.normal(1.0, 0.3, size=300)).round(decimals)
    figure = plots.distance_histograms(positive, negative, title="pairs")
    name, line = figure.axes[0].get_title().split("\n")
    assert name == "pairs"
    separation, overlap, eer = numbers(line)
    assert separation == pytest.approx(oracle.separation(positive, negative), abs=0.005)
    assert eer / 100 == pytest.approx(
        oracle.equal_error_rate(positive, negative), abs=0.0005
    )
    assert 5 < overlap < 60


def test_overlap_is_0_for_sets_apart_and_100_for_equal_sets():
    near, far = np.linspace(0, 1, 50), np.linspace(2, 3, 50)
    for other, overlap, eer in ((far, 0.0, 0.0), (near, 100.0, 50.0)):
        title = plots.distance_histograms(near, other).axes[0].get_title()
        assert numbers(title)[1] == overlap
        assert numbers(title)[2] == pytest.approx(eer, abs=1.1)


def test_the_threshold_line_says_what_it_accepts():
    figure = plots.distance_histograms(
        [0.1, 0.2, 0.6, 0.7], [0.5, 0.8, 0.9, 1.0, 1.0], threshold=0.6
    )
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[2] == "threshold 0.6: accepts 75.0 % of same, 20.0 % of different"
    assert texts[0] == "same class (4 pairs, mean 0.40)"


def test_equal_distances_can_be_drawn():
    for negative, separation in ([1.0], "0.00"), ([2.0, 2.0], "inf"):
        figure = plots.distance_histograms([1.0, 1.0], negative)
        assert f"d' = {separation}" in figure.axes[0].get_title()


@pytest.mark.parametrize("bad", [[], [np.nan], [0.1, np.inf]])
def test_empty_or_infinite_distances_are_refused(bad):
    with pytest.raises(ValueError, match="`positive`"):
        plots.distance_histograms(bad, [1.0])
    with pytest.raises(ValueError, match="`negative`"):
        plots.distance_histograms([1.0], bad)


# roc


def curve(power):
    far = np.linspace(0.0, 1.0, 101)
    return plots.RocCurve(far, far**power, auc=1 / (1 + power), eer=0.25)


def test_each_roc_curve_has_its_numbers_and_its_own_dashes():
    curves = {"raw pixels": curve(0.5), "trained": curve(0.1)}
    figure = plots.roc(curves, title="unseen classes")
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:2] == [
        "raw pixels: AUC 0.667, EER 25.0 %",
        "trained: AUC 0.909, EER 25.0 %",
    ]
    lines = [line for line in figure.axes[0].lines if np.size(line.get_xdata()) == 101]
    assert len({line.get_linestyle() for line in lines}) == 2
    assert figure.axes[0].get_title() == "unseen classes"


def test_the_roc_axis_is_logarithmic_on_request():
    figure = plots.roc({"a": curve(0.5)})
    assert figure.axes[0].get_xscale() == "log"
    assert figure.axes[0].get_xlim() == pytest.approx((0.01, 1.0))
    figure = plots.roc({"a": curve(0.5)}, log_x=False)
    assert figure.axes[0].get_xscale() == "linear"
    assert figure.axes[0].get_xlim() == (0.0, 1.0)


def test_a_curve_of_many_points_is_thinned_without_a_visible_change(rng):
    from metricjax.metrics import verification

    scores = np.concatenate([rng.normal(2, 1, 60_000), rng.normal(0, 1, 60_000)])
    full = verification.roc(scores, np.arange(120_000) < 60_000)
    curve = plots.RocCurve(full.far, full.tar, verification.auc(full), 0.16)
    axes = plots.roc({"a": curve}).axes[0]
    far, tar = (np.asarray(values) for values in axes.lines[0].get_data())
    assert len(far) <= 4002
    assert (far[0], tar[0], far[-1], tar[-1]) == (0.0, 0.0, 1.0, 1.0)
    assert np.trapezoid(tar, far) == pytest.approx(curve.auc, abs=1e-4)
    grid = np.geomspace(1e-4, 1.0, 777)
    expected = np.interp(grid, full.far, full.tar)
    assert np.abs(np.interp(grid, far, tar) - expected).max() < 0.002


def test_roc_refuses_no_curve_and_rates_that_do_not_fit():
    with pytest.raises(ValueError, match="at least one curve"):
        plots.roc({})
    with pytest.raises(ValueError, match="curve 'a'"):
        plots.roc({"a": plots.RocCurve([0.0, 1.0], [0.0, 0.5, 1.0], 0.5, 0.5)})


# retrievals


def test_right_and_wrong_neighbours_differ_in_colour_frame_and_symbol(digits):
    labels = digits.labels
    neighbours = np.array([[1, 20], [41, 2]])  # classes 0 1 and 2 0
    figure = plots.retrievals(
        digits.images,
        neighbours,
        labels,
        queries=[0, 40],
        names=[f"digit {i}" for i in range(10)],
        title="raw pixels",
    )
    assert figure.get_suptitle() == "raw pixels\n2 of 4 neighbours are of their " + (
        "query's class"
    )
    grid = np.array(figure.axes).reshape(2, 4)
    assert [axes.get_title() for axes in grid[0]] == ["digit 0", "", "", "digit 1"]
    right, wrong = grid[0, 2], grid[0, 3]
    assert right.texts[0].get_text() != wrong.texts[0].get_text()
    for look in ("get_edgecolor", "get_linestyle"):
        looks = [getattr(axes.spines["top"], look)() for axes in (right, wrong)]
        assert looks[0] != looks[1]
    np.testing.assert_array_equal(
        grid[1, 0].images[0].get_array(), digits.images[40, ..., 0]
    )


def test_colour_images_and_long_names_can_be_drawn(digits, tmp_path):
    colour = np.repeat(digits.images, 3, axis=-1)
    names = [f"Alphabet_of_the_Magi_and_more/character{i:02d}" for i in range(10)]
    figure = plots.retrievals(colour, [[20]], digits.labels, names=names)
    plots.save(figure, tmp_path / "colour.png")
    for axes in figure.axes:
        assert max(len(line) for line in axes.get_title().split("\n")) <= 15


@pytest.mark.parametrize(
    ("neighbours", "kwargs", "error", "match"),
    [
        ([1, 2], {}, ValueError, "2 axes"),
        ([[]], {}, ValueError, "2 axes"),
        ([[1.0]], {}, TypeError, "integers"),
        ([[200]], {}, ValueError, r"\[0, 200\)"),
        ([[-1]], {}, ValueError, r"\[0, 200\)"),
        ([[1], [2]], {"queries": [0]}, ValueError, "queries"),
        ([[1]], {"queries": [999]}, ValueError, "queries"),
    ],
)
def test_bad_neighbours_are_refused(digits, neighbours, kwargs, error, match):
    with pytest.raises(error, match=match):
        plots.retrievals(digits.images, neighbours, digits.labels, **kwargs)


# all of them


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"labels": np.zeros(5, int)}, ValueError, "labels"),
        ({"labels": np.eye(6, dtype=int)}, ValueError, "one-hot"),
        ({"labels": np.zeros(6)}, TypeError, "integer"),
        ({"embeddings": np.zeros((6, 1))}, ValueError, "two dimensions"),
        ({"embeddings": np.zeros((6, 3), int)}, TypeError, "floating"),
        ({"embeddings": np.zeros(6)}, ValueError, "embeddings"),
        ({"embeddings": np.full((6, 3), np.nan)}, ValueError, "finite"),
        ({"seen": np.ones(6)}, TypeError, "bool"),
        ({"seen": np.ones(5, bool)}, ValueError, "seen"),
        ({"limit": 0}, ValueError, "limit"),
    ],
)
def test_scatter_refuses_bad_input(change, error, match):
    arguments = {"embeddings": np.eye(6), "labels": np.arange(6)} | change
    with pytest.raises(error, match=match):
        plots.scatter(**arguments)


def test_a_saved_picture_is_whole_at_150_dpi(tmp_path):
    from PIL import Image

    path = tmp_path / "new" / "pairs.png"
    for _ in range(2):  # the second time over the first
        plots.save(plots.distance_histograms([0.1, 0.2], [0.8]), path)
    with Image.open(path) as image:
        assert image.size == (1050, 690)
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
    assert [file.name for file in path.parent.iterdir()] == ["pairs.png"]


def test_a_picture_that_fails_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "pairs.unknown"
    path.write_text("old")
    with pytest.raises(ValueError, match="unknown"):
        plots.save(plots.distance_histograms([0.1], [0.8]), path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["pairs.unknown"]


def test_pictures_need_neither_pyplot_nor_a_display(tmp_path):
    code = (
        "import sys; from metricjax import plots; assert 'matplotlib' not in "
        "sys.modules; plots.save(plots.distance_histograms([0.1], [0.8]), "
        "sys.argv[1]); assert 'matplotlib.pyplot' not in sys.modules"
    )
    path = tmp_path / "pairs.png"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert path.stat().st_size > 0


def test_without_matplotlib_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install"):
        plots.distance_histograms([0.1], [0.8])
