"""Recipes are found by name from any folder, and files that are there come first."""

import tomllib
from pathlib import Path

import pytest

from isometry import recipes
from isometry.cli.arguments import parse, recipe_named
from isometry.cli.compare_plan import CompareConfig
from isometry.config import RunConfig
from isometry.recipes import find_recipe, recipes_folder, shipped_recipes

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "recipes" / "digits" / "demo.yaml"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["digits/demo.yaml", "recipes/digits/demo.yaml"])
def test_a_recipe_is_found_by_its_name(name):
    assert Path(find_recipe(name)) == DEMO
    assert recipe_named(["--config", name]) == str(DEMO)
    assert parse(CompareConfig, [f"--config={name}"]).baseline == "KD alone"


def test_a_file_that_is_there_comes_first(tmp_path):
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "teacher.yaml").write_text("epochs: 7\n")
    assert find_recipe("digits/teacher.yaml") == "digits/teacher.yaml"
    assert parse(RunConfig, ["--config", "digits/teacher.yaml"]).epochs == 7
    assert parse(RunConfig, ["--config", "recipes/digits/teacher.yaml"]).epochs != 7


@pytest.mark.parametrize("name", ["gone.yaml", "", "digits", "../pyproject.toml", "/digits/demo.yaml"])
def test_nothing_else_is_found(name):
    assert find_recipe(name) == name


def test_an_installed_package_has_them_inside(tmp_path, monkeypatch):
    """The wheel puts them there; see pyproject.toml."""
    (tmp_path / "isometry" / "recipes" / "digits").mkdir(parents=True)
    (tmp_path / "isometry" / "recipes" / "digits" / "own.yaml").write_text("epochs: 1\n")
    monkeypatch.setattr(recipes, "PACKAGE", tmp_path / "isometry")
    assert recipes_folder() == tmp_path / "isometry" / "recipes"
    assert list(shipped_recipes()) == ["digits/own.yaml"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"] == {
        "recipes": "isometry/recipes"
    }


def test_every_recipe_is_shipped():
    assert set(shipped_recipes().values()) == set((ROOT / "recipes").rglob("*.yaml"))
