"""Log-mel spectrograms, one frequency and one band at a time."""

import cmath
import math

import numpy as np


def mel(frequency):
    """Hz to mel, HTK."""
    return 2595 * math.log10(1 + frequency / 700)


def hertz(value):
    """Mel to Hz, HTK."""
    return 700 * (10 ** (value / 2595) - 1)


def log_mel(waveform, *, rate, mels, size, step, low, high, floor):
    """The levels [mels, frames] of a waveform [samples]; `size`, `step` in samples."""
    length = 1
    while length < size:
        length *= 2
    edges = [
        hertz(mel(low) + (mel(high) - mel(low)) * i / (mels + 1))
        for i in range(mels + 2)
    ]
    columns = []
    start = 0
    while start + size <= len(waveform):
        powers = []
        for k in range(length // 2 + 1):
            total = 0j
            for n in range(size):
                hann = math.sin(math.pi * n / size) ** 2
                angle = -2j * math.pi * k * n / length
                total += hann * waveform[start + n] * cmath.exp(angle)
            powers.append(abs(total) ** 2)
        column = []
        for band in range(mels):
            left, center, right = edges[band : band + 3]
            energy = 0.0
            for k, power in enumerate(powers):
                f = k * rate / length
                if left < f <= center:
                    energy += power * (f - left) / (center - left)
                elif center < f < right:
                    energy += power * (right - f) / (right - center)
            column.append(10 * math.log10(max(energy, floor)))
        columns.append(column)
        start += step
    return np.array(columns).T


def ends(waveform, *, stretch, drop):
    """Where a waveform [samples] gets loud first and last; `stretch` in samples."""
    count = len(waveform) // stretch
    edges = [len(waveform) * i // count for i in range(count + 1)]
    energy = []
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        changes = [waveform[n] - waveform[n - 1] for n in range(max(start, 1), stop)]
        energy.append(sum(change**2 for change in changes) / (stop - start))
    smooth = [
        (sum(energy[max(0, i - 1) : i + 2])) / 3  # silence before and after
        for i in range(count)
    ]
    least = max(smooth) * 10 ** (-drop / 10)
    loud = [i for i in range(count) if smooth[i] >= least]
    return edges[loud[0]], edges[loud[-1] + 1]
