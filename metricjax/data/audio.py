"""Sounds as pictures: log-mel spectrograms, on the device.

`log_mel` is the transform of a batch of waveforms; `pictures` makes of recordings of
any length uint8 images of one size, so that what works on images works on sounds;
`trimmed` finds where a recording begins and ends.
Rows are mel bands, the lowest first; columns are frames of time.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import NDArray

from metricjax import _checks, numerics

__all__ = ["log_mel", "pictures", "trimmed"]

# How many recordings go to the device at once.
_BLOCK = 256
# Seconds over which the level of a recording is measured to find its ends.
_STRETCH = 0.01


def log_mel(
    waveforms: ArrayLike,
    *,
    rate: int,
    mels: int = 40,
    window: float = 0.032,
    hop: float = 0.016,
    low: float = 0.0,
    high: float | None = None,
    floor: float = 1e-10,
) -> Array:
    """Log-mel spectrograms: `10 log10(max(|rfft(hann * frame)|^2 @ filters, floor))`.

    Frames start at multiples of `hop` and lie wholly inside the waveform; the Hann
    window is periodic; each frame is padded with zeros to a power of two. The mel scale
    is HTK's, `2595 log10(1 + f / 700)`; a filter is a triangle over frequency in Hz,
    with peak 1 at its center and 0 at the centers of its two neighbours.

    Args:
        waveforms: `[batch, samples]`, floating.
        rate: samples per second.
        mels: the number of bands.
        window: length of a frame in seconds.
        hop: from one frame to the next, in seconds.
        low: lowest frequency in Hz.
        high: highest frequency in Hz; half of the rate if None.
        floor: least power, which keeps the logarithm of silence finite.

    Returns:
        `[batch, mels, frames]` in dB, in at least float32; frames is
        `1 + (samples - window) // hop`, lengths in samples.

    Raises:
        ValueError: if the waveforms have another shape or are shorter than a frame, or
            a band is so narrow that no frequency of the transform falls into it.
        TypeError: if they are not floating.

    Example:
        >>> time = jnp.arange(8000) / 8000
        >>> tone = jnp.sin(2 * jnp.pi * 1000 * time)[None]
        >>> levels = log_mel(tone, rate=8000)
        >>> levels.shape, int(levels[0, :, 0].argmax())
        ((1, 40, 61), 18)

    References:
        Davis and Mermelstein, "Comparison of Parametric Representations for
        Monosyllabic Word Recognition in Continuously Spoken Sentences", IEEE Trans.
        ASSP 28(4), 1980. The scale: Young et al., "The HTK Book", section 5.4.
    """
    size, step = _samples(rate, window), _samples(rate, hop)
    if jnp.ndim(waveforms) != 2 or jnp.shape(waveforms)[1] < size:
        raise ValueError(
            f"Expected `waveforms` of shape [batch, samples] with at least {size} "
            f"samples, got {_checks.describe(waveforms)}; pad with zeros."
        )
    _checks.check_float("waveforms", waveforms)
    waveforms = numerics.promote(waveforms)
    count = 1 + (waveforms.shape[1] - size) // step
    places = step * np.arange(count)[:, None] + np.arange(size)
    return _of_frames(
        waveforms[:, places], rate=rate, mels=mels, low=low, high=high, floor=floor
    )


def _of_frames(
    frames: Array, *, rate: int, mels: int, low: float, high: float | None, floor: float
) -> Array:
    """Log-mel levels `[batch, mels, frames]` of frames `[batch, frames, samples]`."""
    size = frames.shape[2]
    length = 1 << (size - 1).bit_length()
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    spectrum = jnp.fft.rfft(frames * jnp.asarray(hann, frames.dtype), length)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    filters = _filters(rate, length, mels, low, rate / 2 if high is None else high)
    energy = jnp.einsum(
        "btf,fm->bmt",
        power,
        jnp.asarray(filters, power.dtype),
        precision=numerics.HIGHEST,
    )
    return 10.0 * jnp.log10(jnp.maximum(energy, floor))


def pictures(
    recordings: Sequence[np.ndarray],
    *,
    rate: int,
    mels: int = 20,
    frames: int = 32,
    window: float = 0.032,
    hop: float | None = None,
    low: float = 100.0,
    drop: float = 30.0,
    span: float = 60.0,
) -> NDArray[np.uint8]:
    """Recordings of any lengths as grey images of one size.

    Each recording is `trimmed`, and its frames are spread evenly over what is left, so
    that a word fills the picture whether it is said slowly or fast; between the frames
    of a recording longer than `frames * window` there are gaps. With `hop` frames
    follow each other at one pace instead, and a recording is padded with silence, or
    cut, equally on both sides.

    The log-mel spectrogram is scaled so that its own peak is 255 and what lies `span`
    or more below it is 0. Silence is 0. Few, wide bands blur the harmonics of a voice,
    by which speakers differ, and keep what tells words apart; for voices give more.

    Args:
        recordings: waveforms `[samples]`, floating in -1..1.
        rate: samples per second of all of them.
        mels: the height of the images.
        frames: the width of the images.
        window: length of a frame in seconds.
        hop: from one frame to the next, in seconds; as the recording's length needs it
            if None.
        low: lowest frequency in Hz, above the hum of the mains.
        drop: see `trimmed`; `math.inf` keeps all.
        span: the range of levels in dB.

    Returns:
        `[n, mels, frames, 1]` uint8.

    Raises:
        ValueError: if a band is too narrow for the length of a frame.

    Example:
        >>> time = np.arange(4000) / 8000
        >>> tone = np.sin(2 * np.pi * 440 * time)
        >>> images = pictures([tone, tone[:90]], rate=8000)
        >>> images.shape, images.max(axis=(1, 2, 3)).tolist()
        ((2, 20, 32, 1), [255, 255])
    """
    size = _samples(rate, window)
    step = None if hop is None else _samples(rate, hop)
    transform = functools.partial(_levels, rate=rate, mels=mels, low=low, span=span)
    out = np.empty((len(recordings), mels, frames, 1), np.uint8)
    # Blocks of one size, so that one program is compiled.
    block = np.empty((min(_BLOCK, len(recordings)), frames, size), np.float32)
    for start in range(0, len(recordings), _BLOCK):
        part = recordings[start : start + _BLOCK]
        for row, recording in zip(block, part, strict=False):
            heard = trimmed(recording, rate=rate, drop=drop)
            row[...] = _framed(heard, frames, size, step)
        out[start : start + len(part), ..., 0] = transform(block)[: len(part)]
    return out


def trimmed(recording: np.ndarray, *, rate: int, drop: float = 30.0) -> np.ndarray:
    """A recording without its quiet ends.

    Quiet is what lies more than `drop` dB below the loudest stretch. Levels are those
    of the differences of neighbouring samples, which hum hardly moves and in which an s
    is about as loud as a vowel, over stretches of 10 ms, each averaged with its two
    neighbours.

    Args:
        recording: a waveform `[samples]`, not empty.
        rate: samples per second.
        drop: in dB, at least 0; `math.inf` keeps all.

    Returns:
        A view of the recording, not empty.

    Raises:
        ValueError: if the recording is empty, or `drop` is negative.

    Example:
        >>> silence, tone = np.zeros(2000), np.sin(np.arange(4000))
        >>> len(trimmed(np.concatenate([silence, tone, silence]), rate=8000))
        4160
    """
    if not len(recording) or not drop >= 0:
        raise ValueError(
            f"Expected samples and a `drop` of at least 0 dB, got {len(recording)} "
            f"samples and {drop!r}."
        )
    count = max(1, len(recording) // _samples(rate, _STRETCH))
    edges = np.linspace(0, len(recording), count + 1).astype(int)
    change = np.diff(recording, prepend=recording[:1])
    energy = np.add.reduceat(np.square(change), edges[:-1]) / np.diff(edges)
    padded = np.pad(energy, 1)
    smooth = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
    loud = np.flatnonzero(smooth >= smooth.max() * 10.0 ** (-drop / 10.0))
    return recording[edges[loud[0]] : edges[loud[-1] + 1]]


@functools.partial(jax.jit, static_argnames=("rate", "mels", "low"))
def _levels(frames: Array, *, rate: int, mels: int, low: float, span: float) -> Array:
    """Spectrograms of frames as bytes `[batch, mels, frames]`."""
    floor = 1e-10
    levels = _of_frames(frames, rate=rate, mels=mels, low=low, high=None, floor=floor)
    peak = jnp.max(levels, axis=(1, 2), keepdims=True)
    share = jnp.clip(1.0 + (levels - peak) / span, 0.0, 1.0)
    # The peak of silence is the floor itself.
    heard = levels > 10.0 * np.log10(floor) + 1e-3
    return jnp.round(255.0 * jnp.where(heard, share, 0.0)).astype(jnp.uint8)


def _framed(
    recording: np.ndarray, frames: int, size: int, step: int | None
) -> np.ndarray:
    """The frames `[frames, size]` of a recording, evenly over it or `step` apart."""
    samples = size if step is None else size + (frames - 1) * step
    if step is not None or len(recording) < size:
        recording = _centered(recording, samples)
    starts = np.linspace(0, len(recording) - size, frames).round().astype(int)
    return recording[starts[:, None] + np.arange(size)]


def _centered(recording: np.ndarray, samples: int) -> np.ndarray:
    """The middle of a recording, or the recording in the middle of silence."""
    missing = samples - len(recording)
    if missing <= 0:
        start = -missing // 2
        return recording[start : start + samples]
    return np.pad(recording, (missing // 2, missing - missing // 2))


def _samples(rate: int, seconds: float) -> int:
    count = round(rate * seconds)
    if count < 1:
        raise ValueError(
            f"Expected at least one sample in {seconds!r} s, got a rate of {rate!r} "
            "per second; lengths are in seconds."
        )
    return count


def _filters(
    rate: int, length: int, mels: int, low: float, high: float
) -> NDArray[np.float64]:
    """The weight of each frequency of the transform in each band, `[bins, mels]`."""
    if not 0 <= low < high <= rate / 2:
        raise ValueError(
            f"Expected 0 <= low < high <= {rate / 2} Hz, half of the rate, got "
            f"{low!r} and {high!r}."
        )
    low, high = (2595 * np.log10(1 + f / 700) for f in (low, high))
    edges = 700 * (10 ** (np.linspace(low, high, mels + 2) / 2595) - 1)
    bins = np.arange(length // 2 + 1)[:, None] * rate / length
    rise = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0.0, np.minimum(rise, fall))
    if not filters.any(axis=0).all():
        raise ValueError(
            f"Expected every one of {mels} mel bands to hold a frequency, got "
            f"frequencies {rate / length:.1f} Hz apart; take fewer mels or a longer "
            "window."
        )
    return filters
