"""Spoken digits: 0 to 9 by six speakers, 50 recordings of each, at 8 kHz.

Jackson, Souza, Flaks, Pan, Nicolas and Thite, "Free Spoken Digit Dataset", 2018,
github.com/Jakobovski/free-spoken-digit-dataset.
"""

import importlib.util
import pathlib
import re
import zipfile
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metricjax.data import audio, dataset, recordings, tfds

_ZIP = "fsdd_recordings.zip"
_NAMES = tuple("0123456789")
_MEMBER = re.compile(r"(?:.*/)?(\d)_([^/_]+)_(\d+)\.wav")


def file_name(split: str) -> str:
    """The name of the zip, which holds the one split."""
    if split != "train":
        raise ValueError(
            f'Expected split "train" of spoken_digit, which has no other, got {split!r}'
            '; divide it by extra["speaker"] or extra["index"].'
        )
    return _ZIP


def find(name: str, folder: pathlib.Path, split: str) -> pathlib.Path | None:
    """The zip in `folder/name`, `folder/fsdd` or `folder`; None if none has it."""
    for place in (folder / name, folder / "fsdd", folder):
        path = place / file_name(split)
        if path.is_file():
            return path
    return None


def load(name: str, path: pathlib.Path, split: str) -> dataset.Dataset:
    """The digits in a zip of recordings `{digit}_{speaker}_{index}.wav`.

    `extra` holds `speaker`, an index into the speakers in the order of their names, and
    `index`, the number of the recording; its authors test on numbers 0 to 4.

    Args:
        name: "spoken_digit", for messages.
        path: what `find` gave.
        split: the split, for messages.

    Returns:
        The data set.

    Raises:
        ValueError: if the zip or a recording in it is damaged, or rates differ.
    """

    def read(file: zipfile.ZipFile) -> dataset.Dataset:
        members = sorted(n for n in file.namelist() if _MEMBER.fullmatch(n))
        if not members:
            raise ValueError(
                f"Expected the {split} recordings of {name}, 0_theo_0.wav and so on, "
                f"in {path}, got none; download it again."
            )
        digits, extra = _parts(members)
        found = recordings.pictured(members, file.read, digits, path)
        return found._replace(extra=extra)

    return recordings.from_zip(path, read)


def load_prepared(
    name: str, folder: pathlib.Path | None, split: str
) -> dataset.Dataset:
    """The same recordings from a prepared TensorFlow data set, in its order.

    Args:
        name: the name in TensorFlow Datasets.
        folder: where it was prepared; None for its default place.
        split: as in `load`.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: if it was not prepared.
        ImportError: if TensorFlow or TensorFlow Datasets is missing.
        ValueError: if a recording has no speaker in its name.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise ImportError(
            "A prepared set of sounds is read with TensorFlow: pip install tensorflow"
        )
    source, features = tfds._opened(name, folder, split)
    examples = [source[i] for i in range(len(source))]
    waveforms = [np.asarray(e["audio"], np.float32) / 2**15 for e in examples]
    pictures = audio.pictures(waveforms, rate=features["audio"].sample_rate)
    labels = np.array([example["label"] for example in examples])
    members = [example["audio/filename"].decode() for example in examples]
    found = dataset.checked(pictures, labels, _NAMES, f"tfds:{name}")
    return found._replace(extra=_parts(members)[1])


def _parts(
    members: Sequence[str],
) -> tuple[list[str], dict[str, NDArray[np.int32]]]:
    """Digits, and speakers and numbers, off the names of the files."""
    found = [(member, _MEMBER.fullmatch(member)) for member in members]
    for member, match in found:
        if match is None:
            raise ValueError(
                f"Expected a recording named digit_speaker_index.wav, got {member!r}."
            )
    digits, speakers, indices = zip(
        *(match.groups() for _, match in found if match), strict=True
    )
    _, speaker_ids = np.unique(speakers, return_inverse=True)
    extra = {
        "speaker": speaker_ids.astype(np.int32),
        "index": np.array(indices, np.int32),
    }
    return list(digits), extra
