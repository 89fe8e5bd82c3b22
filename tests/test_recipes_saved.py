"""Configurations as files: they read back, and what has changed since is named."""

from dataclasses import replace

import pytest

from isometry.config import GrowConfig, RunConfig
from isometry.errors import UserError
from isometry.recipes import changed_options, config_to_yaml, read_recipe, read_saved


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
    run = RunConfig(model="resnet18", grow=GrowConfig(depth="1-1-1-1,2-2-2-2"))
    path.write_text(config_to_yaml(run))
    assert read_saved(path) == (run, [])


def test_a_saved_run_of_another_version_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(config_to_yaml(RunConfig()).replace("warmup_epochs", "warm_up_epochs"))
    with pytest.raises(UserError, match="version"):
        read_saved(path)


def test_yaml_is_never_code(tmp_path):
    path, made = tmp_path / "recipe.yaml", tmp_path / "made"
    path.write_text(f"epochs: !!python/object/apply:os.mkdir ['{made}']\n")
    with pytest.raises(UserError, match="YAML"):
        read_recipe(path)
    assert not made.exists()


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(UserError, match="read"):
        read_recipe(tmp_path)
