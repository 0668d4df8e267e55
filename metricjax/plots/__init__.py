"""Pictures of embeddings, pair distances, ROC curves and retrievals.

Each function returns a `matplotlib.figure.Figure` that no global state knows of:
neither a display nor `pyplot` is needed. `save` writes it. Colours are those of Okabe
and Ito, which stay apart for colour-blind readers, and nothing is told by colour alone.
"""

from metricjax.plots._embeddings import Basis, before_after, principal_axes, scatter
from metricjax.plots._figure import save
from metricjax.plots._pairs import RocCurve, distance_histograms, roc
from metricjax.plots._retrievals import retrievals

__all__ = [
    "Basis",
    "RocCurve",
    "before_after",
    "distance_histograms",
    "principal_axes",
    "retrievals",
    "roc",
    "save",
    "scatter",
]
