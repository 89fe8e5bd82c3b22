"""Paths among the options: all of them are known, and mean the same in any folder."""

from pathlib import Path

import pytest
import yaml

from helpers.image_files import write_classes
from isometry.cli.arguments import parse, recipe_named
from isometry.cli.commands import COMMANDS
from isometry.cli.help import option_groups
from isometry.config import DataConfig, RunConfig
from isometry.config.paths import (
    PATHS,
    absolute_paths,
    expand_path,
    expand_paths,
    has_moved,
    same_place,
)
from isometry.data import find_sources
from isometry.data.inventory import fingerprint, take_inventory
from isometry.errors import UserError

NO_PATHS = {"data_changed", "drop_path", "teacher_cache_size", "val_fraction", "to"}
"""Options whose help has such a word and that are none."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder; the present folder is beside it."""
    for name in ("home", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def test_every_option_that_speaks_of_files_is_known_as_a_path():
    options = {
        option.name: option.help.lower()
        for command in COMMANDS.values()
        for _, group in option_groups(command.kind)
        for option in group
    }
    spoken = {
        name
        for name, text in options.items()
        if any(word in text for word in ("folder", "file", "recipe", "path"))
    }
    assert spoken - NO_PATHS == PATHS


@pytest.mark.parametrize(
    "command", [name for name, command in COMMANDS.items() if name not in ("list", "completion", "push")]
)
def test_a_tilde_is_the_home_folder_in_every_path_of_every_command(home: Path, command: str):
    kind = COMMANDS[command].kind
    texts = {option.name for _, group in option_groups(kind) for option in group if option.name in PATHS}
    assert texts
    for name in texts:
        found = getattr(parse(kind, [f"--{name.replace('_', '-')}=~/x"]), name)
        assert found in (f"{home}/x", [f"{home}/x"])


def test_so_it_is_in_recipes_and_in_names_of_folders(home: Path):
    recipe = home / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"out": "~/x", "data_dir": "~/photos", "model": "local-dir:~/net"}))
    assert recipe_named(["--config=~/recipe.yaml"]) == str(recipe)
    config = parse(RunConfig, ["--config=~/recipe.yaml"])
    assert (config.out, config.data_dir) == (f"{home}/x", f"{home}/photos")
    assert config.model == f"local-dir:{home}/net"
    (home / "run" / "student").mkdir(parents=True)
    (home / "run" / "student" / "config.json").touch()
    assert parse(RunConfig, ["--teacher=~/run"]).teacher == f"local-dir:{home}/run/student"


@pytest.mark.parametrize("path", ["", "x", "/x", "a~", "hf-hub:timm/x", "local-dir:x", "./~/x"])
def test_other_paths_stay_as_they_are(home: Path, path: str):
    assert expand_path(path) == path


def test_what_a_run_reads_is_stored_with_absolute_paths(home: Path):
    for name in ("map.txt", "weights.safetensors"):
        Path(name).touch()
    here = Path.cwd()
    config = absolute_paths(
        expand_paths(
            RunConfig(
                data_dir="photos",
                class_map="map.txt",
                model="local-dir:net",
                teacher="vit_tiny_patch16_224",
                teacher_cache="cache",
                initial_checkpoint="weights.safetensors",
                out="runs/a",
            )
        )
    )
    assert config == RunConfig(
        data_dir=f"{here}/photos",
        class_map=f"{here}/map.txt",
        model=f"local-dir:{here}/net",
        teacher="vit_tiny_patch16_224",
        teacher_cache=f"{here}/cache",
        initial_checkpoint=f"{here}/weights.safetensors",
        out="runs/a",
    )
    assert absolute_paths(config) == config
    Path("net").mkdir()
    assert absolute_paths(RunConfig(teacher="transformers:net")).teacher == f"transformers:{here}/net"


@pytest.mark.parametrize(
    "config",
    [
        RunConfig(),
        RunConfig(data_dir="https://host/shards", teacher_weights="none"),
        RunConfig(data_dir="s3://bucket/shards"),
        RunConfig(data_dir="/photos", class_map="in-the-photos.txt", model="hf-hub:me/x"),
        RunConfig(teacher="transformers:me/x"),
    ],
)
def test_what_is_no_path_here_is_stored_as_it_is(home: Path, config: RunConfig):
    assert absolute_paths(config) == config


@pytest.mark.parametrize("spelled", ["pics", "pics/", "./pics/../pics", "./pics//.", "deep/../pics"])
def test_one_place_is_stored_in_one_spelling(home: Path, spelled: str):
    write_classes(Path("pics"), {"a": 3, "b": 3})
    Path("deep").mkdir()
    config = absolute_paths(RunConfig(data_dir=spelled, teacher_cache=spelled, model=f"local-dir:{spelled}"))
    pics = f"{Path.cwd()}/pics"
    assert (config.data_dir, config.teacher_cache, config.model) == (pics, pics, f"local-dir:{pics}")
    stored = take_inventory(find_sources(config), config.data_dir)
    as_given = take_inventory(find_sources(RunConfig(data_dir=spelled)), spelled)
    assert fingerprint(as_given) == fingerprint(stored)


def test_the_folder_above_a_link_is_that_of_its_target(home: Path):
    """The text alone would lead to another folder."""
    for place in ("far/pics", "far/target", "pics"):
        Path(place).mkdir(parents=True)
    Path("link").symlink_to("far/target")
    found = absolute_paths(RunConfig(data_dir="link/../pics", class_map="link")).data_dir
    assert found == f"{Path.cwd()}/far/pics"
    # A link itself stays one: it may lead elsewhere tomorrow.
    assert absolute_paths(RunConfig(data_dir="link")).data_dir == f"{Path.cwd()}/link"


def test_a_path_has_moved_if_the_old_one_is_gone_and_the_new_one_there(tmp_path: Path):
    old, new = tmp_path / "old", tmp_path / "new"
    assert not has_moved("data_dir", str(old), str(new))
    new.mkdir()
    assert has_moved("data_dir", str(old), str(new))
    assert has_moved("teacher", f"local-dir:{old}", f"local-dir:{new}")
    assert not has_moved("teacher", "vit_tiny_patch16_224", f"local-dir:{new}")
    assert not has_moved("opt", str(old), str(new))
    old.mkdir()
    assert not has_moved("data_dir", str(old), str(new))


def test_a_folder_with_a_colon_is_a_folder(home: Path):
    Path("imgs:v2").mkdir()
    assert absolute_paths(RunConfig(data_dir="imgs:v2")).data_dir == f"{Path.cwd()}/imgs:v2"
    assert absolute_paths(RunConfig(data_dir="imgs:v3")).data_dir == "imgs:v3"


def test_a_link_and_a_path_around_are_the_same_place(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to("photos")
    for path in ("link", "other/../photos"):
        assert same_place("data_dir", str(tmp_path / "photos"), str(tmp_path / path))
        assert same_place("model", f"local-dir:{tmp_path / 'photos'}", f"local-dir:{tmp_path / path}")
    assert not same_place("data_dir", str(tmp_path / "photos"), str(tmp_path / "other"))
    assert not same_place("data_dir", str(tmp_path / "photos"), str(tmp_path / "gone"))
    assert not same_place("opt", str(tmp_path), str(tmp_path))


def test_the_home_folder_of_nobody_is_a_name_like_any_other(home: Path):
    assert expand_path("~nobody-of-this-name/x") == "~nobody-of-this-name/x"
    assert absolute_paths(RunConfig(data_dir="~nobody-of-this-name")).data_dir == str(
        home.parent / "here" / "~nobody-of-this-name"
    )
    for name in ("~nobody-of-this-name", "~nobody-of-this-name.csv"):
        with pytest.raises(UserError, match=r"~nobody-of-this-name"):
            find_sources(DataConfig(data_dir=name))
