"""Class losses as loops in float64, written from the papers; nothing here is fast."""

import math

import numpy as np

from tests.oracles.losses import cosine, dot, logsumexp, mean, psi, softplus


def norm(x):
    return math.sqrt(dot(x, x))


def angle(c):
    return math.acos(max(-1.0, min(1.0, c)))


def class_cosine(x, w):
    """Of one embedding to a class: one vector, or sub-centers `[k, dim]`."""
    return max(cosine(x, center) for center in np.atleast_2d(w))


def margin(target, other=lambda c, t: c):
    """What a margin `target(c_y, x)`, and `other(c_j, target)`, do to the cosines."""

    def adjust(cosines, y, x, i):
        t = target(cosines[y], x)
        return [t if j == y else other(c, t) for j, c in enumerate(cosines)]

    return adjust


def softmax(
    embeddings,
    class_weights,
    labels,
    *,
    adjust,
    scale=64.0,
    penalty=lambda x: 0.0,
    label_smoothing=0.0,
):
    """Margin softmax; `adjust(cosines, y, x, i)`; `scale` a number or of `x`."""
    values = []
    for i, (x, y) in enumerate(zip(embeddings, labels, strict=True)):
        if not 0 <= y < len(class_weights):
            continue
        s = scale(x) if callable(scale) else scale
        cosines = [class_cosine(x, w) for w in class_weights]
        logits = [s * c for c in adjust(cosines, y, x, i)]
        logs = [logit - logsumexp(logits) for logit in logits]
        smoothed = (1 - label_smoothing) * logs[y] + label_smoothing * mean(logs)
        values.append(penalty(x) - smoothed)
    return mean(values)


def detached(embeddings, class_weights, labels, *, adjust):
    """`adjust` with its effect, `adjusted - cosine`, held as it is at these inputs."""
    gaps = []
    for i, (x, y) in enumerate(zip(embeddings, labels, strict=True)):
        cosines = [class_cosine(x, w) for w in class_weights]
        changed = adjust(cosines, y, x, i)
        gaps.append([a - c for a, c in zip(changed, cosines, strict=True)])
    return lambda cosines, y, x, i: [
        c + gap for c, gap in zip(cosines, gaps[i], strict=True)
    ]


def l_softmax(embeddings, class_weights, labels, *, margin=4.0, annealing=0.0):
    values = []
    for x, y in zip(embeddings, labels, strict=True):
        logits = [dot(x, w) for w in class_weights]
        lengths = norm(x) * norm(class_weights[y])
        value = lengths * psi(margin * angle(cosine(x, class_weights[y])))
        logits[y] = (annealing * logits[y] + value) / (1 + annealing)
        values.append(logsumexp(logits) - logits[y])
    return mean(values)


def arcface(c, margin=0.5):
    """The authors' fallback beyond pi."""
    if angle(c) + margin < math.pi:
        return math.cos(angle(c) + margin)
    return c - margin * math.sin(margin)


def arcface_easy(c, margin=0.5):
    return math.cos(angle(c) + margin) if c > 0 else c


def adaface(c, quality, margin=0.4):
    shifted = angle(c) - margin * quality
    return math.cos(min(max(shifted, 1e-3), math.pi - 1e-3)) - margin * (1 + quality)


def adaface_quality(x, mean, std, concentration=0.333):
    z = concentration * (norm(x) - mean) / (std + 1e-3)
    return min(max(z, -1.0), 1.0)


def magface_length(x, low_norm=10.0, high_norm=110.0):
    return min(max(norm(x), low_norm), high_norm)


def magface_margin(x, low_norm=10.0, high_norm=110.0):
    slope = (0.8 - 0.45) / (high_norm - low_norm)
    return slope * (magface_length(x, low_norm, high_norm) - low_norm) + 0.45


def magface_penalty(x, low_norm=10.0, high_norm=110.0):
    length = magface_length(x, low_norm, high_norm)
    return 35.0 * (length / high_norm**2 + 1 / length)


def curricularface_other(c, target, curriculum):
    return c * (curriculum + c) if c > target else c


def mv_softmax_other(c, target, emphasis=1.2):
    return emphasis * c + emphasis - 1 if c > target else c


def stretched(c, exponent=3.0):
    return 2 * ((c + 1) / 2) ** exponent - 1


def binary(
    embeddings,
    class_weights,
    labels,
    *,
    adjust,
    scale,
    bias,
    positive_weight=1.0,
    negative_weight=1.0,
):
    values = []
    for i, (x, y) in enumerate(zip(embeddings, labels, strict=True)):
        cosines = [class_cosine(x, w) for w in class_weights]
        value = 0.0
        for j, c in enumerate(adjust(cosines, y, x, i)):
            if j == y:
                value += positive_weight * softplus(-(scale * c + bias))
            else:
                value += negative_weight * softplus(scale * c + bias)
        values.append(value)
    return mean(values)


def additive(size):
    return margin(lambda c, x: c - size)


def stretched_additive(size, exponent=3.0):
    return margin(
        lambda c, x: stretched(c, exponent) - size,
        lambda c, t: stretched(c, exponent) + size,
    )


def uniface(embeddings, class_weights, threshold, labels, *, margin=0.4, scale=64.0):
    return binary(
        embeddings,
        class_weights,
        labels,
        adjust=additive(margin),
        scale=scale,
        bias=-threshold,
    )


def sphereface2(
    embeddings,
    class_weights,
    bias,
    labels,
    *,
    adjust=None,
    margin=0.4,
    scale=40.0,
    balance=0.7,
):
    return binary(
        embeddings,
        class_weights,
        labels,
        adjust=adjust or stretched_additive(margin),
        scale=scale,
        bias=bias,
        positive_weight=balance / scale,
        negative_weight=(1 - balance) / scale,
    )


def p2sgrad(embeddings, class_weights, labels):
    values = []
    for x, y in zip(embeddings, labels, strict=True):
        gaps = [cosine(x, w) - (j == y) for j, w in enumerate(class_weights)]
        values.append(sum(gap**2 for gap in gaps) / 2)
    return mean(values)


def adacos_scale(scale, embeddings, class_weights, labels):
    sums, angles = [], []
    for x, y in zip(embeddings, labels, strict=True):
        cosines = [class_cosine(x, w) for w in class_weights]
        angles.append(angle(cosines[y]))
        wrong = [c for j, c in enumerate(cosines) if j != y]
        sums.append(sum(math.exp(scale * c) for c in wrong))
    return math.log(mean(sums)) / math.cos(min(math.pi / 4, float(np.median(angles))))
