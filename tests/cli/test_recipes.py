"""Recipes are found by name or file, and read section by section."""

from pathlib import Path

import pytest

from milan_pipeline.cli.recipes import find_recipe, read_sections, read_yaml, recipe_names
from milan_pipeline.errors import ConfigError


def test_installed_recipes_are_found_by_name() -> None:
    names = recipe_names()
    assert names == sorted(names)
    for name in names:
        assert find_recipe(name).stem == name
        assert read_sections(find_recipe(name))


def test_a_file_is_taken_as_it_is_and_a_folder_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = recipe_names()[0]
    (tmp_path / name).mkdir()  # as the demo's folder of results is called
    assert find_recipe(name).suffix == ".yaml"
    (tmp_path / "mine.yaml").write_text("index:\n")
    assert find_recipe("mine.yaml") == Path("mine.yaml")


def test_the_nearest_recipe_is_named() -> None:
    name = recipe_names()[0]
    with pytest.raises(ConfigError, match=f"neither a file nor a recipe .*did you mean '{name}'"):
        find_recipe(f"{name}s.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pretrian: {epochs: 1}", "section 'pretrian', which names no stage; .*'pretrain'"),
        ("pretrain: 3", "section 'pretrain' must map option names"),
        ("- pretrain", "holds no mapping"),
        ("pretrain: [", "is not plain YAML"),
        ("pretrain: !!python/name:os.getcwd", "is not plain YAML"),
    ],
)
def test_what_is_no_recipe_is_refused_in_a_sentence(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        read_sections(path)
    assert "mine.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_values_are_those_of_the_yaml(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("pretrain: {epochs: 3, base-lr: 1.0e-4}\nprobe: {k: [1, 2]}\nindex:\n")
    assert read_sections(path) == {
        "pretrain": {"epochs": 3, "base-lr": 1e-4},
        "probe": {"k": [1, 2]},
        "index": {},
    }


@pytest.mark.parametrize("text", ["a: 2001-99-99", "[" * 5000])
def test_whatever_yaml_raises_is_one_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "strange.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"strange\.yaml is not plain YAML"):
        read_yaml(path)
