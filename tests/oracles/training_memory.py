"""What a batch with a memory costs, from a list of all that was ever embedded."""

import numpy as np

from tests.oracles.losses import cosine, logsumexp, mean


def supcon(rows, candidates, *, temperature):
    """SupCon of rows (vector, label, id) against candidates, none its own id."""
    values = []
    for x, label, own in rows:
        others = [(y, other) for y, other, item in candidates if item != own]
        logits = [cosine(x, y) / temperature for y, _ in others]
        near = [
            s for s, (_, other) in zip(logits, others, strict=True) if other == label
        ]
        if near:
            values.append(logsumexp(logits) - sum(near) / len(near))
    return mean(values)


def ntxent(rows, candidates, *, temperature):
    """NT-Xent of rows (vector, label, id) against candidates, none its own id."""
    values = []
    for x, label, own in rows:
        others = [(y, other) for y, other, item in candidates if item != own]
        logits = [cosine(x, y) / temperature for y, _ in others]
        for s, (_, other) in zip(logits, others, strict=True):
            if other == label:
                values.append(logsumexp(logits) - s)
    return mean(values)


def followed(history, *, decay):
    """The teacher in the last step, of the student's parameters before each step."""
    teacher = np.asarray(history[0], np.float64)
    for student in history[1:]:
        teacher = decay * teacher + (1 - decay) * np.asarray(student, np.float64)
    return teacher
