"""Which pairs exist, as loops from the definitions."""

import numpy as np


def from_labels(
    labels,
    ref_labels=None,
    *,
    where=None,
    ref_where=None,
    ids=None,
    ref_ids=None,
):
    """(positive, negative), bool `[batch, n]`."""
    own = ref_labels is None
    others = labels if own else ref_labels
    other_where = where if own else ref_where
    other_ids = ids if own else ref_ids
    positive = np.zeros((len(labels), len(others)), bool)
    negative = np.zeros_like(positive)
    for i, label in enumerate(labels):
        for j, other in enumerate(others):
            if where is not None and not where[i]:
                continue
            if other_where is not None and not other_where[j]:
                continue
            if label < 0 or other < 0:
                continue
            if ids is not None and other_ids is not None:
                if ids[i] == other_ids[j]:
                    continue
            elif own and i == j:
                continue
            positive[i, j] = label == other
            negative[i, j] = label != other
    return positive, negative


def shares_label(tags, others=None):
    """(positive, negative) of sets of labels."""
    own = others is None
    others = tags if own else others
    positive = np.zeros((len(tags), len(others)), bool)
    negative = np.zeros_like(positive)
    for i, left in enumerate(tags):
        for j, right in enumerate(others):
            if (own and i == j) or not any(left) or not any(right):
                continue
            common = any(a and b for a, b in zip(left, right, strict=True))
            positive[i, j], negative[i, j] = common, not common
    return positive, negative
