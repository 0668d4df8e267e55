"""Values, gradients and choices of pytorch-metric-learning, where definitions agree.

`python -m benchmarks.parity` records them; no torch is needed here.
"""

import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from metricjax import distances, losses, mining, pairs, reductions, similarities
from metricjax.metrics import clustering, retrieval
from metricjax.numerics import l2_normalize
from metricjax.pairs import Triplets

PATH = pathlib.Path(__file__).parent / "golden/pytorch_metric_learning.npz"
with np.load(PATH) as file:
    RECORD = dict(file)
INPUTS = {
    key.removeprefix("inputs/"): array
    for key, array in RECORD.items()
    if key.startswith("inputs/")
}

# What the other library offers and is not compared with, and why.
EXCEPTIONS = {
    "BatchedDistance": "a way of computing, which is `block_size` here",
    "CrossBatchMemory": "a queue, and with a miner its indices are wrong",
    "DistanceWeightedMiner": "draws at random; tested by its statistics",
    "DynamicSoftMarginLoss": "keeps the graph of the last step, so it can't be trained",
    "EmbeddingRegularizerMixin": "a base class; here one adds functions",
    "EmbeddingsAlreadyPackagedAsTriplets": "positions in a packed batch; mines nothing",
    "HDCMiner": "ranks the pairs of the batch together; ours those of each anchor",
    "InstanceLoss": "takes the number of a class for a column of the batch",
    "ManifoldLoss": "draws other classes at each call; not offered here",
    "MultipleLosses": "a weighted sum; here one adds functions",
    "PNPLoss": "counts the anchor among its positives",
    "RankedListLoss": "adds batch * 1e-5 below, and differentiates the weights",
    "SmoothAPLoss": "right only for as many classes as examples in each",
    "UniformHistogramMiner": "draws at random; tested by its statistics",
    "WeightRegularizerMixin": "a base class; here one adds functions",
}

DEGREES = np.pi / 180.0
squared = distances.squared_euclidean
cosine_distance = distances.cosine


def on(function, *, unit=False, labels="labels", **settings):
    """The loss of embeddings and labels, on unit vectors if it does not make them."""

    def call(x):
        embeddings = l2_normalize(x["embeddings"]) if unit else x["embeddings"]
        return function(embeddings, x[labels], **settings)

    return call


def on_classes(function, weights="class_weights", **settings):
    return lambda x: function(x["embeddings"], x[weights], x["labels"], **settings)


def on_references(function, *, unit=False, **settings):
    def call(x):
        own, others = x["embeddings"], x["ref_embeddings"]
        if unit:
            own, others = l2_normalize(own), l2_normalize(others)
        return function(
            own,
            x["labels"],
            ref_embeddings=others,
            ref_labels=x["ref_labels"],
            **settings,
        )

    return call


def n_pair(x):
    # One pair of each class: its first two rows.
    first = np.unique(INPUTS["labels"], return_index=True)[1]
    return losses.n_pair(
        x["embeddings"][first],
        x["labels"][first],
        regularization=0.0,
        ref_embeddings=x["embeddings"][first + 1],
        ref_labels=x["labels"][first],
    )


def p2sgrad(x):
    # The mean over classes of squares, where ours is half of their sum.
    return on_classes(losses.p2sgrad)(x) * 2.0 / x["class_weights"].shape[0]


linear = partial(losses.contrastive, squared=False)
linear_active = partial(linear, reduction=reductions.mean_active)
mine_cosines = Partial(mining.on_similarities, miner=mining.multi_similarity)
easy_semihard = Partial(
    mining.chain,
    miners=(mining.easy_positive, Partial(mining.semihard, positives=1)),
)
easy_hard = Partial(mining.chain, miners=(mining.easy_positive, mining.hard))

# Where the definition is the same and the convention is not, the row translates it:
# their losses of distances normalise, margins of angles are in degrees, "AvgNonZero" is
# `mean_active`, a margin of cosines is one of `1 - cosine` with the sign turned.
LOSSES = {
    "angular": on(losses.angular, angle=40 * DEGREES),
    "arcface": on_classes(losses.arcface, margin=28.6 * DEGREES, scale=16.0),
    "circle": on(losses.circle, margin=0.4, scale=80.0),
    "contrastive": on(linear_active, unit=True, positive_margin=0.3),
    "contrastive_cosine": on(
        linear_active, positive_margin=0.1, margin=0.7, distance=cosine_distance
    ),
    "contrastive_mean_of_squares": on(
        linear, unit=True, positive_margin=0.2, margin=1.5, distance=squared
    ),
    "contrastive_references": on_references(linear_active, unit=True),
    "cosface": on_classes(losses.cosface, margin=0.35, scale=16.0),
    "fastap": on(losses.fastap, bins=10),
    "generalized_lifted_structure": on(losses.generalized_lifted_structure, unit=True),
    # Theirs is over triplets, ours over pairs: the same for classes of one size.
    "histogram": on(losses.histogram, labels="balanced", bins=101),
    "intra_pair_variance": on(
        losses.intra_pair_variance, positive_slack=0.02, negative_slack=0.03
    ),
    "large_margin_softmax": on_classes(losses.l_softmax, margin=4.0),
    "lifted_structure": on(losses.lifted_structure, unit=True),
    "margin_based": lambda x: losses.margin_based(
        x["embeddings"], x["labels"], boundary=x["boundary"], miner=mining.all
    ),
    "multi_similarity": on(losses.multi_similarity, epsilon=None),
    "multi_similarity_mined": on(losses.multi_similarity, epsilon=0.1),
    "multi_similarity_references": on_references(
        losses.multi_similarity, base=0.4, epsilon=None
    ),
    "n_pair": n_pair,
    "nca": on(losses.nca, unit=True, scale=2.0),
    "normalized_softmax": on_classes(losses.normface, scale=1 / 0.05),
    # Their denominator has no other positives.
    "ntxent": on(losses.ntxent, temperature=0.07, other_positives=False),
    "ntxent_references": on_references(
        losses.ntxent, temperature=0.2, other_positives=False
    ),
    # They set the weights to unit vectors and leave their gradient as it falls.
    "p2sgrad": p2sgrad,
    "proxy_anchor": on_classes(losses.proxy_anchor),
    # Their Proxy-NCA has all proxies in the denominator, as Proxy-NCA++.
    "proxy_nca": on_classes(losses.proxy_nca_pp, temperature=1 / 3),
    "snr_contrastive": on(
        partial(losses.snr_contrastive, reduction=reductions.mean_active),
        unit=True,
        positive_margin=0.1,
    ),
    # Without the regulariser of the centers.
    "soft_triple": on_classes(losses.soft_triple, "centers", regularization=0.0),
    "sphereface": on_classes(losses.a_softmax, margin=4.0, annealing=0.0),
    "subcenter_arcface": on_classes(
        losses.arcface, "centers", margin=28.6 * DEGREES, scale=16.0
    ),
    "supcon": on(losses.supcon, temperature=0.1),
    "supcon_references": on_references(losses.supcon, temperature=0.2),
    "threshold_consistent_margin": on(
        losses.threshold_consistent_margin, positive_weight=1.5, negative_weight=0.7
    ),
    "triplet": on(losses.triplet_all, unit=True, margin=0.05),
    "triplet_hard": on(losses.triplet_hard, unit=True, margin=0.1),
    "triplet_references": on_references(losses.triplet_all, unit=True, margin=0.2),
    "triplet_semihard": on(losses.triplet, unit=True, miner=easy_semihard, margin=0.2),
    # All terms of a soft margin are above zero.
    "triplet_soft": on(
        losses.triplet_all,
        unit=True,
        margin=0.1,
        soft=True,
        reduction=reductions.mean,
    ),
    "triplet_swap": on(losses.triplet_all, unit=True, margin=0.2, swap=True),
    "tuplet_margin": on(losses.tuplet_margin, margin=5.73 * DEGREES, scale=64.0),
    # They halve the variance terms, as the authors' code.
    "vicreg": lambda x: losses.vicreg(
        x["embeddings"], x["other_embeddings"], variance=12.5
    ),
    "views": lambda x: losses.multi_view(
        jnp.stack([x["embeddings"], x["other_embeddings"]]), temperature=0.5
    ),
}
REGULARIZERS = {
    "center_invariant": lambda x: losses.center_invariant(x["class_weights"]),
    "lp_norm": lambda x: losses.lp_norm(x["embeddings"], order=3.0, power=2.0),
    "regularface": lambda x: losses.regularface(x["class_weights"]),
    "sparse_centers": lambda x: losses.sparse_centers(x["centers"]),
    "zero_mean": lambda x: losses.zero_mean(x["embeddings"]),
}


def matrix(distance, **settings):
    return lambda x: jnp.sum(x["cotangent"] * distance(x["embeddings"], **settings))


DISTANCES = {
    "chebyshev": matrix(distances.chebyshev),
    "cosine": matrix(similarities.cosine),
    "dot": matrix(similarities.dot),
    "euclidean": matrix(distances.euclidean),
    "lp": matrix(distances.lp, p=3.0),
    "manhattan": matrix(distances.manhattan),
    "snr": matrix(distances.snr),
    "squared_euclidean": matrix(squared),
}


def angular(d, both):
    unit = l2_normalize(INPUTS["embeddings"])
    return mining.angular(d, both, candidates=unit, angle=30 * DEGREES)


MINERS = {
    "active_band": Partial(mining.active_band, margin=0.2),
    "angular": Partial(angular),
    "easy": mining.easy,
    "easy_band": Partial(mining.easy_band, margin=0.2),
    "easy_hard": easy_hard,
    "easy_semihard": easy_semihard,
    "hard": mining.hard,
    "hard_band": mining.hard_band,
    "multi_similarity": mining.multi_similarity,
    "pair_margin": Partial(
        mining.pair_margin, positive_margin=0.5, negative_margin=0.9
    ),
    "semihard_band": Partial(mining.semihard_band, margin=0.2),
}


def recorded(group):
    """Name -> what was recorded of it."""
    found = {}
    for key, array in RECORD.items():
        if key.startswith(f"{group}/"):
            _, name, field = key.split("/")
            found.setdefault(name, {})[field] = array
    return found


# Nothing is worth optimising on twelve rows, and it takes longer to compile.
compiled = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def check(call, record):
    """Compare the value and the gradients of a scalar with what was recorded."""
    want = {name: grad for name, grad in record.items() if name != "value"}

    def ours(leaves):
        return call({**INPUTS, **leaves})

    leaves = {name: jnp.asarray(INPUTS[name]) for name in want}
    value, grads = compiled(jax.value_and_grad(ours))(leaves)
    np.testing.assert_allclose(value, record["value"], rtol=1e-8)
    for name, grad in want.items():
        assert np.abs(grad).max() > 0
        # Sums cancel: what counts is the largest entry.
        room = 1e-9 * np.abs(grad).max()
        np.testing.assert_allclose(grads[name], grad, rtol=1e-7, atol=room)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_their_gradients_are_those_of_pytorch_metric_learning(x64, name):
    check(LOSSES[name], recorded("loss")[name])


@pytest.mark.parametrize("name", REGULARIZERS)
def test_regularizers_are_those_of_pytorch_metric_learning(x64, name):
    check(REGULARIZERS[name], recorded("regularizer")[name])


@pytest.mark.parametrize("name", DISTANCES)
def test_distances_are_those_of_pytorch_metric_learning(x64, name):
    check(DISTANCES[name], recorded("distance")[name])


@pytest.mark.parametrize("name", MINERS)
def test_miners_choose_what_those_of_pytorch_metric_learning_choose(x64, name):
    # That of multi-similarity is one of cosines.
    measure = cosine_distance if name == "multi_similarity" else distances.euclidean
    rows = measure(l2_normalize(INPUTS["embeddings"]))
    chosen = compiled(MINERS[name])(rows, pairs.from_labels(INPUTS["labels"]))
    want = recorded("miner")[name]
    if isinstance(chosen, Triplets):
        anchor, slot = np.nonzero(chosen.valid)
        got = {
            "triplets": np.stack(
                [anchor, chosen.positive[anchor, slot], chosen.negative[anchor, slot]],
                axis=1,
            )
        }
        got["triplets"] = np.unique(got["triplets"], axis=0)
    else:
        got = {kind: np.argwhere(mask) for kind, mask in chosen._asdict().items()}
    assert got.keys() == want.keys()
    for kind, array in want.items():
        assert len(array) > 0
        np.testing.assert_array_equal(got[kind], array)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("by_class", [False, True])
def test_retrieval_is_that_of_the_accuracy_calculator(x64, by_class, split):
    x, y = INPUTS["gallery"], INPUTS["gallery_labels"]
    references = {"ref_embeddings": x[1::3], "ref_labels": y[1::3]} if split else {}
    queries = slice(None, None, 3) if split else slice(None)
    each = retrieval.per_query(x[queries], y[queries], ks=(1,), **references)
    average = partial(retrieval.class_mean, labels=y[queries])
    found = (average if by_class else retrieval.mean)(each)
    group = "classes" if by_class else "all"
    want = recorded("metric")[f"{group}_split" if split else group]
    got = {
        "mean_average_precision": found.map,
        "mean_average_precision_at_r": found.map_at_r,
        "mean_reciprocal_rank": found.mrr,
        "precision_at_1": found.precision_at_k[0],
        "r_precision": found.r_precision,
    }
    assert got.keys() == want.keys()
    for name, score in want.items():
        np.testing.assert_allclose(got[name], score, rtol=1e-7, err_msg=name)


def test_agreement_of_clusters_is_that_of_the_accuracy_calculator():
    found = clustering.agreement(INPUTS["clusters"], INPUTS["gallery_labels"])
    want = recorded("metric")["clusters"]
    np.testing.assert_allclose(found.nmi, want["NMI"], rtol=1e-6)
    np.testing.assert_allclose(found.ami, want["AMI"], rtol=1e-6)


def test_all_that_was_recorded_is_compared():
    groups = {
        "loss": LOSSES,
        "regularizer": REGULARIZERS,
        "distance": DISTANCES,
        "miner": MINERS,
    }
    for group, ours in groups.items():
        assert ours.keys() == recorded(group).keys()


def test_all_that_pytorch_metric_learning_offers_is_recorded_or_argued():
    assert set(RECORD["offered"]) - set(RECORD["recorded"]) == set(EXCEPTIONS)
    assert any("pytorch-metric-learning 2.9.0" in name for name in RECORD["versions"])
