"""Miners against loops, with ties, empty rows and distances that are not a number."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from metricjax import distances as metric
from metricjax import mining
from metricjax.pairs import Pairs, Triplets
from tests.oracles import mining as oracles

N, ROWS, BATCHES = 9, 8, 12

PAIR_MINERS = {
    "multi_similarity": (mining.multi_similarity, oracles.multi_similarity),
    "pair_margin": (mining.pair_margin, oracles.pair_margin),
    "hardest": (mining.hardest, oracles.hardest),
    "hardest 2 3": (
        Partial(mining.hardest, positives=2, negatives=3),
        functools.partial(oracles.hardest, k_positives=2, k_negatives=3),
    ),
    "hardest all 99": (
        Partial(mining.hardest, positives=None, negatives=99),
        functools.partial(oracles.hardest, k_positives=N, k_negatives=N),
    ),
    "easy_positive": (mining.easy_positive, oracles.easy_positive),
    "hard_aware": (mining.hard_aware, oracles.hard_aware),
}


def band(inside):
    return functools.partial(oracles.band, inside=inside)


# No margin is a multiple of 1/8, the step between distances: no tie at its edge.
TRIPLET_MINERS = {
    "hard": (mining.hard, oracles.hard),
    "easy": (mining.easy, oracles.easy),
    "semihard": (mining.semihard, oracles.semihard),
    "semihard fallback": (
        Partial(mining.semihard, fallback=True),
        functools.partial(oracles.semihard, fallback=True),
    ),
    "all": (mining.all, oracles.every),
    "hard_band": (mining.hard_band, band(lambda p, n: n <= p)),
    "semihard_band": (
        Partial(mining.semihard_band, margin=0.15),
        band(lambda p, n: p < n <= p + 0.15),
    ),
    "easy_band": (
        Partial(mining.easy_band, margin=0.15),
        band(lambda p, n: n > p + 0.15),
    ),
    "active_band": (
        Partial(mining.active_band, margin=0.15),
        band(lambda p, n: n <= p + 0.15),
    ),
}


def problems(seed=0):
    """Distances with many ties and some NaN, and masks with empty rows."""
    rng = np.random.default_rng(seed)
    shape = (BATCHES, ROWS, N)
    distances = rng.integers(0, 8, shape) / 8
    distances[rng.random(shape) < 0.05] = np.nan
    kind = rng.integers(0, 3, shape)
    kind[:, 0] = 0  # neither
    kind[:, 1][kind[:, 1] == 1] = 0  # no positives
    kind[:, 2][kind[:, 2] == 2] = 0  # no negatives
    return distances.astype(np.float32), kind == 1, kind == 2


def run(miner, *arguments, **keywords):
    """What a miner chooses, compiled, as NumPy arrays."""
    return jax.tree.map(np.asarray, jax.jit(miner)(*arguments, **keywords))


def rows_of(distances, positive, negative):
    """Each row as what the loops take, with its index."""
    for index in np.ndindex(distances.shape[:-1]):
        d = distances[index].astype(float)
        known = ~np.isnan(d)
        columns = [
            np.flatnonzero(m[index] & known).tolist() for m in (positive, negative)
        ]
        yield index, d, *columns


@pytest.mark.parametrize(
    ("miner", "oracle"), PAIR_MINERS.values(), ids=PAIR_MINERS.keys()
)
def test_pair_miners_keep_what_the_loops_keep(miner, oracle):
    distances, positive, negative = problems()
    kept = run(miner, distances, Pairs(positive, negative))
    for index, d, positives, negatives in rows_of(distances, positive, negative):
        found = tuple(set(np.flatnonzero(mask[index]).tolist()) for mask in kept)
        assert found == oracle(d, positives, negatives), index


@pytest.mark.parametrize(
    ("miner", "oracle"), TRIPLET_MINERS.values(), ids=TRIPLET_MINERS.keys()
)
def test_triplet_miners_choose_what_the_loops_choose(miner, oracle):
    distances, positive, negative = problems(1)
    chosen = run(miner, distances, Pairs(positive, negative))
    assert chosen.positive.dtype == chosen.negative.dtype == jnp.int32
    for index, d, positives, negatives in rows_of(distances, positive, negative):
        assert listed(chosen, index) == oracle(d, positives, negatives), index
    # What is not valid says nothing.
    np.testing.assert_array_equal(chosen.positive[~chosen.valid], 0)
    np.testing.assert_array_equal(chosen.negative[~chosen.valid], 0)


def listed(chosen: Triplets, index=()):
    """The valid triplets of a row as a list of (positive, negative)."""
    valid = np.asarray(chosen.valid[index])
    both = zip(
        chosen.positive[index][valid], chosen.negative[index][valid], strict=True
    )
    return [(int(p), int(n)) for p, n in both]


@pytest.mark.parametrize(
    "miner",
    [
        *(miner for miner, _ in (*PAIR_MINERS.values(), *TRIPLET_MINERS.values())),
        Partial(mining.distance_weighted, jax.random.key(0), dim=8),
        Partial(mining.uniform_histogram, jax.random.key(0)),
    ],
)
def test_nothing_comes_of_rows_without_known_distances(miner):
    shape = (BATCHES, ROWS, N)
    columns = jnp.broadcast_to(jnp.arange(N), shape)
    everything = Pairs(columns < 4, columns > 4)
    chosen = run(miner, np.full(shape, np.nan, np.float32), everything)
    last = chosen.valid if isinstance(chosen, Triplets) else chosen.positive | chosen[1]
    assert not np.any(last)


def test_a_row_alone_and_a_vmap_over_rows_choose_as_a_batch_does():
    distances, positive, negative = problems(2)
    pairs = Pairs(positive[0], negative[0])
    for miner in (mining.semihard, mining.hard_aware):
        whole = run(miner, distances[0], pairs)
        by_row = run(jax.vmap(miner), distances[0], pairs)
        alone = run(miner, distances[0, 5], Pairs(positive[0, 5], negative[0, 5]))
        for x, y, z in zip(whole, by_row, alone, strict=True):
            np.testing.assert_array_equal(x, y)
            np.testing.assert_array_equal(x[5], z)


def test_masks_are_checked():
    with pytest.raises(ValueError, match=r"`pairs.positive` of shape \[3\]"):
        mining.hard(jnp.zeros(3), Pairs(jnp.ones(4, bool), jnp.ones(3, bool)))
    with pytest.raises(TypeError, match="dtype bool"):
        mining.multi_similarity(jnp.zeros(3), Pairs(jnp.ones(3, bool), jnp.ones(3)))
    with pytest.raises(ValueError, match="at least 1"):
        mining.hardest(jnp.zeros(3), Pairs(*jnp.ones((2, 3), bool)), positives=0)


def test_distances_may_be_of_low_precision():
    distances, positive, negative = problems(3)
    pairs = Pairs(positive[0], negative[0])
    for miner in (mining.hard_aware, mining.semihard):
        low = run(miner, jnp.asarray(distances[0], jnp.bfloat16), pairs)
        for x, y in zip(low, run(miner, distances[0], pairs), strict=True):
            np.testing.assert_array_equal(x, y)


def test_the_share_that_is_kept_may_be_traced_from_nothing_to_everything():
    distances, positive, negative = problems(4)
    pairs, shares = Pairs(positive, negative), np.array([0.0, 0.25, 1.0], np.float32)
    miner = jax.vmap(lambda s, d: mining.hard_aware(d, pairs, share=s), (0, None))
    kept = run(miner, shares, distances)
    for index, d, positives, negatives in rows_of(distances, positive, negative):
        for i, share in enumerate(shares):
            found = tuple(set(np.flatnonzero(mask[i][index]).tolist()) for mask in kept)
            expected = oracles.hard_aware(d, positives, negatives, share=float(share))
            assert found == expected, index


@pytest.mark.usefixtures("x64")
def test_the_hardest_share_is_exact_for_any_floats():
    rng = np.random.default_rng(4)
    values = rng.normal(size=(5, 40)) * 10.0 ** rng.integers(-30, 30, (5, 40))
    values[:, 7], values[:, 8], values[0, 9] = 0.0, -0.0, np.inf
    for kind in (np.float64, np.float32):
        distances = values.astype(kind)
        pairs = Pairs(jnp.zeros((5, 40), bool), jnp.ones((5, 40), bool))
        kept = run(mining.hard_aware, distances, pairs, share=0.37)
        for row, mask in zip(distances, kept.negative, strict=True):
            order = np.argsort(row, kind="stable")[: math.ceil(0.37 * 40)]
            assert set(np.flatnonzero(mask)) == set(order.tolist())


# --- parts of sets --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("miner", "oracle"),
    [TRIPLET_MINERS[name] for name in ("hard_band", "easy_band")],
)
def test_positives_and_negatives_limit_the_sets(miner, oracle):
    distances, positive, negative = problems(5)
    limited = functools.partial(miner, positives=2, negatives=2)
    chosen = run(limited, distances, Pairs(positive, negative))
    assert chosen.valid.shape == (BATCHES, ROWS, 4)
    for index, d, positives, negatives in rows_of(distances, positive, negative):
        nearest = sorted(negatives, key=lambda n: d[n])
        expected = []
        for p in positives[:2]:
            expected += oracle(d, [p], nearest)[:2]
        assert listed(chosen, index) == expected, index


def test_a_margin_may_be_one_for_each_anchor():
    distances, positive, negative = problems(6)
    d, pairs = distances[0], Pairs(positive[0], negative[0])
    margins = jnp.linspace(0.05, 0.75, ROWS)
    chosen = run(mining.semihard_band, d, pairs, margin=margins)
    for (row,), d_row, positives, negatives in rows_of(d, *pairs):
        m = float(margins[row])
        inside = band(lambda p, n, m=m: p < n <= p + m)
        assert listed(chosen, row) == inside(d_row, positives, negatives)


# --- angular --------------------------------------------------------------------------


def unit_vectors(seed, n, dim):
    x = np.random.default_rng(seed).normal(size=(n, dim))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_angular_chooses_the_triplets_of_large_angle():
    x = unit_vectors(8, 10, 3)
    labels = np.arange(10) % 3
    positive = (labels[:, None] == labels) & ~np.eye(10, dtype=bool)
    negative = labels[:, None] != labels
    d = np.linalg.norm(x[:, None] - x, axis=2).astype(np.float32)
    miner = Partial(mining.angular, candidates=x.astype(np.float32))
    angle = math.radians(30.0)
    pairs = Pairs(positive, negative)
    chosen = run(miner, d, pairs, angle=angle)
    limited = functools.partial(miner, positives=2, negatives=1)
    few = run(limited, d, pairs, angle=angle)
    total = 0
    for i in range(10):
        columns = [np.flatnonzero(mask[i]).tolist() for mask in (positive, negative)]
        expected = oracles.angular(x[i], x, *columns, angle=angle)
        assert listed(chosen, i) == expected
        total += len(expected)
        # The largest angle is that of the negative nearest to the middle.
        widest = []
        for p in columns[0][:2]:
            middle = (x[i] + x[p]) / 2
            of_p = [n for q, n in expected if q == p]
            if of_p:
                widest.append((p, min(of_p, key=lambda n: math.dist(x[n], middle))))
        assert listed(few, i) == widest
    assert 0 < total < positive.sum() * 7


def test_the_default_angle_of_angular_is_twenty_degrees():
    x = jnp.array([[0.0, -1.0], [0.0, 1.0], [1.0, 0.0]])
    pairs = Pairs(jnp.array([False, True, False]), jnp.array([False, False, True]))

    @jax.jit
    def chooses(degrees):
        far = x.at[2, 0].set(1 / jnp.tan(jnp.radians(degrees)))
        d = metric.euclidean(far, exact=True)[0]
        return jnp.any(mining.angular(d, pairs, candidates=far, positives=1).valid)

    assert chooses(20.1)
    assert not chooses(19.9)


def test_angular_wants_one_vector_for_each_column():
    with pytest.raises(ValueError, match=r"`candidates` of shape \[3, 2\]"):
        mining.angular(
            jnp.zeros(3), Pairs(*jnp.ones((2, 3), bool)), candidates=jnp.ones((4, 2))
        )


# --- putting miners together ----------------------------------------------------------


def test_a_chain_narrows_step_by_step_and_may_end_in_triplets():
    distances, positive, negative = problems(9)
    d, pairs = distances[0], Pairs(positive[0], negative[0])
    first, second = mining.easy_positive, Partial(mining.hardest, negatives=3)
    kept = mining.chain(d, pairs, miners=(first, second))
    for x, y in zip(kept, second(d, first(d, pairs)), strict=True):
        np.testing.assert_array_equal(x, y)
    last = Partial(mining.semihard, positives=1)
    chosen = run(Partial(mining.chain, miners=(first, last)), d, pairs)
    for (row,), d_row, positives, negatives in rows_of(d, *pairs):
        easiest = sorted(oracles.easy_positive(d_row, positives, negatives)[0])
        assert listed(chosen, row) == oracles.semihard(d_row, easiest, negatives)
    assert mining.chain(d, pairs, miners=()) is pairs
    with pytest.raises(TypeError, match="can only be the last"):
        mining.chain(d, pairs, miners=(mining.hard, first))


def test_the_pairs_of_triplets_are_those_that_occur_in_one():
    distances, positive, negative = problems(10)
    miner, oracle = TRIPLET_MINERS["semihard"]
    as_pairs = Partial(mining.as_pairs, miner=miner)
    kept = run(as_pairs, distances, Pairs(positive, negative))
    for index, d, positives, negatives in rows_of(distances, positive, negative):
        chosen = oracle(d, positives, negatives)
        found = [set(np.flatnonzero(mask[index]).tolist()) for mask in kept]
        assert found == [{p for p, _ in chosen}, {n for _, n in chosen}], index


def test_on_similarities_the_nearest_is_the_largest():
    x = unit_vectors(11, 8, 4).astype(np.float32)
    labels = np.arange(8) % 2
    positive = (labels[:, None] == labels) & ~np.eye(8, dtype=bool)
    pairs = Pairs(positive, labels[:, None] != labels)
    cosine = x @ x.T
    for miner in (mining.hard, mining.multi_similarity):
        found = run(Partial(mining.on_similarities, miner=miner), cosine, pairs)
        for a, b in zip(found, run(miner, 1 - cosine, pairs), strict=True):
            np.testing.assert_array_equal(a, b)
    chosen = run(Partial(mining.on_similarities, miner=mining.hard), cosine, pairs)
    i = np.arange(8)
    np.testing.assert_array_equal(
        cosine[i, chosen.negative[:, 0]], np.where(pairs.negative, cosine, -2).max(1)
    )


def test_ties_go_to_the_lowest_index_in_long_rows_too():
    rng = np.random.default_rng(12)
    distances = rng.integers(0, 3, (4, 2000)).astype(np.float32)
    pairs = Pairs(jnp.zeros((4, 2000), bool), jnp.asarray(rng.random((4, 2000)) < 0.6))
    for miner in (
        Partial(mining.hardest, negatives=7),
        Partial(mining.hard_aware, share=0.3),
    ):
        kept = run(miner, distances, pairs).negative
        for row, mask, found in zip(distances, pairs.negative, kept, strict=True):
            columns = np.flatnonzero(mask)
            order = columns[np.argsort(row[columns], kind="stable")]
            np.testing.assert_array_equal(
                np.flatnonzero(found), np.sort(order[: found.sum()])
            )
            assert found.sum() in (7, math.ceil(0.3 * len(columns)))


def test_labels_in_place_of_pairs_are_refused_with_a_cure():
    with pytest.raises(TypeError, match="make them of labels with pairs.from_labels"):
        mining.hard(jnp.zeros((2, 2)), jnp.array([0, 1]))  # pyright: ignore
