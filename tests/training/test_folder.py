import dataclasses
import json

import pytest

from metricjax.training import folder
from metricjax.training.recipes import arcface
from metricjax.training.settings import Settings


def test_a_folder_is_made_and_accepted_again(tmp_path):
    path = folder.open_run(tmp_path / "a" / "b", recipe="arcface", settings=Settings())
    again = folder.open_run(path, recipe="arcface", settings=Settings())
    assert again == path
    config = json.loads((path / "config.json").read_text())
    assert config["recipe"] == "arcface"
    plain = json.loads(json.dumps(dataclasses.asdict(Settings())))
    assert config["settings"] == plain
    assert "jax" in config["versions"]


def test_a_run_of_another_recipe_is_refused(tmp_path):
    folder.open_run(tmp_path, recipe="arcface", settings=Settings())
    with pytest.raises(ValueError, match="got one of recipe arcface; choose another"):
        folder.open_run(tmp_path, recipe="triplet", settings=Settings())


def test_a_run_with_other_settings_is_refused_and_they_are_named(tmp_path):
    folder.open_run(tmp_path, recipe="arcface", settings=arcface.Settings())
    changed = arcface.Settings(margin=0.1, seed=3)
    with pytest.raises(ValueError, match="margin was .*, is 0.1; seed was 0, is 3"):
        folder.open_run(tmp_path, recipe="arcface", settings=changed)


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="which holds other files"):
        folder.open_run(tmp_path, recipe="arcface", settings=Settings())
    with pytest.raises(ValueError, match="which holds other files"):
        folder.open_run(tmp_path / "thesis.tex", recipe="arcface", settings=Settings())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_left_by_a_kill_before_its_first_file_is_accepted(tmp_path):
    (tmp_path / "config.json.part").write_text('{"rec')
    folder.open_run(tmp_path, recipe="arcface", settings=Settings())
    assert folder.read_json(tmp_path / "config.json")["recipe"] == "arcface"


def test_a_run_on_other_data_is_refused(tmp_path):
    options = {"recipe": "arcface", "settings": Settings()}
    folder.open_run(tmp_path, **options, data={"image_shape": (8, 8, 1), "images": 50})
    folder.open_run(tmp_path, **options, data={"image_shape": (8, 8, 1), "images": 50})
    with pytest.raises(ValueError, match="images was 50, is 60"):
        folder.open_run(
            tmp_path, **options, data={"image_shape": (8, 8, 1), "images": 60}
        )


@pytest.mark.parametrize("content", ["", "{", "[]", '{"recipe": "arcface"}'])
def test_damaged_settings_are_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match="got a damaged file"):
        folder.open_run(tmp_path, recipe="arcface", settings=Settings())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("learning_rate", float("nan")),
        ("learning_rate", -1.0),
        ("held_out", 1.0),
        ("seed", -1),
        ("test_classes", 1),
        ("splits", 0),
    ],
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"Expected .*{name.replace('_', '.')}|seed"):
        Settings(**{name: value})
