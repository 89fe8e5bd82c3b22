"""Configurations as files: they read back, also those of earlier versions, and changes are named."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from isometry.config import GrowConfig, RunConfig
from isometry.errors import UserError
from isometry.recipes import (
    changed_options,
    config_to_yaml,
    read_config,
    read_recipe,
    read_saved,
    with_former_defaults,
)


def saved(path: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """The config of a run, changed."""
    values = asdict(RunConfig(model="resnet18"))
    edit(values)
    path.write_text(yaml.safe_dump(values))
    return path


def test_changes_that_matter_are_told_apart():
    old = RunConfig(model="resnet18", lr=0.1)
    assert changed_options(old, replace(old, workers=0, out="elsewhere", device="cpu", resume=True)) == []
    assert changed_options(old, replace(old, lr=0.2, seed=1)) == [("lr", 0.1, 0.2), ("seed", 42, 1)]


def test_a_changed_option_of_a_group_is_named_in_full():
    old = RunConfig(grow=GrowConfig(depth="6,12", at="0,5"))
    new = replace(old, grow=GrowConfig(depth="4,12", at="0,5"))
    assert changed_options(old, new) == [("grow.depth", "6,12", "4,12")]


def test_a_saved_run_reads_back(tmp_path):
    path = tmp_path / "config.yaml"
    run = RunConfig(
        model="resnet18",
        model_kwargs={"a": "12", "b": [1, 2.5, None], "c": {"d": "1e-3"}},
        losses={"soft": 1.0, "random": {"weight": 0.2, "k": 192}},
        lr=1e-6,
        grow=GrowConfig(depth="1-1-1-1,2-2-2-2", at=[0, 5]),
    )
    path.write_text(config_to_yaml(run))
    assert read_saved(path) == (run, [])


@pytest.mark.parametrize("option", ["warmup_epochs", "grow.ema", "prune"])
def test_an_option_added_since_has_its_default_and_is_named(tmp_path, option):
    *group, key = option.split(".")
    path = saved(tmp_path / "config.yaml", lambda values: (values[group[0]] if group else values).pop(key))
    config, (note,) = read_saved(path)
    assert config == RunConfig(model="resnet18")
    assert option in note
    assert str(path) in note
    assert "epochs (" not in note.replace("warmup_epochs (", "")


def test_photographs_of_an_older_run_stay_as_it_saw_them(tmp_path):
    path = saved(tmp_path / "config.yaml", lambda values: values.pop("exif"))
    config, (note,) = read_saved(path)
    assert config == RunConfig(model="resnet18", exif="ignore")
    assert "exif ('ignore')" in note
    assert with_former_defaults(RunConfig(model="resnet18"), config) == config
    assert changed_options(config, RunConfig(model="resnet18")) == []


def test_options_that_may_change_on_resume_need_no_note(tmp_path):
    assert read_saved(saved(tmp_path / "config.yaml", lambda values: values.pop("log")))[1] == []


@pytest.mark.parametrize(
    ("switches", "log"),
    [
        ({"log_tensorboard": False, "log_wandb": False}, []),
        ({"log_tensorboard": True, "log_wandb": False}, ["tensorboard"]),
        ({"log_tensorboard": True, "log_wandb": True, "log": []}, ["tensorboard", "wandb"]),
        ({"log_tensorboard": True, "log": ["wandb"]}, ["wandb", "tensorboard"]),
    ],
)
@pytest.mark.parametrize(
    "read", [lambda path: read_saved(path)[0], lambda path: read_config(RunConfig, path)]
)
def test_former_switches_are_entries_of_their_list(tmp_path, read, switches, log):
    path = saved(tmp_path / "config.yaml", lambda values: (values.pop("log"), values.update(switches)))
    assert read(path) == RunConfig(model="resnet18", log=log)


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda values: values.update(no_longer_known=1), "no_longer_known"),
        (lambda values: values["grow"].update(no_longer_known=1), "grow.no_longer_known"),
        (lambda values: values.update(epochs="many"), "epochs"),
        (lambda values: values.update(grow=5), "grow"),
        (lambda values: values.update(grow=[]), "grow"),
        (lambda values: values.update({3: 4}), "3"),
    ],
)
def test_what_no_version_can_use_is_refused_by_name(tmp_path, edit, named):
    path = saved(tmp_path / "config.yaml", edit)
    with pytest.raises(UserError) as caught:
        read_saved(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert named in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_yaml_is_never_code(tmp_path):
    path, made = tmp_path / "recipe.yaml", tmp_path / "made"
    path.write_text(f"epochs: !!python/object/apply:os.mkdir ['{made}']\n")
    with pytest.raises(UserError, match="is not YAML"):
        read_recipe(path)
    assert not made.exists()


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(UserError, match="can't be read"):
        read_recipe(tmp_path)
