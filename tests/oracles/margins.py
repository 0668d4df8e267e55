"""Margins as their papers write them, on the angle itself, in float64."""

import math

MIN_SINE = 2.0**-11


def safe(c, m):
    return c - m * math.sin(m)


def easy(c, m):
    return c


def continuous(c, m):
    return c - (1 - math.cos(m))


def arcface(c, *, margin, fallback):
    theta = math.acos(c)
    beyond = c <= 0 if fallback is easy else c <= -math.cos(margin)
    return fallback(c, margin) if beyond else math.cos(theta + margin)


def combined(c, *, factor, angle, shift, monotone=True):
    total = factor * math.acos(c) + angle
    if not monotone:
        return math.cos(total) - shift
    k = math.floor(total / math.pi)
    return (-1) ** k * math.cos(total) - 2 * k - shift


def arcface_slope(c, *, margin, fallback):
    """Slope of the above in `c`, the sine below the line at least `MIN_SINE`."""
    beyond = c <= 0 if fallback is easy else c <= -math.cos(margin)
    if beyond:
        return 1.0
    sine = max(math.sqrt((1 - c) * (1 + c)), MIN_SINE)
    return math.cos(margin) + c / sine * math.sin(margin)


def combined_slope(c, *, factor, angle, monotone=True):
    total = factor * math.acos(c) + angle
    k = math.floor(total / math.pi) if monotone else 0
    sine = math.sqrt((1 - c) * (1 + c))
    angle_slope = -(c * c / max(sine, MIN_SINE) + sine)
    return (-1) ** k * -math.sin(total) * factor * angle_slope
