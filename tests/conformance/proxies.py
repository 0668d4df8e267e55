"""Proxy losses."""

from metricjax import losses
from tests.conformance.row import CLASSES, DIM, EMBEDDINGS, Row
from tests.oracles import losses_proxies as oracles

PROXIES = EMBEDDINGS | {"proxies": (CLASSES, DIM)}
CENTERS = EMBEDDINGS | {"centers": (CLASSES, 3, DIM)}

ROWS = [
    Row("proxy_nca", losses.proxy_nca, oracles.proxy_nca, PROXIES, refs=False),
    Row("proxy_nca_pp", losses.proxy_nca_pp, oracles.proxy_nca_pp, PROXIES, refs=False),
    Row("proxy_anchor", losses.proxy_anchor, oracles.proxy_anchor, PROXIES, refs=False),
    Row("soft_triple", losses.soft_triple, oracles.soft_triple, CENTERS, refs=False),
]
