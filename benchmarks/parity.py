"""Record what pytorch-metric-learning computes, for `tests/test_parity.py`.

    python -m benchmarks.parity

It writes float64 values and gradients of the losses, regularisers, distances, miners
and metrics that both libraries define alike, on small fixed inputs. It needs the extra
`peers`; the tests read only the file that it writes.
"""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytorch_metric_learning as pml
import torch
from pytorch_metric_learning import distances, losses, miners, reducers, regularizers
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from torch.nn.functional import normalize

PATH = pathlib.Path(__file__).parents[1] / "tests/golden/pytorch_metric_learning.npz"
Tensors = dict[str, Any]


def inputs() -> dict[str, np.ndarray]:
    """Small inputs: classes of 4, 3, 3 and 2 rows, so that counts matter."""
    rng = np.random.default_rng(20)
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3])
    # The last class has one row, which no other row can be found for.
    gallery_labels = np.repeat(np.arange(7), [9, 8, 7, 7, 5, 3, 1])
    return {
        # A common part makes positives near enough for every kind of triplet.
        "embeddings": rng.normal(size=(12, 5)) + rng.normal(size=(4, 5))[labels],
        "labels": labels,
        "balanced": np.repeat(np.arange(4), 3),
        "ref_embeddings": rng.normal(size=(8, 5)),
        "ref_labels": np.array([0, 1, 2, 3, 3, 2, 1, 0]),
        "other_embeddings": rng.normal(size=(12, 5)),
        "class_weights": rng.normal(size=(4, 5)),
        "centers": rng.normal(size=(4, 3, 5)),
        "boundary": np.array([0.9, 1.0, 1.1, 1.2]),
        "cotangent": rng.normal(size=(12, 12)),
        "gallery": rng.normal(size=(40, 4))
        + 0.8 * rng.normal(size=(7, 4))[gallery_labels],
        "gallery_labels": gallery_labels,
        "clusters": rng.integers(0, 6, size=40),
    }


class Case(NamedTuple):
    """One recorded scalar.

    Attributes:
        peer: the class of pytorch-metric-learning that makes it.
        make: makes the loss, of inputs given by name.
        call: of the loss and the inputs, the scalar.
        wrt: the inputs to differentiate.
        own: attribute of the loss that holds an input of the case, and its name.
    """

    peer: str
    make: Callable[[], Any]
    call: Callable[[Any, Tensors], Any] = lambda loss, x: loss(
        x["embeddings"], x["labels"]
    )
    wrt: tuple[str, ...] = ("embeddings",)
    own: tuple[str, str] | None = None


def _plain(peer: str, **settings: Any) -> Case:
    return Case(peer, lambda: getattr(losses, peer)(**settings))


def _classes(
    peer: str, attribute: str, weights: str = "class_weights", **settings: Any
) -> Case:
    shape = {"num_classes": 4, "embedding_size": 5}
    return Case(
        peer,
        lambda: getattr(losses, peer)(**shape, **settings),
        own=(attribute, weights),
    )


def _with_references(peer: str, **settings: Any) -> Case:
    def call(loss: Any, x: Tensors) -> Any:
        return loss(
            x["embeddings"],
            x["labels"],
            ref_emb=x["ref_embeddings"],
            ref_labels=x["ref_labels"],
        )

    make = _plain(peer, **settings).make
    return Case(peer, make, call, ("embeddings", "ref_embeddings"))


def _mined(peer: str, miner: Any, **settings: Any) -> Case:
    def call(loss: Any, x: Tensors) -> Any:
        chosen = miner(x["embeddings"], x["labels"])
        return loss(x["embeddings"], x["labels"], chosen)

    return Case(peer, _plain(peer, **settings).make, call)


def _p2sgrad(loss: Any, x: Tensors) -> Any:
    # torch's renorm divides by the norm and 1e-7: long rows come out as unit vectors.
    loss.weight.data = 1e6 * x["class_weights"].T
    return loss(x["embeddings"], x["labels"])


LOSSES = {
    "angular": _plain("AngularLoss", alpha=40)._replace(
        # It normalises all but the negatives.
        call=lambda loss, x: loss(normalize(x["embeddings"]), x["labels"])
    ),
    "arcface": _classes("ArcFaceLoss", "W", margin=28.6, scale=16),
    "circle": _plain("CircleLoss", m=0.4, gamma=80),
    "contrastive": _plain("ContrastiveLoss", pos_margin=0.3, neg_margin=1),
    "contrastive_cosine": _plain(
        "ContrastiveLoss",
        pos_margin=0.9,
        neg_margin=0.3,
        distance=distances.CosineSimilarity(),
    ),
    "contrastive_mean_of_squares": _plain(
        "ContrastiveLoss",
        pos_margin=0.2,
        neg_margin=1.5,
        distance=distances.LpDistance(power=2),
        reducer=reducers.MeanReducer(),
    ),
    "contrastive_references": _with_references("ContrastiveLoss"),
    "cosface": _classes("CosFaceLoss", "W", margin=0.35, scale=16),
    "fastap": _plain("FastAPLoss", num_bins=10),
    "generalized_lifted_structure": _plain(
        "GeneralizedLiftedStructureLoss", neg_margin=1
    ),
    "histogram": _plain("HistogramLoss", n_bins=100)._replace(
        call=lambda loss, x: loss(x["embeddings"], x["balanced"])
    ),
    "intra_pair_variance": _plain("IntraPairVarianceLoss", pos_eps=0.02, neg_eps=0.03),
    "large_margin_softmax": _classes("LargeMarginSoftmaxLoss", "W", margin=4),
    "lifted_structure": _plain("LiftedStructureLoss", neg_margin=1),
    "margin_based": Case(
        "MarginLoss",
        lambda: losses.MarginLoss(margin=0.2, learn_beta=True, num_classes=4),
        own=("beta", "boundary"),
    ),
    "multi_similarity": _plain("MultiSimilarityLoss", alpha=2, beta=50, base=0.5),
    "multi_similarity_mined": _mined(
        "MultiSimilarityLoss", miners.MultiSimilarityMiner(epsilon=0.1), alpha=2
    ),
    "multi_similarity_references": _with_references("MultiSimilarityLoss", base=0.4),
    "n_pair": _plain(
        "NPairsLoss",
        distance=distances.DotProductSimilarity(normalize_embeddings=False),
    ),
    "nca": _plain("NCALoss", softmax_scale=2),
    "normalized_softmax": _classes("NormalizedSoftmaxLoss", "W", temperature=0.05),
    "ntxent": _plain("NTXentLoss", temperature=0.07),
    "ntxent_references": _with_references("NTXentLoss", temperature=0.2),
    "p2sgrad": Case("P2SGradLoss", lambda: losses.P2SGradLoss(5, 4), _p2sgrad),
    "proxy_anchor": _classes("ProxyAnchorLoss", "proxies", margin=0.1, alpha=32),
    "proxy_nca": _classes("ProxyNCALoss", "proxies", softmax_scale=3),
    "snr_contrastive": _plain(
        "SignalToNoiseRatioContrastiveLoss", pos_margin=0.1, neg_margin=1
    ),
    "soft_triple": _classes(
        "SoftTripleLoss", "fc", "centers", centers_per_class=3, la=20, gamma=0.1
    ),
    "sphereface": _classes("SphereFaceLoss", "W", margin=4),
    "subcenter_arcface": _classes(
        "SubCenterArcFaceLoss", "W", "centers", sub_centers=3, margin=28.6, scale=16
    ),
    "supcon": _plain("SupConLoss", temperature=0.1),
    "supcon_references": _with_references("SupConLoss", temperature=0.2),
    "threshold_consistent_margin": _plain(
        "ThresholdConsistentMarginLoss", lambda_plus=1.5, lambda_minus=0.7
    ),
    "triplet": _plain("TripletMarginLoss", margin=0.05),
    "triplet_hard": _mined(
        "TripletMarginLoss",
        miners.BatchHardMiner(),
        margin=0.1,
        reducer=reducers.MeanReducer(),
    ),
    "triplet_references": _with_references("TripletMarginLoss", margin=0.2),
    "triplet_semihard": _mined(
        "TripletMarginLoss",
        miners.BatchEasyHardMiner("easy", "semihard"),
        margin=0.2,
        reducer=reducers.MeanReducer(),
    ),
    "triplet_soft": _plain("TripletMarginLoss", margin=0.1, smooth_loss=True),
    "triplet_swap": _plain("TripletMarginLoss", margin=0.2, swap=True),
    "tuplet_margin": _plain("TupletMarginLoss", margin=5.73, scale=64),
    "vicreg": Case(
        "VICRegLoss",
        losses.VICRegLoss,
        lambda loss, x: loss(x["embeddings"], ref_emb=x["other_embeddings"]),
        ("embeddings", "other_embeddings"),
    ),
    "views": Case(
        "SelfSupervisedLoss",
        lambda: losses.SelfSupervisedLoss(losses.NTXentLoss(temperature=0.5)),
        lambda loss, x: loss(x["embeddings"], x["other_embeddings"]),
        ("embeddings", "other_embeddings"),
    ),
}


def _regularizer(peer: str, *settings: Any, on: str = "embeddings", **more: Any):
    return Case(
        peer,
        lambda: getattr(regularizers, peer)(*settings, **more),
        lambda loss, x: loss(x[on].reshape(-1, 5)),
        (on,),
    )


REGULARIZERS = {
    "center_invariant": _regularizer("CenterInvariantRegularizer", on="class_weights"),
    "lp_norm": _regularizer("LpRegularizer", p=3, power=2),
    "regularface": _regularizer("RegularFaceRegularizer", on="class_weights"),
    "sparse_centers": _regularizer("SparseCentersRegularizer", 4, 3, on="centers"),
    "zero_mean": _regularizer("ZeroMeanRegularizer"),
}


def _distance(peer: str, **settings: Any) -> Case:
    def call(distance: Any, x: Tensors) -> Any:
        return torch.sum(x["cotangent"] * distance(x["embeddings"]))

    return Case(peer, lambda: getattr(distances, peer)(**settings), call)


DISTANCES = {
    "chebyshev": _distance("LpDistance", normalize_embeddings=False, p=float("inf")),
    "cosine": _distance("CosineSimilarity"),
    "dot": _distance("DotProductSimilarity", normalize_embeddings=False),
    "euclidean": _distance("LpDistance", normalize_embeddings=False),
    "lp": _distance("LpDistance", normalize_embeddings=False, p=3),
    "manhattan": _distance("LpDistance", normalize_embeddings=False, p=1),
    "snr": _distance("SNRDistance", normalize_embeddings=False),
    "squared_euclidean": _distance("LpDistance", normalize_embeddings=False, power=2),
}

MINERS = {
    "active_band": miners.TripletMarginMiner(0.2, "all"),
    "angular": miners.AngularMiner(30),
    "easy": miners.BatchEasyHardMiner("easy", "easy"),
    "easy_band": miners.TripletMarginMiner(0.2, "easy"),
    "easy_hard": miners.BatchEasyHardMiner("easy", "hard"),
    "easy_semihard": miners.BatchEasyHardMiner("easy", "semihard"),
    "hard": miners.BatchHardMiner(),
    "hard_band": miners.TripletMarginMiner(0.2, "hard"),
    "multi_similarity": miners.MultiSimilarityMiner(0.1),
    "pair_margin": miners.PairMarginMiner(0.5, 0.9),
    "semihard_band": miners.TripletMarginMiner(0.2, "semihard"),
}


def record(case: Case, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The value of a case, and its gradients by the name of the input."""
    x = {name: torch.tensor(array) for name, array in arrays.items()}
    leaves = {name: x[name].requires_grad_() for name in case.wrt}
    loss, held, turned = case.make(), None, False
    if case.own:
        held = getattr(loss, case.own[0])
        ours = torch.tensor(arrays[case.own[1]])
        flat = ours.reshape(-1, ours.shape[-1]) if ours.ndim > 1 else ours
        turned = held.shape != flat.shape
        held.data = (flat.T if turned else flat).clone()
    value = case.call(loss, x)
    value.backward()
    grads = {name: leaf.grad for name, leaf in leaves.items()}
    found = {name: grad.numpy() for name, grad in grads.items() if grad is not None}
    if case.own and held is not None:
        grad = held.grad.T if turned else held.grad
        found[case.own[1]] = grad.numpy().reshape(arrays[case.own[1]].shape)
    return {"value": value.detach().numpy(), **found}


def mine(miner: Any, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The triplets [t, 3], or the positive and the negative pairs [n, 2], in order."""
    # Unit vectors, since the angular miner does not normalise.
    x = normalize(torch.tensor(arrays["embeddings"]))
    chosen = miner(x, torch.tensor(arrays["labels"]))
    columns = [index.numpy() for index in chosen]
    if len(columns) == 4 and np.array_equal(columns[0], columns[2]):
        columns = [columns[0], columns[1], columns[3]]
    if len(columns) == 3:
        return {"triplets": np.unique(np.stack(columns, axis=1), axis=0)}
    pairs = {"positive": columns[:2], "negative": columns[2:]}
    return {
        kind: np.unique(np.stack(both, axis=1), axis=0) for kind, both in pairs.items()
    }


def metrics(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What `AccuracyCalculator` says of the gallery, with neighbours in float64."""
    x = torch.tensor(arrays["gallery"])
    y = torch.tensor(arrays["gallery_labels"])
    found: dict[str, Any] = {}
    for name, by_class in (("all", False), ("classes", True)):
        calculator = AccuracyCalculator(
            exclude=("NMI", "AMI"),
            avg_of_avgs=by_class,
            knn_func=CustomKNN(distances.CosineSimilarity()),
        )
        scores = calculator.get_accuracy(x, y)
        split = calculator.get_accuracy(x[::3], y[::3], x[1::3], y[1::3])
        found |= {f"{name}/{metric}": score for metric, score in scores.items()}
        found |= {f"{name}_split/{metric}": score for metric, score in split.items()}
    calculator = AccuracyCalculator()
    found["clusters/NMI"] = calculator.calculate_NMI(y, arrays["clusters"])
    found["clusters/AMI"] = calculator.calculate_AMI(y, arrays["clusters"])
    return {name: np.asarray(score, np.float64) for name, score in found.items()}


def _public(module: Any) -> list[str]:
    """The classes that a module offers, without their bases."""
    return sorted(
        name
        for name, what in vars(module).items()
        if isinstance(what, type) and not name.startswith(("Base", "Generic"))
    )


def main() -> None:
    torch.set_default_dtype(torch.float64)
    arrays = inputs()
    out: dict[str, Any] = {f"inputs/{name}": array for name, array in arrays.items()}
    groups = {"loss": LOSSES, "regularizer": REGULARIZERS, "distance": DISTANCES}
    for group, cases in groups.items():
        for name, case in cases.items():
            found = record(case, arrays)
            out |= {f"{group}/{name}/{key}": array for key, array in found.items()}
    for name, miner in MINERS.items():
        found = mine(miner, arrays)
        out |= {f"miner/{name}/{key}": array for key, array in found.items()}
    out |= {f"metric/{name}": score for name, score in metrics(arrays).items()}
    out["versions"] = np.array(
        [f"pytorch-metric-learning {pml.__version__}", f"torch {torch.__version__}"]
    )
    out["offered"] = np.array(
        [
            name
            for module in (losses, regularizers, distances, miners)
            for name in _public(module)
        ]
    )
    recorded = {case.peer for cases in groups.values() for case in cases.values()}
    recorded |= {type(miner).__name__ for miner in MINERS.values()}
    out["recorded"] = np.array(sorted(recorded))
    PATH.parent.mkdir(exist_ok=True)
    np.savez_compressed(PATH, **out)
    print(f"{PATH}: {len(out)} arrays, {PATH.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
