"""Margins on the target cosine: elementwise functions `cosine -> cosine`.

A margin makes the target harder to reach, so that classes end up further apart. Some
methods also change the cosines of the other classes; those functions end in `_others`.

Angles are in radians. Parameters may be arrays that broadcast with the cosines: one
margin per example, or `margins_of_classes[labels]`. They may be traced, so that they
can be learned or scheduled.
"""

from metricjax.margins._adaptive import (
    adaface,
    adaface_quality,
    annealed,
    magface_margin,
    sphereface_annealing,
)
from metricjax.margins._others import (
    Others,
    curricularface_others,
    filtered_others,
    li_arcface_others,
    mv_softmax_others,
    sphereface2_others,
    sphereface_r_others,
    straight_through_others,
)
from metricjax.margins._targets import (
    Fallback,
    Margin,
    arcface,
    combined,
    continuous,
    cosface,
    easy,
    li_arcface,
    safe,
    sphereface,
    sphereface2,
    sphereface_r,
    straight_through,
)

__all__ = [
    "Fallback",
    "Margin",
    "Others",
    "adaface",
    "adaface_quality",
    "annealed",
    "arcface",
    "combined",
    "continuous",
    "cosface",
    "curricularface_others",
    "easy",
    "filtered_others",
    "li_arcface",
    "li_arcface_others",
    "magface_margin",
    "mv_softmax_others",
    "safe",
    "sphereface",
    "sphereface2",
    "sphereface2_others",
    "sphereface_annealing",
    "sphereface_r",
    "sphereface_r_others",
    "straight_through",
    "straight_through_others",
]
