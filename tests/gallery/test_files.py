import json
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metricjax import _sealed, gallery
from tests.gallery.conftest import sample

QUICK = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def people():
    x, labels = sample(3, 2)
    return gallery.enroll(x, [f"p{label}" for label in labels], encoder="abc")


def assert_same(found, people):
    for one, other in zip(found, people, strict=True):
        np.testing.assert_array_equal(one, other)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_gallery_comes_back_as_it_was(tmp_path, people):
    for saved in (people, gallery.means(people), gallery.remove(people, people.names)):
        gallery.save(tmp_path / "g", saved)
        assert_same(gallery.load(tmp_path / "g", encoder="abc"), saved)
    assert len(content(tmp_path / "g")) == 3  # nothing of the older ones is left
    assert [path.name for path in tmp_path.iterdir()] == ["g"]


@QUICK
@given(st.lists(st.text(min_size=1), min_size=1, max_size=5))
def test_any_name_comes_back(tmp_path, names):
    names = [name for name in names if name.strip()] or ["\udcff\x1b[31m"]
    people = gallery.enroll(np.ones((len(names), 2)), names)
    gallery.save(tmp_path / "g", people)
    assert gallery.load(tmp_path / "g").names == people.names


def test_a_very_long_name_comes_back(tmp_path):
    name = "ø" * 100_000
    gallery.save(tmp_path / "g", gallery.enroll(np.ones((1, 2)), [name]))
    assert gallery.load(tmp_path / "g").names == (name,)


def test_a_gallery_of_another_encoder_is_refused(tmp_path, people):
    gallery.save(tmp_path / "g", people)
    assert gallery.load(tmp_path / "g").encoder == "abc"
    with pytest.raises(ValueError, match="encoder xyz .* made by abc"):
        gallery.load(tmp_path / "g", encoder="xyz")


def test_no_pickle_is_ever_read(tmp_path, people):
    gallery.save(tmp_path / "g", people)
    path = next((tmp_path / "g").glob("gallery-*.npz"))
    np.savez(path, embeddings=np.array([print], dtype=object))
    body = json.loads((tmp_path / "g" / _sealed.MANIFEST).read_text())
    body.pop("sha256")
    body["files"]["gallery.npz"] |= {
        "sha256": _sealed._sha256(path),
        "bytes": path.stat().st_size,
    }
    manifest = json.dumps({**body, "sha256": _sealed._seal(body)})
    (tmp_path / "g" / _sealed.MANIFEST).write_text(manifest)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        gallery.load(tmp_path / "g")


@QUICK
@given(st.data())
def test_any_damage_is_found(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damage") / "g"
    gallery.save(folder, gallery.enroll(np.eye(2), ["a", "b"]))
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    old = path.read_bytes()
    cut = data.draw(st.integers(0, len(old)))
    new = old[:cut] + data.draw(st.binary(max_size=4)) + old[cut + 1 :]
    if data.draw(st.booleans()):
        new = old[:cut]
    path.write_bytes(new)
    same = new == old
    if path.name == _sealed.MANIFEST:  # white space there may change
        same = same or _parsed(new) == json.loads(old)
    if same:
        assert gallery.load(folder).names == ("a", "b")
    else:
        with pytest.raises(ValueError, match=str(folder)):
            gallery.load(folder)


def _parsed(text):
    try:
        return json.loads(text)
    except ValueError:
        return None


def test_each_file_cut_short_changed_or_gone_is_named(tmp_path, people):
    gallery.save(tmp_path / "g", people)
    for path in sorted((tmp_path / "g").iterdir()):
        old = path.read_bytes()
        path.write_bytes(old[:-3])
        with pytest.raises(ValueError, match=f"{path.name}.*cut short"):
            gallery.load(tmp_path / "g")
        path.write_bytes(old[:-3] + b"xyz")
        with pytest.raises(ValueError, match=f"{path.name}.*changed"):
            gallery.load(tmp_path / "g")
        path.unlink()
        with pytest.raises((ValueError, FileNotFoundError), match=path.name):
            gallery.load(tmp_path / "g")
        path.write_bytes(old)
    gallery.load(tmp_path / "g")


def test_a_gallery_of_a_newer_version_is_refused(tmp_path, people, monkeypatch):
    monkeypatch.setattr(_sealed, "FORMAT", 2)
    gallery.save(tmp_path / "g", people)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="got format 2, .* upgrade metricjax"):
        gallery.load(tmp_path / "g")


def test_other_folders_are_refused_and_left_alone(tmp_path, people):
    (tmp_path / "thesis.tex").write_text("x")
    for place in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(ValueError, match="choose another path"):
            gallery.save(place, people)
    assert content(tmp_path) == {"thesis.tex": b"x"}
    with pytest.raises(FileNotFoundError, match=r"no manifest\.json"):
        gallery.load(tmp_path)
    _sealed.write(tmp_path / "b", kind="bundle", content={}, files={})
    with pytest.raises(ValueError, match="Expected a gallery .* got a bundle"):
        gallery.load(tmp_path / "b")
    with pytest.raises(ValueError, match="Expected a gallery .* got a bundle"):
        gallery.save(tmp_path / "b", people)


@pytest.mark.parametrize("step", ["write_bytes", "fsync", "replace", "rename"])
@pytest.mark.parametrize("existing", [False, True])
def test_a_write_that_fails_anywhere_leaves_what_was_there(
    tmp_path, people, monkeypatch, step, existing
):
    if existing:
        gallery.save(tmp_path / "g", people)
    before = content(tmp_path / "g") if existing else None

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    target = {
        "write_bytes": "numpy.savez",
        "fsync": "os.fsync",
        "replace": "pathlib.Path.replace",
        "rename": "pathlib.Path.rename",
    }[step]
    monkeypatch.setattr(target, fail)
    more = gallery.add(people, people.embeddings[:1], ["new"])
    if existing and step == "rename":
        gallery.save(tmp_path / "g", more)  # an existing folder is not renamed
        return
    with pytest.raises(OSError, match="No space"):
        gallery.save(tmp_path / "g", more)
    monkeypatch.undo()
    assert (content(tmp_path / "g") if existing else None) == before
    assert [path.name for path in tmp_path.iterdir()] == ["g"] * existing


def test_the_manifest_is_replaced_after_the_data_are_there(
    tmp_path, people, monkeypatch
):
    gallery.save(tmp_path / "g", people)
    replace, seen = os.replace, []
    more = gallery.add(people, people.embeddings[:1], ["new"])
    path_type = type(tmp_path)
    original = path_type.replace

    def watched(self, target):
        # A reader at any moment finds a whole gallery, the old one.
        seen.append(len(gallery.load(tmp_path / "g").names))
        return original(self, target)

    monkeypatch.setattr(path_type, "replace", watched)
    gallery.save(tmp_path / "g", more)
    monkeypatch.undo()
    assert replace is os.replace
    assert seen == [3, 3, 3]
    assert len(gallery.load(tmp_path / "g").names) == 4


def test_strange_manifests_are_refused(tmp_path):
    folder = tmp_path / "g"
    folder.mkdir()
    for text in ("", "[]", "{}", "null", "[" * 100_000, '{"sha256": 3}', "\xff"):
        (folder / _sealed.MANIFEST).write_bytes(text.encode("latin-1"))
        with pytest.raises(ValueError, match="checksum differs"):
            gallery.load(folder)
