"""Recordings: wav files in a folder or a zip, one sub-folder for each class.

Each becomes a picture, as `metricjax.data.audio.pictures` makes it.
"""

import io
import pathlib
import struct
import wave
import zipfile
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from metricjax.data import audio, dataset

_RATES = (2_000, 400_000)
# How many recordings are in memory at once.
_BLOCK = 1024


def read(path: pathlib.Path) -> tuple[NDArray[np.float32], int]:
    """One wav file of 8, 16, 24 or 32 bit, its channels averaged.

    Args:
        path: the file.

    Returns:
        The waveform `[samples]` in -1..1, and the samples per second.

    Raises:
        ValueError: if the file is damaged, empty or of another encoding.
    """
    return _decoded(path.read_bytes(), str(path))


def load(path: pathlib.Path) -> dataset.Dataset:
    """The recordings of a folder or a zip, one sub-folder for each class.

    Classes are in the order of their names. Recordings may lie deeper inside their
    sub-folder, and the sub-folders of a zip inside one common folder. Hidden files and
    files of other kinds are passed over.

    Args:
        path: the folder or the zip.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: if there is neither a folder nor a file.
        ValueError: if a recording is damaged, or rates differ, or a recording lies
            outside of the sub-folders, or there is none.
    """
    if path.is_dir():
        places = (place for place in path.rglob("*") if place.is_file())
        found = (place.relative_to(path).as_posix() for place in places)
        names = sorted(name for name in found if _is_recording(name))
        classes = _classes(names, path)
        return pictured(names, lambda n: (path / n).read_bytes(), classes, path)
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a folder or a zip of recordings in {path}, got neither."
        )

    def read_zip(file: zipfile.ZipFile) -> dataset.Dataset:
        names = sorted(name for name in file.namelist() if _is_recording(name))
        return pictured(names, file.read, _classes(_below(names), path), path)

    return from_zip(path, read_zip)


def from_zip(
    path: pathlib.Path, read_zip: Callable[[zipfile.ZipFile], dataset.Dataset]
) -> dataset.Dataset:
    """What `read_zip` makes of an open zip.

    Args:
        path: the zip.
        read_zip: called with the open file.

    Returns:
        The data set.

    Raises:
        ValueError: if the zip is damaged.
    """
    try:
        with zipfile.ZipFile(path) as file:
            return read_zip(file)
    except dataset.ZIP_DAMAGE as error:
        raise ValueError(
            f"Expected a whole zip of wav files in {path}, got: {error}; make or "
            "download it again."
        ) from error


def pictured(
    names: Sequence[str],
    read_bytes: Callable[[str], bytes],
    classes: Sequence[str],
    path: pathlib.Path,
) -> dataset.Dataset:
    """The data set of some wav files; classes in the order of their names.

    Args:
        names: the files, at least one.
        read_bytes: gives the content of a file.
        classes: the name of the class of each file.
        path: the folder or zip of the files, for messages.

    Returns:
        The data set.

    Raises:
        ValueError: if a file is damaged, or rates differ.
    """
    pictures, first_rate = [], 0
    for start in range(0, len(names), _BLOCK):
        waveforms = []
        for name in names[start : start + _BLOCK]:
            waveform, rate = _decoded(read_bytes(name), f"{path}/{name}")
            first_rate = first_rate or rate
            _check_same_rate(first_rate, names[0], rate, name, path)
            waveforms.append(waveform)
        pictures.append(audio.pictures(waveforms, rate=first_rate))
    class_names, labels = np.unique(classes, return_inverse=True)
    return dataset.checked(np.concatenate(pictures), labels, class_names.tolist(), path)


def _is_recording(name: str) -> bool:
    parts = pathlib.PurePosixPath(name).parts
    hidden = any(part.startswith((".", "__MACOSX")) for part in parts)
    return name.lower().endswith(".wav") and not hidden


def _below(names: Sequence[str]) -> list[str]:
    """Names without the one folder that holds all the sub-folders, if there is one."""
    parts = [pathlib.PurePosixPath(name).parts for name in names]
    if len({part[0] for part in parts}) == 1 and min(map(len, parts)) > 2:
        return ["/".join(part[1:]) for part in parts]
    return list(names)


def _classes(names: Sequence[str], path: pathlib.Path) -> list[str]:
    """The sub-folder of each recording."""
    if not names:
        raise ValueError(
            f"Expected .wav files in sub-folders of {path}, got none; put the "
            "recordings of a class into a folder of its name."
        )
    parts = [pathlib.PurePosixPath(name).parts for name in names]
    for name, part in zip(names, parts, strict=True):
        if len(part) < 2:
            raise ValueError(
                f"Expected one sub-folder for each class in {path}, got {name} outside "
                "of them; put the recordings of a class into a folder of its name."
            )
    return [part[0] for part in parts]


def _check_same_rate(
    first_rate: int, first: str, rate: int, name: str, path: pathlib.Path
) -> None:
    if rate != first_rate:
        raise ValueError(
            f"Expected recordings of one rate in {path}, got {first_rate} samples per "
            f"second in {first} and {rate} in {name}; resample them, for instance "
            f"with: ffmpeg -i old.wav -ar {first_rate} new.wav"
        )


def _decoded(content: bytes, source: str) -> tuple[NDArray[np.float32], int]:
    """The waveform and the rate of the bytes of a wav file."""
    try:
        with wave.open(io.BytesIO(content)) as file:
            form, count = file.getparams(), file.getnframes()
            data = file.readframes(count)
            if form.sampwidth > 4:
                raise wave.Error(f"{form.sampwidth} bytes a sample")
    # The last two: a chunk that claims a length which it has not.
    except (wave.Error, EOFError, struct.error, RuntimeError) as error:
        raise ValueError(
            f"Expected a wav file of integer samples in {source}, got: {error}; "
            "convert it, for instance with: ffmpeg -i old.wav -c:a pcm_s16le new.wav"
        ) from error
    if not count or len(data) != count * form.nchannels * form.sampwidth:
        frame = form.nchannels * form.sampwidth
        raise ValueError(
            f"Expected a whole wav file in {source}, got {len(data) // frame} of "
            f"{count} samples; record or copy it again."
        )
    if not _RATES[0] <= form.framerate <= _RATES[1]:
        raise ValueError(
            f"Expected a rate of {_RATES[0]} to {_RATES[1]} samples per second in "
            f"{source}, got {form.framerate}; the file is damaged, or needs resampling."
        )
    samples = _floats(data, form.sampwidth).reshape(-1, form.nchannels)
    return samples.mean(axis=1, dtype=np.float32), form.framerate


def _floats(data: bytes, width: int) -> NDArray[np.float32]:
    """Samples of `width` bytes each as numbers in -1..1."""
    found = np.frombuffer(data, np.uint8).reshape(-1, width)
    # The bytes of a sample, little-endian, as the highest of a 32-bit number.
    whole = np.zeros((len(found), 4), np.uint8)
    # Samples of one byte, and only these, are unsigned.
    whole[:, 4 - width :] = found ^ 0x80 if width == 1 else found
    return whole.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)
