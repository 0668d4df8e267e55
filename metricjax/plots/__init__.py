"""Pictures of embeddings, distances, ROC curves, retrievals, training pairs and tasks.

Each function returns a `matplotlib.figure.Figure` that no global state knows of:
neither a display nor `pyplot` is needed. `save` writes it. Colours are those of Okabe
and Ito, which stay apart for colour-blind readers, and nothing is told by colour alone.
"""

from metricjax.plots._embeddings import Basis, before_after, principal_axes, scatter
from metricjax.plots._figure import save
from metricjax.plots._pairs import RocCurve, distance_histograms, roc
from metricjax.plots._retrievals import retrievals
from metricjax.plots._tasks import nway_task, pairs_sheet, triplets_sheet

__all__ = [
    "Basis",
    "RocCurve",
    "before_after",
    "distance_histograms",
    "nway_task",
    "pairs_sheet",
    "principal_axes",
    "retrievals",
    "roc",
    "save",
    "scatter",
    "triplets_sheet",
]
