"""Embeddings of made identities: a direction each, and noise around it."""

import numpy as np
import pytest

from metricjax import gallery


def sample(identities, images, *, dim=8, noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(identities), images)
    centers = rng.normal(size=(identities, dim))
    return centers[labels] + noise * rng.normal(size=(len(labels), dim)), labels


@pytest.fixture(scope="session")
def calibration():
    """From 30 identities of 5 images, at a FAR of 5 %."""
    return gallery.calibrate(*sample(30, 5, seed=1), far=0.05)
