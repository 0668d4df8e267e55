"""train.py as one of several processes, without its pictures and bundles."""

import sys

import train
from metricjax.training import pictures, processes


def nothing(*_, **__):
    """Instead of what takes long."""


if __name__ == "__main__":
    pictures.draw = pictures.draw_examples = train.leave_bundles = nothing
    processes.leave(train.main(sys.argv[1:]))
