"""Galleries of known identities: enroll, calibrate, verify, identify.

    people = gallery.enroll(embeddings, names)
    calibration = gallery.calibrate(other_embeddings, other_labels, far=0.01)
    gallery.verify(embeddings_a, embeddings_b, calibration).same
    gallery.identify(queries, people, calibration).names

Everything compares by cosine similarity and runs on the host, but for the search. A
gallery needs no training: identities come and go by `add` and `remove`. With an
encoder and its settings it makes a `metricjax.bundle`.
"""

from metricjax.gallery._calibration import (
    Calibration,
    Rates,
    calibrate,
    rates_at,
    threshold_at,
)
from metricjax.gallery._decisions import (
    Identification,
    Verification,
    identify,
    verify,
)
from metricjax.gallery._files import load, save
from metricjax.gallery._probability import (
    Fit,
    LogOdds,
    isotonic,
    log_odds,
    platt,
    probability,
)
from metricjax.gallery._search import Search, exact_search, faiss_search
from metricjax.gallery._templates import Gallery, add, enroll, means, remove

__all__ = [
    "Calibration",
    "Fit",
    "Gallery",
    "Identification",
    "LogOdds",
    "Rates",
    "Search",
    "Verification",
    "add",
    "calibrate",
    "enroll",
    "exact_search",
    "faiss_search",
    "identify",
    "isotonic",
    "load",
    "log_odds",
    "means",
    "platt",
    "probability",
    "rates_at",
    "remove",
    "save",
    "threshold_at",
    "verify",
]
