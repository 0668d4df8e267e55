"""Distances against loops in float64: values, gradients and the edges of both."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from jax.tree_util import Partial

from metricjax import distances, similarities
from tests.oracles import distances as oracles

FACTOR = np.random.default_rng(3).normal(size=(3, 5))

# Name -> (distance, oracle of two vectors).
CASES = {
    "squared_euclidean": (distances.squared_euclidean, oracles.squared_euclidean),
    "squared_euclidean exact": (
        Partial(distances.squared_euclidean, exact=True),
        oracles.squared_euclidean,
    ),
    "euclidean": (distances.euclidean, oracles.euclidean),
    "euclidean exact": (Partial(distances.euclidean, exact=True), oracles.euclidean),
    "manhattan": (distances.manhattan, oracles.manhattan),
    "chebyshev": (distances.chebyshev, oracles.chebyshev),
    "cosine": (distances.cosine, oracles.cosine),
    "lp 1.5": (
        Partial(distances.lp, p=1.5),
        functools.partial(oracles.lp, p=1.5),
    ),
    "lp 4": (Partial(distances.lp, p=4.0), functools.partial(oracles.lp, p=4.0)),
    "snr": (distances.snr, oracles.snr),
    "snr exact": (Partial(distances.snr, exact=True), oracles.snr),
    "hyperbolic": (
        distances.hyperbolic,
        functools.partial(oracles.hyperbolic, curvature=0.1),
    ),
    "hyperbolic exact": (
        Partial(distances.hyperbolic, curvature=0.8, exact=True),
        functools.partial(oracles.hyperbolic, curvature=0.8),
    ),
    "mahalanobis": (
        Partial(distances.mahalanobis, factor=FACTOR.astype(np.float32)),
        functools.partial(oracles.mahalanobis, factor=FACTOR.astype(np.float32)),
    ),
    "hamming": (distances.hamming, oracles.relaxed_hamming),
    "negative dot": (
        Partial(distances.negative, similarity=similarities.dot),
        lambda x, y: -oracles.dot(x, y),
    ),
}
every = pytest.mark.parametrize(
    ("distance", "oracle"), CASES.values(), ids=CASES.keys()
)
# Without those that differ in how a squared distance is made, but for one.
DISTINCT = {k: v for k, v in CASES.items() if "exact" not in k or k[0] == "e"}
distinct = pytest.mark.parametrize(
    ("distance", "oracle"), DISTINCT.values(), ids=DISTINCT.keys()
)


def two_sides(seed=0, n=4, m=3, dim=5):
    rng = np.random.default_rng(seed)
    # Short enough for the Poincare ball.
    return 0.2 * rng.normal(size=(n, dim)), 0.2 * rng.normal(size=(m, dim))


def slope(function, at, step, size=1e-6):
    """Directional derivative of a function of a tree of arrays, by differences."""
    ends = [
        function(*(x + sign * size * s for x, s in zip(at, step, strict=True)))
        for sign in (1, -1)
    ]
    return (ends[0] - ends[1]) / (2 * size)


@every
@pytest.mark.usefixtures("x64")
def test_value_and_gradient_equal_the_loops_in_float64(distance, oracle):
    x, y = two_sides()
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(4, 3))

    @jax.jit
    def both(x, y):
        out, pullback = jax.vjp(distance, x, y)
        return out, pullback(jnp.asarray(weights))

    out, gradients = both(x, y)
    np.testing.assert_allclose(out, oracles.matrix(oracle, x, y), rtol=1e-11)

    def weighted(x, y):
        return np.sum(weights * oracles.matrix(oracle, x, y))

    for _ in range(2):
        step = [rng.normal(size=side.shape) for side in (x, y)]
        found = sum(np.vdot(g, s) for g, s in zip(gradients, step, strict=True))
        assert found == pytest.approx(slope(weighted, (x, y), step), rel=2e-7)


@distinct
def test_any_float_gives_a_float32_distance_and_a_gradient_of_its_own(distance, oracle):
    x, y = two_sides(2)
    kinds = (jnp.float32, jnp.bfloat16)
    inputs = [(jnp.asarray(x, kind), jnp.asarray(y, kind)) for kind in kinds]

    @jax.jit
    def each(inputs):
        return [
            (jax.grad(lambda x, y: distance(x, y).sum())(x, y), distance(x, y))
            for x, y in inputs
        ]

    for (x, y), (gradient, out) in zip(inputs, each(inputs), strict=True):
        assert out.dtype == jnp.float32
        expected = oracles.matrix(oracle, np.asarray(x, float), np.asarray(y, float))
        np.testing.assert_allclose(out, expected, rtol=2e-5, atol=1e-6)
        assert gradient.dtype == x.dtype


def edges():
    """Name -> x `[4, 5]`: what a network may put out."""
    x = np.random.default_rng(4).normal(size=(4, 5))
    return {
        "duplicates": np.broadcast_to(x[:1], x.shape),
        "zeros": np.zeros_like(x),
        "one zero": x * (np.arange(4) > 0)[:, None],
        "antipodes": np.concatenate([x[:2], -x[:2]]),
        "constant rows": np.ones_like(x) * np.arange(4)[:, None],
        "large": 1e4 * x,
        "tiny": 1e-6 * x,
        "one coordinate": x * (np.arange(5) == 2),
    }


@distinct
def test_edges_are_finite_and_without_y_it_is_that_of_x_to_itself(distance, oracle):
    named = edges()
    stacked = jnp.stack([jnp.asarray(x, jnp.float32) for x in named.values()])

    def one(x):
        out, pullback = jax.vjp(distance, x)
        return out, pullback(jnp.ones_like(out))[0], distance(x, x)

    values, gradients, others = jax.jit(jax.vmap(one))(stacked)
    for name, value, gradient in zip(named, values, gradients, strict=True):
        assert np.all(np.isfinite(value)), name
        assert np.all(np.isfinite(gradient)), name
    np.testing.assert_array_equal(values, others)


@distinct
def test_bad_shapes_are_refused(distance, oracle):
    x = jnp.zeros((4, 5))
    with pytest.raises(ValueError, match=r"\[rows, dim\]"):
        distance(x[0], x)
    with pytest.raises(ValueError, match=r"\[rows, dim\]"):
        distance(x, x[None])
    with pytest.raises(ValueError, match="same last axis"):
        distance(x, x[:, :3])


@pytest.mark.parametrize("name", [name for name in CASES if name != "hamming"])
def test_integers_are_refused(name):
    with pytest.raises(TypeError, match="floating"):
        CASES[name][0](jnp.zeros((4, 5), jnp.int32))


METRICS = ["euclidean", "chebyshev", "lp 1.5", "hyperbolic"]


@functools.cache
def compiled(name):
    return jax.jit(CASES[name][0])


coordinates = st.floats(-1, 1, allow_subnormal=False)


@pytest.mark.parametrize("name", METRICS)
@given(x=arrays.arrays(np.float64, (3, 5), elements=coordinates))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_a_metric_is_symmetric_and_obeys_the_triangle_inequality(name, x):
    with jax.enable_x64(True):
        d = np.asarray(compiled(name)(jnp.asarray(x)))
    np.testing.assert_allclose(d, d.T, atol=1e-12)
    assert np.all(d >= 0)
    # The product form leaves the square root of rounding on the diagonal.
    assert d[0, 1] <= d[0, 2] + d[2, 1] + 1e-6


# --- one by one -----------------------------------------------------------------------


def test_exact_differences_keep_the_digits_of_near_duplicates():
    x = np.random.default_rng(0).normal(size=(6, 32)).astype(np.float32)
    y = x + np.float32(1e-3) * np.random.default_rng(1).normal(size=x.shape)
    y = y.astype(np.float32)
    expected = np.diag(
        oracles.matrix(oracles.squared_euclidean, *map(np.float64, (x, y)))
    )
    exact = jax.jit(Partial(distances.squared_euclidean, exact=True))
    product = jax.jit(distances.squared_euclidean)
    np.testing.assert_allclose(np.diag(exact(x, y)), expected, rtol=1e-6)
    np.testing.assert_allclose(np.diag(product(x, y)), expected, atol=1e-6 * 2 * 32)
    assert np.all(np.diag(exact(x, x)) == 0)
    assert np.all(product(x, x) >= 0)


@pytest.mark.parametrize(
    "distance",
    [distances.manhattan, distances.chebyshev, distances.lp, distances.hamming],
)
def test_no_cube_of_differences_exists(distance):
    n, dim = 256, 64
    x = jax.ShapeDtypeStruct((n, dim), jnp.float32)

    def total(x, y):
        return jnp.sum(distance(x, y))

    program = jax.jit(jax.value_and_grad(total, argnums=(0, 1))).lower(x, x).compile()
    memory = program.memory_analysis()
    assert memory is not None
    # A fifth of one [n, n, dim] array of float32.
    assert memory.temp_size_in_bytes < n * n * dim * 4 / 5


@pytest.mark.usefixtures("x64")
def test_lp_at_one_two_and_large_p_is_manhattan_euclidean_and_chebyshev():
    x, y = two_sides(6)
    lp = jax.jit(lambda p: distances.lp(x, y, p=p))
    for p, other, rtol in (
        (1.0, oracles.manhattan, 1e-12),
        (2.0, oracles.euclidean, 1e-12),
        (200.0, oracles.chebyshev, 1e-2),
    ):
        np.testing.assert_allclose(lp(p), oracles.matrix(other, x, y), rtol=rtol)


@pytest.mark.usefixtures("x64")
def test_lp_has_the_gradient_of_a_traced_exponent():
    x, y = two_sides(7)
    gradient = jax.jit(jax.grad(lambda p, y: distances.lp(x, y, p=p).sum()))
    found = gradient(1.7, y)

    def total(p):
        return np.sum(oracles.matrix(functools.partial(oracles.lp, p=float(p)), x, y))

    assert float(found) == pytest.approx(slope(total, (1.7,), (1.0,)), rel=1e-7)
    assert np.isfinite(gradient(1.7, x[:3]))


def test_lp_overflows_for_no_power():
    p = np.array([1.0, 9.0, 50.0])

    def far(x, p):
        return distances.lp(x, jnp.zeros((1, 3)), p=p)[0, 0]

    each = jax.jit(jax.vmap(jax.value_and_grad(far), in_axes=(None, 0)))
    values, gradients = each(jnp.full((1, 3), 1e4), jnp.asarray(p, jnp.float32))
    np.testing.assert_allclose(values, 1e4 * 3 ** (1 / p), rtol=1e-5)
    np.testing.assert_allclose(gradients[:, 0, 0], 3 ** (1 / p - 1), rtol=1e-5)


@pytest.mark.parametrize("p", [0.5, 0, float("inf"), float("nan")])
def test_lp_refuses_what_is_no_norm(p):
    with pytest.raises(ValueError, match="at least 1"):
        distances.lp(jnp.zeros((1, 2)), p=p)


def test_snr_is_unchanged_by_scale_and_shift_and_not_symmetric():
    x, y = (jnp.asarray(side, jnp.float32) for side in two_sides(8, 3, 3))
    snr = jax.jit(distances.snr)
    base = snr(x, y)
    np.testing.assert_allclose(snr(3 * x + 2, 3 * y + 2), base, rtol=1e-4)
    assert not np.allclose(base, snr(y, x).T, rtol=0.1)


def test_snr_of_an_anchor_without_signal_is_zero_with_zero_gradient():
    x, y = jnp.full((1, 4), 2.0), jnp.asarray(two_sides(9, dim=4)[1], jnp.float32)
    total = jax.jit(jax.value_and_grad(lambda x: distances.snr(x, y).sum()))
    value, gradient = total(x)
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.usefixtures("x64")
def test_hyperbolic_tends_to_twice_the_euclidean_distance():
    x, y = two_sides(10)
    found = jax.jit(Partial(distances.hyperbolic, curvature=1e-8))(x, y)
    expected = 2 * oracles.matrix(oracles.euclidean, x, y)
    np.testing.assert_allclose(found, expected, rtol=1e-7)


@pytest.mark.usefixtures("x64")
def test_hyperbolic_has_the_gradient_of_a_traced_curvature():
    x, y = two_sides(11)
    gradient = jax.grad(lambda c: distances.hyperbolic(x, y, curvature=c).sum())
    found = jax.jit(gradient)(0.7)

    def total(c):
        between = functools.partial(oracles.hyperbolic, curvature=float(c))
        return np.sum(oracles.matrix(between, x, y))

    assert float(found) == pytest.approx(slope(total, (0.7,), (1.0,)), rel=1e-6)


def test_hyperbolic_keeps_the_digits_of_close_points():
    x = np.array([[0.3, 0.4]], np.float32)
    y = np.array([[0.3, 0.4001]], np.float32)
    found = jax.jit(Partial(distances.hyperbolic, curvature=1.0, exact=True))(x, y)
    # The metric of the ball: twice the length over 1 - |x|^2.
    assert float(found[0, 0]) == pytest.approx(2 * (y - x)[0, 1] / 0.75, rel=2e-4)


def test_hyperbolic_moves_points_outside_of_the_ball_to_just_inside():
    x = jnp.array([[0.0, 5.0], [0.0, 1.0], [0.0, 0.999]])
    d = jax.jit(Partial(distances.hyperbolic, curvature=1.0))(x, jnp.zeros((1, 2)))
    np.testing.assert_allclose(d[:, 0], 2 * np.arctanh(0.999), rtol=1e-4)


@pytest.mark.usefixtures("x64")
def test_to_ball_is_the_exponential_map():
    x = np.random.default_rng(12).normal(size=(5, 4))

    @jax.jit
    def map_and_measure(x):
        ball = distances.to_ball(x, curvature=0.3, clip=None)
        return ball, distances.hyperbolic(jnp.zeros((1, 4)), ball, curvature=0.3)

    ball, d = map_and_measure(x)
    lengths = np.linalg.norm(x, axis=1)
    np.testing.assert_allclose(
        ball, x * (np.tanh(np.sqrt(0.3) * lengths) / (np.sqrt(0.3) * lengths))[:, None]
    )
    # Along a ray from the origin it keeps distances, but for the factor two.
    np.testing.assert_allclose(d[0], 2 * lengths, rtol=1e-9)


def test_to_ball_at_the_origin_is_the_identity_and_clips_long_vectors():
    to_ball = jax.jit(distances.to_ball)
    _, slopes = jax.jvp(to_ball, (jnp.zeros((3, 3)),), (jnp.eye(3),))
    np.testing.assert_allclose(slopes, np.eye(3))
    long = to_ball(jnp.diag(jnp.array([2.3, 1e6, 1e20])))
    np.testing.assert_allclose(jnp.diag(long), long[0, 0], rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_mahalanobis_has_the_gradient_of_its_factor():
    x, y = two_sides(13)

    def total(factor):
        return distances.mahalanobis(x, y, factor=factor).sum()

    gradient = jax.jit(jax.grad(total))(jnp.asarray(FACTOR))
    step = np.random.default_rng(14).normal(size=FACTOR.shape)

    def loops(factor):
        between = functools.partial(oracles.mahalanobis, factor=factor)
        return np.sum(oracles.matrix(between, x, y))

    expected = slope(loops, (FACTOR,), (step,))
    assert np.vdot(gradient, step) == pytest.approx(expected, rel=1e-7)


def test_mahalanobis_of_the_identity_is_euclidean_and_bad_factors_are_refused():
    x, y = (jnp.asarray(side, jnp.float32) for side in two_sides(15))
    found = jax.jit(distances.mahalanobis)(x, y, factor=jnp.eye(5))
    expected = oracles.matrix(oracles.euclidean, x, y)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="same last axis"):
        distances.mahalanobis(x, y, factor=jnp.eye(4))
    with pytest.raises(TypeError, match="floating"):
        distances.mahalanobis(x, y, factor=jnp.eye(5, dtype=int))


def test_hamming_counts_the_bits_of_every_form_of_code():
    rng = np.random.default_rng(16)
    x, y = (rng.integers(0, 2, (n, 27)).astype(bool) for n in (5, 4))
    expected = oracles.matrix(oracles.hamming, x, y)
    forms = {
        "bool": (x, y),
        "0/1 floats": (x.astype(np.float32), y.astype(np.float32)),
        "0/1 integers": (x.astype(np.int8), y.astype(np.int8)),
        "packed": (np.packbits(x, axis=1), np.packbits(y, axis=1)),
        "bool and floats": (x, y.astype(np.float32)),
    }
    for name, (left, right) in forms.items():
        found = jax.jit(distances.hamming)(left, right)
        assert found.dtype == jnp.float32, name
        np.testing.assert_array_equal(found, expected, err_msg=name)
    words = [
        np.packbits(np.pad(c, ((0, 0), (0, 5))), axis=1).view(np.uint32) for c in (x, y)
    ]
    np.testing.assert_array_equal(jax.jit(distances.hamming)(*words), expected)


def test_hamming_refuses_codes_of_two_kinds():
    with pytest.raises(TypeError, match="one integer dtype"):
        distances.hamming(jnp.zeros((2, 3), jnp.uint8), jnp.zeros((2, 3)))


def test_paired_is_the_diagonal_with_its_gradient():
    x, y = (jnp.asarray(side, jnp.float32) for side in two_sides(17, 4, 4))
    for name in ("manhattan", "hyperbolic", "snr"):
        distance, oracle = CASES[name]
        found = jax.jit(functools.partial(distances.paired, distance=distance))(x, y)
        expected = [oracle(a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    gradient = jax.jit(jax.grad(lambda x: distances.paired(x, x).sum()))(x)
    np.testing.assert_array_equal(gradient, 0.0)
    with pytest.raises(ValueError, match="one row of `y`"):
        distances.paired(x, y[:3])
