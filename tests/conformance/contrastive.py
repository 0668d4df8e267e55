"""Softmax over candidates."""

from metricjax import losses
from tests.conformance.row import Row
from tests.oracles import losses as oracles

ROWS = [Row("supcon", losses.supcon, oracles.supcon)]
