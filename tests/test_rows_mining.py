"""Miners in the engine: by themselves, and choosing the pairs of a loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from jax.tree_util import Partial

from metricjax import distances, losses, mining, pairs, reductions, rows
from metricjax.pairs import Pairs
from tests.conformance import LOSSES
from tests.conformance.row import make_inputs
from tests.oracles import losses as loops
from tests.oracles import mining as oracles

BATCH, DIM = 14, 4
LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 0, 1, 2, 3], np.int32)
KEY = jax.random.key(7)

CHAIN = Partial(
    mining.chain,
    miners=(
        Partial(mining.multi_similarity, epsilon=0.3),
        Partial(mining.hardest, positives=2, negatives=3),
    ),
)
# Pairs that are drawn, and then triplets.
DRAWING = Partial(
    mining.chain,
    miners=(
        Partial(mining.multi_similarity, epsilon=0.5),
        Partial(mining.uniform_histogram, KEY, bins=2, negatives_per_bin=2),
        Partial(
            mining.as_pairs,
            miner=Partial(mining.distance_weighted, KEY, dim=DIM, positives=3),
        ),
    ),
)


def vectors(seed=0, batch=BATCH):
    x = np.random.default_rng(seed).normal(size=(batch, DIM))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def mined_contrastive(x, labels, choose):
    """Contrastive loss over the pairs that `choose(d, positives, negatives)` keeps."""
    near, far = [], []
    for i in range(len(x)):
        d = [loops.euclidean(x[i], other) for other in x]
        near_columns, far_columns = choose(
            d, loops.positives(labels, i), loops.negatives(labels, i)
        )
        near += [d[p] ** 2 / 2 for p in near_columns]
        far += [max(1 - d[n], 0) ** 2 / 2 for n in far_columns]
    return loops.mean(near) + loops.mean(far)


def chained(d, positives, negatives):
    kept = oracles.multi_similarity(d, positives, negatives, epsilon=0.3)
    return oracles.hardest(d, *map(sorted, kept), k_positives=2, k_negatives=3)


@pytest.mark.parametrize(
    ("miner", "choose"),
    [(mining.multi_similarity, oracles.multi_similarity), (CHAIN, chained)],
    ids=["multi_similarity", "chain"],
)
@pytest.mark.usefixtures("x64")
def test_a_mined_loss_and_its_gradient_equal_the_loops(miner, choose):
    x, step = vectors(), np.random.default_rng(1).normal(size=(BATCH, DIM))
    loss = Partial(losses.contrastive, pair_miner=miner, block_size=5)
    value, gradient = jax.jit(jax.value_and_grad(loss))(x, LABELS)
    expected = mined_contrastive(x, LABELS, choose)
    assert float(value) == pytest.approx(expected, rel=1e-12)
    everything = mined_contrastive(x, LABELS, lambda d, p, n: (p, n))
    assert expected != pytest.approx(everything, rel=0.01)
    ends = [mined_contrastive(x + e * step, LABELS, choose) for e in (1e-6, -1e-6)]
    slope = (ends[0] - ends[1]) / 2e-6
    assert np.vdot(gradient, step) == pytest.approx(slope, rel=1e-6)


def test_blocks_terms_and_devices_do_not_change_what_is_drawn():
    x, labels = vectors(2, 16).astype(np.float32), np.arange(16, dtype=np.int32) % 3
    loss = functools.partial(losses.contrastive, pair_miner=DRAWING)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("data")

    def by_terms(x, labels):
        terms = loss(x, labels, block_size=3, reduction=None)
        return reductions.mean(terms)

    def sharded(x, labels):
        local = functools.partial(loss, axis_name="data")
        return jax.shard_map(
            local, mesh=mesh, in_specs=(spec, spec), out_specs=PartitionSpec()
        )(x, labels)

    @jax.jit
    def each_way(x):
        values = by_terms(x, labels), loss(x, labels, block_size=5)
        return values, [jax.value_and_grad(f)(x, labels) for f in (loss, sharded)]

    values, ((expected, slopes), (value, gradient)) = each_way(x)
    for other in (*values, value):
        np.testing.assert_allclose(other, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, slopes, atol=1e-6)


@pytest.mark.parametrize("miner", [CHAIN, DRAWING], ids=["chain", "drawing"])
def test_padding_and_empty_batches_are_safe(miner):
    x = vectors(3).astype(np.float32)
    where = np.arange(BATCH) < 10
    nan = np.where(where[:, None], x, np.nan)
    loss = jax.jit(jax.value_and_grad(Partial(losses.contrastive, pair_miner=miner)))
    value, gradient = loss(nan, LABELS, where=where)
    # A negative label is in no pair either.
    unlabelled = np.where(where, LABELS, -1)
    expected, slopes = loss(x, unlabelled, where=np.ones(BATCH, bool))
    assert float(value) == float(expected) > 0
    np.testing.assert_allclose(gradient, slopes, atol=1e-6)
    np.testing.assert_array_equal(gradient[10:], 0.0)
    value, gradient = loss(nan, LABELS, where=np.zeros(BATCH, bool))
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


def test_a_mined_loss_holds_no_matrix_of_the_batch():
    batch = 1024
    x = jax.ShapeDtypeStruct((batch, 16), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    miner = Partial(
        mining.chain,
        miners=(mining.multi_similarity, mining.hard_aware, mining.hardest),
    )
    loss = Partial(losses.contrastive, pair_miner=miner, block_size=16)
    program = jax.jit(jax.value_and_grad(loss)).lower(x, labels).compile()
    memory = program.memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < batch * batch * 4 / 2


def test_a_new_key_draws_anew_and_keys_may_be_vmapped():
    x = jnp.asarray(vectors(4), jnp.float32)

    def loss(key):
        drawn = Partial(mining.distance_weighted, key, dim=DIM, positives=3)
        miner = Partial(mining.as_pairs, miner=drawn)
        return losses.contrastive(x, LABELS, pair_miner=miner)

    keys = jax.random.split(KEY, 6)
    values = jax.jit(jax.vmap(loss))(keys)
    assert len(np.unique(values)) == 6
    np.testing.assert_allclose(values[2], jax.jit(loss)(keys[2]), rtol=1e-6)


def test_the_numbers_of_a_miner_are_traced():
    x = jnp.asarray(vectors(5), jnp.float32)

    def pairs_kept(epsilon):
        miner = Partial(mining.multi_similarity, epsilon=epsilon)
        terms = losses.contrastive(x, LABELS, pair_miner=miner, reduction=None)
        return terms.count.sum()

    counts = jax.jit(jax.vmap(pairs_kept))(jnp.linspace(0.0, 2.0, 5))
    assert np.all(np.diff(counts) >= 0)
    assert counts[0] < counts[-1] == BATCH * (BATCH - 1)


def test_a_loss_of_similarities_is_mined_through_its_own_rows():
    x = jnp.asarray(vectors(6), jnp.float32)
    miner = Partial(mining.on_similarities, miner=mining.multi_similarity)

    @jax.jit
    def both(x):
        kept = mining.multi_similarity(distances.cosine(x), pairs.from_labels(LABELS))
        return (
            losses.supcon(x, LABELS, pair_miner=miner, reduction=None),
            losses.supcon(x, kept, reduction=None),
        )

    terms, expected = both(x)
    for a, b in zip(terms, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_pair_miner_narrows_what_a_triplet_miner_chooses_from():
    x = jnp.asarray(vectors(7), jnp.float32)
    last = Partial(mining.semihard, positives=1)
    chain = Partial(mining.chain, miners=(mining.easy_positive, last))
    loss = functools.partial(losses.triplet, reduction=None)
    narrowing = functools.partial(loss, miner=last, pair_miner=mining.easy_positive)
    narrowed = jax.jit(narrowing)(x, LABELS)
    chained = jax.jit(functools.partial(loss, miner=chain))(x, LABELS)
    for a, b in zip(narrowed, chained, strict=True):
        np.testing.assert_array_equal(a, b)
    assert 0 < narrowed.count.sum() <= BATCH


def test_what_is_no_pair_cannot_be_chosen_and_triplets_are_no_pairs():
    x = jnp.asarray(vectors(8), jnp.float32)

    def everything(d, masks):
        return Pairs(jnp.ones_like(masks.positive), jnp.ones_like(masks.negative))

    found = losses.contrastive(x, LABELS, pair_miner=everything, block_size=5)
    np.testing.assert_array_equal(found, losses.contrastive(x, LABELS, block_size=5))
    with pytest.raises(TypeError, match=r"metricjax\.mining\.as_pairs"):
        losses.contrastive(x, LABELS, pair_miner=Partial(mining.hard))


@pytest.mark.parametrize(
    "row", [row for row in LOSSES if row.refs], ids=lambda row: row.name
)
def test_every_pair_loss_asks_its_pair_miner(row):
    asked = []

    def miner(measured, masks):
        asked.append(measured)
        return masks

    inputs = make_inputs(row, BATCH, 5)
    jax.eval_shape(lambda x: row.loss(**x, labels=LABELS, pair_miner=miner), inputs)
    assert asked


# --- memories (what goes wrong elsewhere) ---------------------------------------------


def test_mined_pairs_of_a_queue_have_the_labels_of_the_queue():
    queue, queue_labels = vectors(9, 20).astype(np.float32), np.arange(20) % 4
    x = vectors(10).astype(np.float32)

    def labels_of_pairs(d, masks):
        kept = mining.hard_aware(d, masks)
        other = jnp.asarray(queue_labels)
        return [jnp.where(mask, other, -1) for mask in kept]

    positive, negative = rows.mine(
        labels_of_pairs,
        x,
        LABELS,
        measure=distances.euclidean,
        ref_embeddings=queue,
        ref_labels=queue_labels,
        block_size=4,
    )
    same = queue_labels == LABELS[:, None]
    assert np.all(same[positive >= 0])
    assert not np.any(same[negative >= 0])
    assert np.all(np.any(positive >= 0, axis=1))


@pytest.mark.parametrize("choose", [mining.easy_positive, mining.multi_similarity])
def test_a_queue_that_holds_the_batch_offers_no_row_as_its_own_positive(choose):
    x, older = vectors(11).astype(np.float32), vectors(12).astype(np.float32)
    ids = np.arange(BATCH) + 100
    options = {
        "ref_embeddings": np.concatenate([x, older]),
        "ref_labels": np.concatenate([LABELS, LABELS]),
        "ids": ids,
        "ref_ids": np.concatenate([ids, ids - 100]),
    }
    kept = rows.mine(choose, x, LABELS, measure=distances.euclidean, **options)
    assert not np.any(np.diag(kept.positive))
    terms = losses.contrastive(x, LABELS, pair_miner=choose, reduction=None, **options)
    # The nearest positive is another row: it costs something.
    assert np.all(terms.total[:, 0][terms.count[:, 0] > 0] > 1e-3)
    assert terms.count[:, 0].sum() > 0


# --- mine and its candidates ----------------------------------------------------------


def largest(d, masks):
    return jnp.max(jnp.where(masks.negative, d, 0.0), axis=1)


def test_mine_counts_candidates_and_has_no_gradient():
    x, refs = (jnp.asarray(v, jnp.float32) for v in (vectors(13), vectors(14, 7)))
    ref_labels = np.arange(7) % 3
    options = {"ref_embeddings": refs, "ref_labels": ref_labels}
    measure = distances.euclidean

    @jax.jit
    def both(x):
        made = rows.mine(
            mining.hard, x, LABELS, measure=measure, block_size=4, **options
        )
        masks = pairs.from_labels(LABELS, ref_labels=ref_labels)
        return made, mining.hard(measure(x, refs), masks)

    for a, b in zip(*both(x), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(rows.candidates(x, **options), refs)

    def of_chosen(x):
        return rows.mine(largest, x, LABELS, measure=measure).sum()

    np.testing.assert_array_equal(jax.jit(jax.grad(of_chosen))(x), 0.0)


def test_candidates_are_zero_where_they_are_padding():
    x, where = jnp.full((3, 2), jnp.nan), jnp.zeros(3, bool)
    np.testing.assert_array_equal(rows.candidates(x, where=where), 0.0)
    found = rows.candidates(
        jnp.ones((1, 2)), ref_embeddings=x, ref_labels=LABELS[:3], ref_where=where
    )
    np.testing.assert_array_equal(found, 0.0)
