"""The command `metricjax`: bundles, galleries and answers from the command line.

    metricjax bundle runs/arcface faces          a bundle from a training run
    metricjax calibrate faces calibration/       the threshold, on other identities
    metricjax evaluate faces test/               what to expect of it
    metricjax enroll faces known/                who is to be recognised
    metricjax verify faces a.jpg b.jpg           the same?
    metricjax identify faces new.jpg             who is this, or is it unknown?
    metricjax export faces faces.stablehlo       the encoder for use elsewhere

train.py leaves bundles in its run, such as runs/arcface/split0/bundle, calibrated if
there were calibration classes. A folder of identities has one sub-folder of images for
each. The exit code is 0 if all was done, 1 if some images could not be read, 2 if
nothing was done and the line on standard error says why.
"""

from metricjax.cli._main import main

__all__ = ["main"]
