"""Sounds as pictures: the transform, wav files, and the spoken digits."""

import concurrent.futures
import importlib.util
import io
import multiprocessing
import os
import sys
import wave
import zipfile
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metricjax import data
from metricjax.data import audio, recordings, spoken_digit
from tests.data.conftest import damaged, whole_or_refused
from tests.oracles import audio as oracle

DATA_DIR = os.environ.get("METRICJAX_DATA_DIR")
needs_files = pytest.mark.skipif(
    not DATA_DIR, reason="METRICJAX_DATA_DIR names no folder of raw files"
)
RATE = 8000
SAMPLES = 256 + 63 * 128
PACED = {"rate": RATE, "mels": 40, "frames": 64, "hop": 0.016, "drop": np.inf}


def tone(samples, *, frequency=440.0, amplitude=0.5):
    time = np.arange(samples) / RATE
    return (amplitude * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def noise(samples, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.5, 0.5, samples).astype(np.float32)


def wav(waveform, *, width=2, rate=RATE, channels=1):
    """The bytes of a wav file; a waveform is [samples] or [samples, channels]."""
    whole = np.round(np.float64(waveform) * 2 ** (8 * width - 1)).astype(np.int64)
    whole = whole + 128 if width == 1 else whole
    raw = whole.astype("<i8").reshape(-1, 1).view(np.uint8)[:, :width]
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(raw.tobytes())
    return buffer.getvalue()


def zipped(path, files):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


def unpacked(folder, files):
    for name, content in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return folder


def test_log_mel_agrees_with_loops_over_samples_and_bands(x64):
    waveforms = np.stack([noise(80), tone(80, frequency=1200.0)]).astype(np.float64)
    options = {"rate": RATE, "mels": 6, "low": 100.0, "high": 3500.0, "floor": 1e-8}
    out = audio.log_mel(waveforms, window=24 / RATE, hop=10 / RATE, **options)
    assert out.shape == (2, 6, 6)
    for waveform, levels in zip(waveforms, out, strict=True):
        expected = oracle.log_mel(waveform, size=24, step=10, **options)
        np.testing.assert_allclose(levels, expected, atol=1e-9)


def test_log_mel_in_single_precision_is_near(x64):
    waveforms = np.stack([noise(600), tone(600)])
    single = audio.log_mel(waveforms, rate=RATE, mels=20)
    double = audio.log_mel(waveforms.astype(np.float64), rate=RATE, mels=20)
    assert (single.dtype, double.dtype) == (jnp.float32, jnp.float64)
    near = np.asarray(double) > -30
    np.testing.assert_allclose(single[near], double[near], atol=1e-2)


def test_silence_is_at_the_floor_and_has_a_finite_slope():
    silence = jnp.zeros((1, 300))
    levels = audio.log_mel(silence, rate=RATE, mels=20, floor=1e-6)
    np.testing.assert_allclose(levels, -60.0, atol=1e-4)
    slope = jax.grad(lambda x: audio.log_mel(x, rate=RATE, mels=20).sum())(silence)
    assert bool(jnp.isfinite(slope).all())


def test_log_mel_is_the_same_under_jit_and_vmap():
    waveforms = jnp.asarray(np.stack([noise(600), noise(600, 1)]))

    def one(waveform):
        return audio.log_mel(waveform[None], rate=RATE, mels=20)[0]

    mapped = jax.jit(jax.vmap(one))(waveforms)
    expected = audio.log_mel(waveforms, rate=RATE, mels=20)
    np.testing.assert_allclose(mapped, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((1, 255), {}, "at least 256 samples"),
        ((300,), {}, r"\[batch, samples\]"),
        ((1, 300), {"mels": 100}, "take fewer mels or a longer window"),
        ((1, 300), {"high": 4001.0}, "half of the rate"),
        ((1, 300), {"low": 4000.0}, "half of the rate"),
        ((1, 300), {"hop": 0.0}, "at least one sample"),
    ],
)
def test_impossible_transforms_are_refused(shape, options, message):
    with pytest.raises(ValueError, match=message):
        audio.log_mel(jnp.zeros(shape), rate=RATE, **options)


def test_integer_waveforms_are_refused():
    with pytest.raises(TypeError, match="floating"):
        audio.log_mel(jnp.zeros((1, 300), jnp.int16), rate=RATE)


def test_a_picture_is_the_levels_below_its_own_peak():
    recording = noise(SAMPLES)
    levels = np.asarray(audio.log_mel(recording[None], rate=RATE))[0]
    for span in (80.0, 20.0):
        found = audio.pictures([recording], **PACED, low=0.0, span=span)
        expected = 255 * np.clip(1 + (levels - levels.max()) / span, 0, 1)
        assert found.dtype == np.uint8
        assert found.shape == (1, *levels.shape, 1) == (1, 40, 64, 1)
        np.testing.assert_allclose(found[0, ..., 0], expected, atol=0.51)


def test_frames_are_spread_evenly_over_what_is_heard():
    word = noise(24 + 7 * 13)
    silence = np.zeros(1000, np.float32)
    heard = audio.trimmed(np.concatenate([silence, word, silence]), rate=RATE)
    # Stretches of 10 ms: at most two too many on each side.
    assert len(word) <= len(heard) <= len(word) + 4 * 82
    options = {"rate": RATE, "mels": 6, "low": 200.0}
    (found,) = audio.pictures(
        [word], window=24 / RATE, frames=8, drop=np.inf, **options
    )
    expected = oracle.log_mel(
        word.astype(float), size=24, step=13, high=RATE / 2, floor=1e-10, **options
    )
    expected = 255 * np.clip(1 + (expected - expected.max()) / 60, 0, 1)
    np.testing.assert_allclose(found[..., 0], expected, atol=0.51)


def test_a_word_said_at_half_the_pace_makes_nearly_the_same_picture():
    tones = (400.0, 900.0, 1600.0)
    quick, slow = (
        np.concatenate([tone(samples, frequency=f) for f in tones])
        for samples in (1000, 2000)
    )
    a, b = audio.pictures([quick, slow], rate=RATE).astype(float)
    assert np.abs(a - b).mean() < 10
    a, b = audio.pictures([quick, slow], rate=RATE, hop=0.016).astype(float)
    assert np.abs(a - b).mean() > 40


@pytest.mark.parametrize("drop", [0.0, 10.0, 30.0, np.inf])
def test_quiet_ends_are_cut_as_a_loop_over_stretches_says(drop):
    rng = np.random.default_rng(0)
    envelope = np.interp(np.arange(4037), [0, 1500, 2500, 4037], [-3, 0, 0, -2.5])
    recording = (10**envelope * rng.normal(size=4037)).astype(np.float32)
    start, stop = oracle.ends(recording.astype(float), stretch=80, drop=drop)
    found = audio.trimmed(recording, rate=RATE, drop=drop)
    np.testing.assert_array_equal(found, recording[start:stop])
    assert (len(found) == 4037) == (drop == np.inf)


@pytest.mark.parametrize("samples", [1, 50, 100, 170, 250])
def test_the_shortest_recordings_keep_something(samples):
    assert 0 < len(audio.trimmed(noise(samples), rate=RATE)) <= samples
    silence = np.zeros(samples, np.float32)
    assert len(audio.trimmed(silence, rate=RATE)) == samples
    assert audio.pictures([noise(samples)], rate=RATE).max() == 255


@pytest.mark.parametrize(("samples", "drop"), [(0, 30.0), (9, -1.0), (9, np.nan)])
def test_nothing_to_trim_is_refused(samples, drop):
    with pytest.raises(ValueError, match="`drop` of at least 0 dB"):
        audio.trimmed(noise(samples), rate=RATE, drop=drop)


def test_at_one_pace_short_ones_are_padded_and_long_ones_cut_on_both_sides():
    short, long = noise(1001), noise(SAMPLES + 301)
    padded = np.zeros(SAMPLES, np.float32)
    start = (SAMPLES - 1001) // 2
    padded[start : start + 1001] = short
    out = audio.pictures([short, long], **PACED)
    same = audio.pictures([padded, long[150 : 150 + SAMPLES]], **PACED)
    np.testing.assert_array_equal(out, same)
    # Frames that hold nothing of the recording.
    assert (out[0, :, : start // 128 - 2] == 0).all()
    assert (out[0, :, start // 128 + 1] > 0).all()


def test_loudness_does_not_matter_and_silence_is_black():
    recording = noise(5000)
    loud, soft, silent = audio.pictures(
        [recording, recording / 16, 0 * recording], rate=RATE
    )
    np.testing.assert_array_equal(loud, soft)
    assert loud.max() == 255
    assert silent.max() == 0


def test_many_recordings_are_as_each_alone():
    many = [noise(500 + i, seed=i) for i in range(260)]
    together = audio.pictures(many, rate=RATE, frames=8, mels=10)
    assert together.shape == (260, 10, 8, 1)
    for i in (0, 255, 256, 259):
        alone = audio.pictures(many[i : i + 1], rate=RATE, frames=8, mels=10)
        # One unit: rounding may differ with the size of the block.
        assert np.abs(alone[0].astype(int) - together[i]).max() <= 1


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_wav_files_of_every_width_hold_the_same_waveform(tmp_path, width):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(noise(100), width=width, rate=11025))
    found, rate = recordings.read(path)
    assert rate == 11025
    assert found.dtype == np.float32
    tolerance = 0.51 / 2 ** (8 * width - 1) + 1e-7
    np.testing.assert_allclose(found, noise(100), atol=tolerance)


def test_channels_are_averaged(tmp_path):
    path = tmp_path / "a.wav"
    both = np.stack([noise(100), noise(100, 1)], axis=1)
    path.write_bytes(wav(both, channels=2))
    np.testing.assert_allclose(
        recordings.read(path)[0], both.mean(axis=1), atol=2 / 2**15
    )


@pytest.fixture(scope="module")
def files():
    """Recordings by class, one deeper, and things that are none."""
    return {
        "yes/b.wav": wav(noise(900, 1)),
        "yes/a.WAV": wav(noise(800, 0)),
        "no/deeper/c.wav": wav(noise(700, 2)),
        "no/.hidden.wav": b"",
        "yes/notes.txt": b"no sound",
        "__MACOSX/yes/._a.wav": b"",
    }


def test_sub_folders_are_classes(tmp_path, files):
    found = data.load(f"audio:{unpacked(tmp_path, files)}")
    assert found.names == ("no", "yes")
    assert found.labels.tolist() == [0, 1, 1]
    expected = audio.pictures([noise(700, 2), noise(800, 0), noise(900, 1)], rate=RATE)
    assert np.abs(found.images.astype(int) - expected).max() <= 3
    small = data.load(f"audio:{tmp_path}", size=(20, 32))
    assert small.images.shape == (3, 20, 32, 1)


@pytest.mark.parametrize("top", ["", "top/"])
def test_a_zip_holds_what_the_folder_holds(tmp_path, files, top):
    folder = data.load(f"audio:{unpacked(tmp_path / 'folder', files)}")
    path = zipped(tmp_path / "a.zip", {top + k: v for k, v in files.items()})
    found = data.load(f"audio:{path}")
    assert found.names == folder.names
    assert found.labels.tolist() == folder.labels.tolist()
    np.testing.assert_array_equal(found.images, folder.images)


def test_different_rates_are_refused_by_name(tmp_path, files):
    files = files | {"no/z.wav": wav(noise(700), rate=16000)}
    with pytest.raises(ValueError, match=r"8000 .*c\.wav and 16000 .*no/z\.wav"):
        data.load(f"audio:{unpacked(tmp_path, files)}")


FLOATS = bytearray(wav(noise(50), width=4))
FLOATS[20] = 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "integer samples"),
        (b"RIFF", "integer samples"),
        (bytes(FLOATS), "unknown format: 3.*pcm_s16le"),
        (wav(noise(0)), "0 of 0 samples"),
        (wav(noise(50))[:-10], "45 of 50 samples"),
        (wav(noise(50), rate=100), "rate of 2000 to 400000"),
    ],
)
@pytest.mark.parametrize("pack", [zipped, unpacked])
def test_bad_recordings_are_refused_by_name(tmp_path, pack, content, message):
    path = pack(tmp_path / "set", {"yes/bad.wav": content, "yes/z.wav": b""})
    with pytest.raises(ValueError, match=message) as caught:
        data.load(f"audio:{path}")
    assert f"{path}/yes/bad.wav" in str(caught.value)


@pytest.mark.parametrize("pack", [zipped, unpacked])
def test_recordings_without_a_class_are_refused(tmp_path, pack):
    path = pack(tmp_path / "set", {"a.wav": wav(noise(50))})
    with pytest.raises(ValueError, match=r"sub-folder .* got a\.wav outside"):
        data.load(f"audio:{path}")
    path = pack(tmp_path / "none", {"yes/a.txt": b"text"})
    with pytest.raises(ValueError, match=r"Expected \.wav files in sub-folders"):
        data.load(f"audio:{path}")


def test_a_place_with_nothing_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder or a zip"):
        data.load(f"audio:{tmp_path}/none")


def test_random_damage_of_a_wav_file_is_reported(tmp_path):
    path = tmp_path / "a.wav"
    for content in damaged(wav(noise(40), width=3), 200, seed=0):
        path.write_bytes(content)
        assert whole_or_refused(lambda path: recordings.read(path)[0], path)


SPOKEN = {
    "recordings/1_theo_0.wav": wav(noise(700, 0)),
    "recordings/0_theo_7.wav": wav(noise(700, 1)),
    "recordings/0_anna_12.wav": wav(noise(700, 2)),
    "recordings/readme.wav": b"",
}


@pytest.mark.parametrize("place", ["spoken_digit", "fsdd", "."])
def test_spoken_digits_know_their_speakers(tmp_path, place):
    (tmp_path / place).mkdir(exist_ok=True)
    zipped(tmp_path / place / "fsdd_recordings.zip", SPOKEN)
    found = data.load("spoken_digit", data_dir=tmp_path)
    assert found.images.shape == (3, 20, 32, 1)
    assert found.names == ("0", "1")
    assert found.labels.tolist() == [0, 0, 1]
    assert found.extra["speaker"].tolist() == [0, 1, 1]
    assert found.extra["index"].tolist() == [12, 7, 0]


def test_spoken_digits_that_are_missing_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    expected = r"fsdd_recordings\.zip .*--data-dir .*pip install tensorflow"
    with pytest.raises(FileNotFoundError, match=expected):
        data.load("spoken_digit", data_dir=tmp_path)


def test_a_split_or_a_zip_without_spoken_digits_is_refused(tmp_path):
    with pytest.raises(ValueError, match='split "train" of spoken_digit'):
        data.load("spoken_digit", data_dir=tmp_path, split="test")
    path = zipped(tmp_path / "fsdd_recordings.zip", {"a.wav": b""})
    with pytest.raises(ValueError, match=f"{path}, got none"):
        data.load("spoken_digit", data_dir=tmp_path)


def test_random_damage_of_the_zip_is_reported(tmp_path):
    path = zipped(tmp_path / "fsdd_recordings.zip", SPOKEN)

    def read(path):
        return spoken_digit.load("spoken_digit", path, "train").images

    for content in [b"", *damaged(path.read_bytes(), 40, seed=0)]:
        path.write_bytes(content)
        assert whole_or_refused(read, path)


EXAMPLES = [
    {"audio": np.int64(noise(700, i) * 2**15), "label": i, "audio/filename": name}
    for i, name in enumerate([b"0_theo_3.wav", b"1_anna_4.wav"])
]


def check_prepared(found):
    order = np.argsort(found.labels)
    assert found.names == tuple("0123456789")
    assert found.labels[order].tolist() == [0, 1]
    assert found.extra["speaker"][order].tolist() == [1, 0]
    assert found.extra["index"][order].tolist() == [3, 4]
    expected = audio.pictures([noise(700, 0), noise(700, 1)], rate=RATE)
    assert np.abs(found.images[order].astype(int) - expected).max() <= 3


def test_prepared_spoken_digits_are_the_same_pictures(monkeypatch):
    features = {"audio": SimpleNamespace(sample_rate=RATE)}
    opened = lambda *_: (EXAMPLES, features)  # noqa: E731
    monkeypatch.setattr(spoken_digit.tfds, "_opened", opened)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    check_prepared(data.load("spoken_digit"))


def prepare_and_check(folder):
    """With the real builder's name, version and features."""
    tfds = importlib.import_module("tensorflow_datasets")
    with tfds.core.registered.skip_registration():

        class SpokenDigit(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.0.9")

            def _info(self):
                features = {
                    "audio": tfds.features.Audio(file_format="wav", sample_rate=RATE),
                    "label": tfds.features.ClassLabel(num_classes=10),
                    "audio/filename": tfds.features.Text(),
                }
                return tfds.core.DatasetInfo(
                    builder=self, features=tfds.features.FeaturesDict(features)
                )

            def _split_generators(self, dl_manager):
                return {"train": list(enumerate(EXAMPLES))}

            def _generate_examples(self):
                raise AssertionError("the split is a list")

    SpokenDigit(data_dir=folder, file_format="array_record").download_and_prepare()
    check_prepared(data.load("spoken_digit", data_dir=folder))


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None,
    reason="TensorFlow Datasets reads sounds with TensorFlow, which is not installed",
)
def test_spoken_digits_that_tensorflow_prepared_are_read(tmp_path):
    # In a process of its own: other tests check that TensorFlow is not loaded.
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        pool.submit(prepare_and_check, tmp_path).result()


@needs_files
def test_the_real_spoken_digits_hold_what_their_authors_say():
    found = data.load("spoken_digit", data_dir=DATA_DIR)
    assert found.images.shape == (3000, 20, 32, 1)
    assert np.bincount(found.labels).tolist() == [300] * 10
    assert np.bincount(found.extra["speaker"]).tolist() == [500] * 6
    assert np.bincount(found.extra["index"]).tolist() == [60] * 50
    assert (found.images.max(axis=(1, 2, 3)) == 255).all()
    assert found.images.mean() == pytest.approx(130.611, abs=0.01)
