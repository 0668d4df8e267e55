"""Metrics from their definitions: float64 loops over rankings, pairs and tasks."""

import itertools
import math

import numpy as np


def cosine(x, y):
    out = np.zeros((len(x), len(y)))
    for i, a in enumerate(np.asarray(x, np.float64)):
        for j, b in enumerate(np.asarray(y, np.float64)):
            size = math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))
            out[i, j] = float(a @ b) / size if size > 0 else 0.0
    return out


# --- retrieval ------------------------------------------------------------------------


def ranking_metrics(relevance, ks):
    """All metrics of one ranking without ties, given as 0/1 in order."""
    relevant = sum(relevance)
    ranks = [i + 1 for i, hit in enumerate(relevance) if hit]
    precision = [sum(relevance[:rank]) / rank for rank in ranks]

    def gain(k):
        return sum(1 / math.log2(1 + rank) for rank in ranks if rank <= k)

    def ideal(k):
        return sum(1 / math.log2(1 + rank) for rank in range(1, min(k, relevant) + 1))

    size = len(relevance)
    early = [p for p, rank in zip(precision, ranks, strict=True) if rank <= relevant]
    return {
        "recall_at_k": [float(any(relevance[:k])) for k in ks],
        "precision_at_k": [sum(relevance[:k]) / k for k in ks],
        "ndcg_at_k": [gain(k) / ideal(k) for k in ks],
        "ndcg": gain(size) / ideal(size),
        "r_precision": sum(relevance[:relevant]) / relevant,
        "map": sum(precision) / relevant,
        "map_at_r": sum(early) / relevant,
        "mrr": 1 / ranks[0],
    }


def orders(scores):
    """All rankings that agree with the scores: every order inside each tied group."""
    groups = [
        [j for j in range(len(scores)) if scores[j] == value]
        for value in sorted(set(scores), reverse=True)
    ]
    for choice in itertools.product(*(itertools.permutations(g) for g in groups)):
        yield [j for group in choice for j in group]


def retrieval(scores, labels, ref_labels, ks, *, alone, ties=True):
    """Each query's metrics, averaged over all orders of its ties; None if lone."""
    out = []
    for i, label in enumerate(labels):
        candidates = [j for j in range(len(ref_labels)) if not (alone and i == j)]
        relevant = [int(ref_labels[j] == label and label >= 0) for j in candidates]
        if not sum(relevant):
            out.append(None)
            continue
        row = [float(scores[i][j]) for j in candidates]
        ranked = (
            orders(row) if ties else [sorted(range(len(row)), key=lambda j: -row[j])]
        )
        values = [ranking_metrics([relevant[j] for j in order], ks) for order in ranked]
        out.append({k: np.mean([v[k] for v in values], axis=0) for k in values[0]})
    return out


def nearest(scores, k, excluded=()):
    """Indices of the k largest of each row, of equal ones the lowest index first."""
    out = []
    for i, row in enumerate(scores):
        allowed = [j for j in range(len(row)) if (i, j) not in excluded]
        out.append(sorted(allowed, key=lambda j: (-row[j], j))[:k])
    return out


# --- verification ---------------------------------------------------------------------


def pairs(scores, labels, ref_labels=None):
    """Similarities of all pairs and whether they are genuine; each pair once."""
    out = []
    for i, a in enumerate(labels):
        for j, b in enumerate(labels if ref_labels is None else ref_labels):
            if a >= 0 and b >= 0 and (ref_labels is not None or i < j):
                out.append((float(scores[i][j]), bool(a == b)))
    return [s for s, _ in out], [same for _, same in out]


def rates(scores, is_same, threshold):
    genuine = [s for s, same in zip(scores, is_same, strict=True) if same]
    impostors = [s for s, same in zip(scores, is_same, strict=True) if not same]
    far = sum(s >= threshold for s in impostors) / len(impostors)
    return far, sum(s >= threshold for s in genuine) / len(genuine)


def auc(scores, is_same):
    wins, count = 0.0, 0
    for a, same in zip(scores, is_same, strict=True):
        for b, other in zip(scores, is_same, strict=True):
            if same and not other:
                count += 1
                wins += 1.0 if a > b else 0.5 if a == b else 0.0
    return wins / count


def eer(scores, is_same):
    """The first crossing of FAR and FRR on the line through all points of the curve."""
    points = [(0.0, 0.0)]
    points += [rates(scores, is_same, t) for t in sorted(set(scores), reverse=True)]
    for (far0, tar0), (far1, tar1) in itertools.pairwise(points):
        gap0, gap1 = 1 - tar0 - far0, 1 - tar1 - far1
        if gap0 >= 0 >= gap1:
            return far0 + (far1 - far0) * gap0 / (gap0 - gap1)
    raise AssertionError("the curves always cross")


def tar_at_far(scores, is_same, wanted):
    """TAR, threshold: the smallest score with FAR at most the wanted one."""
    best = (0.0, math.inf)
    for threshold in sorted(set(scores), reverse=True):
        far, tar = rates(scores, is_same, threshold)
        if far <= wanted:
            best = (tar, threshold)
    return best


def fold_accuracy(scores, is_same, folds):
    out = []
    for fold in sorted(set(folds)):
        train = [i for i, f in enumerate(folds) if f != fold]
        test = [i for i, f in enumerate(folds) if f == fold]
        values = sorted({scores[i] for i in train})
        candidates = [values[0]]
        candidates += [(a + b) / 2 for a, b in itertools.pairwise(values)] + [math.inf]

        def right(rows, t):
            return sum((scores[i] >= t) == is_same[i] for i in rows)

        most = max(right(train, t) for t in candidates)
        threshold = max(t for t in candidates if right(train, t) == most)
        out.append((right(test, threshold) / len(test), threshold))
    return out


# --- identification -------------------------------------------------------------------


def identities(scores, labels, gallery_labels):
    """Of each probe: its similarity to each identity, that of its nearest item."""
    out = []
    for i, _ in enumerate(labels):
        row = {}
        for j, name in enumerate(gallery_labels):
            row[name] = max(row.get(name, -math.inf), float(scores[i][j]))
        out.append(row)
    return out


def rank_probability(row, own, k):
    """Chance that `own` is among the first k identities, over all orders of ties."""
    names = list(row)
    hits = [
        own in [names[j] for j in order[:k]] for order in orders(list(row.values()))
    ]
    return sum(hits) / len(hits)


def open_set_point(rows, labels, threshold):
    """CCR (= TPIR) and FPR (= FPIR) at one threshold."""
    right, known, wrong, unknown = 0.0, 0, 0, 0
    for row, label in zip(rows, labels, strict=True):
        accepted = max(row.values()) >= threshold
        if label in row:
            known += 1
            right += rank_probability(row, label, 1) if accepted else 0.0
        else:
            unknown += 1
            wrong += accepted
    return right / known, wrong / unknown


def open_set_accuracy(embeddings, labels, leave_one_out=False):
    """Rank all items by cosine to each class mean; hits among the first n_c."""
    x = np.asarray(embeddings, np.float64)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    hits, total = 0, 0
    for c in sorted({y for y in labels if y >= 0}):
        members = [i for i, y in enumerate(labels) if y == c]
        if leave_one_out and len(members) == 1:
            continue
        scores = []
        for i in range(len(x)):
            others = [j for j in members if not (leave_one_out and i == j)]
            mean = np.mean([x[j] for j in others], axis=0)
            scores.append(float(mean @ x[i]) / np.linalg.norm(mean))
        best = sorted(range(len(x)), key=lambda i: -scores[i])[: len(members)]
        hits += sum(labels[i] == c for i in best)
        total += len(members)
    return hits / total


# --- few-shot, clustering, health -----------------------------------------------------


def share_of_right(scores, truth):
    """Chance of the right class if ties are drawn: mean over queries."""
    out = []
    for row, right in zip(scores, truth, strict=True):
        best = [j for j, s in enumerate(row) if s == max(row)]
        out.append((right in best) / len(best))
    return sum(out) / len(out)


def modified_hausdorff(a, b):
    """Of two bool images, each moved so that the mean of its ink is at the origin."""
    sets = []
    for image in (a, b):
        points = [(float(r), float(c)) for r, c in np.argwhere(image)]
        mean = [sum(p[i] for p in points) / len(points) for i in (0, 1)]
        sets.append([(r - mean[0], c - mean[1]) for r, c in points])

    def directed(x, y):
        return sum(min(math.dist(p, q) for q in y) for p in x) / len(x)

    return max(directed(*sets), directed(*sets[::-1]))


def unit(x):
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def alignment(x, labels):
    x = unit(x)
    values = [
        float(np.sum((x[i] - x[j]) ** 2))
        for i, j in itertools.combinations(range(len(x)), 2)
        if labels[i] == labels[j] >= 0
    ]
    return sum(values) / len(values)


def uniformity(x, temperature):
    x = unit(x)
    values = [
        math.exp(-temperature * float(np.sum((x[i] - x[j]) ** 2)))
        for i, j in itertools.combinations(range(len(x)), 2)
    ]
    return math.log(sum(values) / len(values))


def effective_rank(x):
    sizes = np.linalg.svd(unit(x), compute_uv=False)
    share = [s / sizes.sum() for s in sizes if s > 0]
    return math.exp(-sum(p * math.log(p) for p in share))
