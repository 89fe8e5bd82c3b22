"""No recipe and no downloaded run starts a program or fetches anything: each trap here would leave a file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from data.test_timm_datasets import write_shards
from helpers.image_files import RGB16, folder_config, write_classes
from helpers.messages import mentions
from helpers.runs import DIGITS, TINY_STUDENT, run
from isometry.cli.main import main
from isometry.data import find_sources, make_loaders
from isometry.errors import UserError
from isometry.models.build import check_on_disk
from isometry.models.spec import ModelSpec
from test_hostile import Trap, write_trap

SMALL = ["--model", "vit_tiny_patch16_224", "--img-size", "16", "--num-classes", "3", "--workers", "0"]
SMALL += ["--model-kwargs", "patch_size=4", "embed_dim=32", "depth=1", "num_heads=2", "--device", "cpu"]


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """The file that a trap leaves."""
    return tmp_path / "sprung"


@pytest.fixture
def pipe(tmp_path: Path, marker: Path) -> str:
    """An address that leaves the file, and then reads whole shards."""
    (tmp_path / "shards").mkdir()
    write_shards(tmp_path / "shards")
    return f"pipe:touch {marker}; cat {tmp_path}/shards"


@pytest.fixture
def refused(marker: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """A command that leaves 2, says one line, and starts nothing."""

    def refused(*words: str, why: str) -> None:
        code, err = main(words), capsys.readouterr().err
        assert code == 2, err
        (line,) = err.splitlines()
        assert mentions(line, why)
        assert not marker.exists()

    return refused


def recipe(folder: Path, **options: object) -> str:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(options))
    return str(path)


def test_the_trap_springs_where_it_is_allowed(pipe: str, marker: Path):
    typed = ["--dataset", "wds/x", "--data-dir", pipe]
    assert main(["check", *SMALL, *typed, "--allow-commands"]) == 0
    assert marker.exists()


@pytest.mark.parametrize("download", [True, False])
def test_no_recipe_starts_a_program(tmp_path: Path, pipe: str, refused: Callable[..., None], download: bool):
    options = {"dataset": "wds/x", "data_dir": pipe, "dataset_download": download}
    config = recipe(tmp_path, **options)
    refused("check", *SMALL, "--config", config, why="--data-dir pipe: … --allow-commands")
    refused("check", *SMALL, "--config", config, "--allow-commands", why="--allow-commands … --data-dir")
    config = recipe(tmp_path, allow_commands=True, **options)
    refused("check", *SMALL, "--config", config, why="recipe.yaml … allow_commands … command line")
    refused("check", *SMALL, "--dataset", "wds/x", "--data-dir", pipe, why="--allow-commands")


def test_no_comparison_starts_a_program(tmp_path: Path, pipe: str, refused: Callable[..., None]):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({"dataset": "wds/x", "model": "vit_tiny_patch16_224"}))
    allowing = {"data_dir": pipe, "allow_commands": True}
    for place in ({"variants": {"a": allowing}}, {"variants": {"a": {"epochs": 1}}, "overrides": allowing}):
        config = recipe(tmp_path, base="base.yaml", **place)
        refused("compare", "--config", config, "--out", str(tmp_path / "out"), why="allow_commands")


ADDRESSES = [
    "http://a/b",
    "https://a/b",
    "gs://a",
    "hf://a/b",
    "sftp://a",
    "scp:a",
    "ais:a",
    "PIPE:touch x",
    "s3:a",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_every_address_needs_the_permission(address: str):
    config = folder_config(Path(), dataset="wds/x", dataset_download=True)
    config.data_dir = address
    with pytest.raises(UserError, match="is no folder but an address"):
        find_sources(config)


def test_a_folder_that_is_called_like_an_address_is_a_folder(
    tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    name = "pipe:touch sprung; cat x"
    Path(name).mkdir()
    write_shards(Path(name))
    config = folder_config(Path(name), dataset="wds/x")
    sources = find_sources(config)
    assert sources.val is not None
    assert len(sources.val) == 32
    assert not marker.exists()


def test_shards_at_an_address_are_names_and_no_commands(tmp_path: Path, marker: Path, pipe: str):
    info = tmp_path / "shards" / "_info.json"
    told = json.loads(info.read_text())
    told["splits"]["train"]["filenames"][1] = f"train-1.tar; touch {tmp_path}/by-shard"
    info.write_text(json.dumps(told))
    config = folder_config(tmp_path, dataset="wds/x", allow_commands=True)
    config.data_dir = pipe
    with pytest.raises(UserError, match=r"a shard called 'train-1\.tar; touch"):
        find_sources(config)
    assert not (tmp_path / "by-shard").exists()


def test_shards_in_a_folder_are_files_whatever_they_are_called(tmp_path: Path, marker: Path):
    write_shards(tmp_path)
    info = tmp_path / "_info.json"
    told = json.loads(info.read_text())
    told["splits"]["validation"]["filenames"] = [f"pipe:touch {marker}"]
    info.write_text(json.dumps(told))
    config = folder_config(tmp_path, dataset="wds/x", workers=1)
    sources = find_sources(config)
    with pytest.raises(UserError):
        list(make_loaders(sources, config, RGB16, seed=0).val or [])
    assert not marker.exists()


# --- scripts of data sets
# ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["hfds", "hfids"])
def test_a_library_that_runs_scripts_of_data_sets_is_not_even_imported(
    tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
):
    """Of `datasets` before 4.0; a stand-in of that version leaves the file when it is imported."""
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text(f"open({str(marker)!r}, 'w')\n")
    (tmp_path / "datasets-3.6.0.dist-info").mkdir()
    (tmp_path / "datasets-3.6.0.dist-info" / "METADATA").write_text("Name: datasets\nVersion: 3.6.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"pip install 'datasets>=4'"):
        find_sources(folder_config(tmp_path, dataset=f"{scheme}/x"))
    assert not marker.exists()


def test_names_that_fetch_code_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("isometry.data.timm_datasets.find_spec", lambda name: object())
    with pytest.raises(UserError, match=r"--dataset tfds/huggingface:x.*run code"):
        find_sources(folder_config(tmp_path, dataset="tfds/huggingface:x"))


def test_a_class_map_is_no_program(tmp_path: Path, marker: Path):
    write_classes(tmp_path / "pictures", {"cat": 2, "dog": 2})
    write_trap(tmp_path / "map.pkl", marker, "pickle")
    with pytest.raises(UserError, match="--class-map"):
        find_sources(folder_config(tmp_path / "pictures", class_map=str(tmp_path / "map.pkl")))
    assert not marker.exists()


# --- networks
# ------------------------------------------------------------------------------------------------------

LOADED: list[tuple[str, str]] = [
    ("checkpoint_path", "PICKLE"),
    ("pretrained_cfg", "{file: PICKLE}"),
    ("pretrained_cfg", "{url: file://PICKLE}"),
    ("pretrained_cfg", "{hf_hub_id: a/b, hf_hub_filename: c, custom_load: hf}"),
    ("pretrained_cfg_overlay", "{file: PICKLE}"),
    ("pretrained_cfg", "x"),
    ("cache_dir", "FOLDER"),
    ("features_only", "true"),
    ("device", "meta"),
    ("dtype", "x"),
]


@pytest.mark.parametrize(("name", "value"), LOADED)
@pytest.mark.parametrize("option", ["--model", "--teacher"])
def test_arguments_of_a_network_name_no_files(
    tmp_path: Path, marker: Path, refused: Callable[..., None], option: str, name: str, value: str
):
    torch.save({"state_dict": {"w": torch.ones(1)}, "args": Trap(marker)}, tmp_path / "w.pth")
    given = value.replace("PICKLE", str(tmp_path / "w.pth")).replace("FOLDER", str(tmp_path))
    network = [*DIGITS, "--teacher", "vit_tiny_patch16_224", "--teacher-weights", "none"]
    words = ["check", *TINY_STUDENT, *network, "--pretrained", f"{option}-kwargs.{name}", given]
    refused(*words, why=f"{option}-kwargs {name}" if option == "--teacher" else f"--student-kwargs {name}")


def test_a_backend_of_the_compiler_is_no_module(tmp_path: Path, refused: Callable[..., None]):
    for name in ("os:system", "module:os", str(tmp_path)):
        words = ["check", *TINY_STUDENT, "--compile", "--compile-backend", name]
        refused(*words, why="--compile-backend … no such backend")


# --- a run that was downloaded
# ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder."""
    folder = tmp_path_factory.mktemp("finished")
    ended = run("train", *TINY_STUDENT, "--epochs", "1", "--out", str(folder / "run"), said=folder / "said")
    assert ended.code == 0, ended.err
    return folder / "run"


COMMANDS = {"evaluate": [], "bench": ["--runtimes", "eager"], "export": ["--to", "onnx"]}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_folder_of_a_run_is_only_read(
    tmp_path: Path, pipe: str, refused: Callable[..., None], finished: Path, command: str
):
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    words = [command, str(tmp_path / "run"), "--device", "cpu", *COMMANDS[command]]

    def says(why: str, **change: object) -> None:
        path.write_text(yaml.safe_dump(config | change))
        refused(*words, why=why)

    says("--data-dir pipe:", dataset="wds/x", data_dir=pipe, dataset_download=True)
    says("allow_commands", dataset="wds/x", data_dir=pipe, allow_commands=True)
    says("--dataset hfds/x", dataset="hfds/x", dataset_download=True)
    says("--dataset HFIDS/x", dataset="HFIDS/x")
    says("--dataset tfds/x", dataset="tfds/x", data_dir=str(tmp_path))
    says("are gone", dataset="torch/cifar10", data_dir=str(tmp_path / "new"), dataset_download=True)
    assert not (tmp_path / "new").exists()


def test_the_network_before_pruning_is_not_fetched():
    with pytest.raises(UserError, match="not on this machine"):
        check_on_disk(ModelSpec("hf-hub:no-such/network", weights="pretrained"), "--model")
    check_on_disk(ModelSpec("local-dir:somewhere", weights="pretrained"), "--model")


def test_the_permission_is_not_saved(finished: Path):
    assert "allow_commands" not in (finished / "config.yaml").read_text()
