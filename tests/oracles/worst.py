"""The worst pairs, one after the other."""


def worst_pairs(values, labels, count):
    """Impostor pairs most similar first, genuine pairs least similar first.

    `values` `[n, n]` are similarities. Of each two classes, and of each class, only the
    worst pair is kept.
    """
    impostors, genuine = [], []
    for i in range(len(labels)):
        for j in range(i + 1, len(labels)):
            if labels[i] == labels[j]:
                genuine.append((i, j, values[i, j]))
            else:
                impostors.append((i, j, values[i, j]))
    impostors.sort(key=lambda pair: -pair[2])
    genuine.sort(key=lambda pair: pair[2])
    return tuple(_first_of_each(pairs, labels, count) for pairs in (impostors, genuine))


def _first_of_each(pairs, labels, count):
    seen, kept = set(), []
    for i, j, value in pairs:
        classes = tuple(sorted((labels[i], labels[j])))
        if classes not in seen and len(kept) < count:
            seen.add(classes)
            kept.append((i, j, value))
    return kept
