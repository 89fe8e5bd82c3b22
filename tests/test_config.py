"""What a run is: names that mean the same, files that read back, and what may change when a run goes on."""

from dataclasses import fields, replace

import pytest

from isometry.config import (
    ALIASES,
    FREE_ON_RESUME,
    RunConfig,
    canonical,
    changed_options,
    config_to_yaml,
    read_saved,
    read_yaml,
)
from isometry.errors import UserError


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("batch-size", "batch_size"),
        ("b", "batch_size"),
        ("student", "model"),
        ("student-kwargs", "model_kwargs"),
        ("taps.student", "taps.student"),
        ("losses.my-loss", "losses.my-loss"),
        ("student-kwargs.depth", "model_kwargs.depth"),
    ],
)
def test_names_that_mean_the_same(given, meant):
    assert canonical(given) == meant
    assert canonical(meant) == meant


def test_every_alias_and_every_free_option_is_an_option():
    names = {field.name for field in fields(RunConfig)}
    assert set(ALIASES.values()) <= names
    assert names >= FREE_ON_RESUME
    assert not set(ALIASES) & names


def test_changes_that_matter_are_told_apart():
    old = RunConfig(model="resnet18", lr=0.1)
    assert changed_options(old, replace(old, workers=0, out="elsewhere", device="cpu", resume=True)) == []
    assert changed_options(old, replace(old, lr=0.2, seed=1)) == [("lr", 0.1, 0.2), ("seed", 42, 1)]


def test_a_saved_run_of_another_version_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(config_to_yaml(RunConfig()).replace("warmup_epochs", "warm_up_epochs"))
    with pytest.raises(UserError, match="another version of isometry"):
        read_saved(path)


def test_yaml_is_never_code(tmp_path):
    path, made = tmp_path / "recipe.yaml", tmp_path / "made"
    path.write_text(f"epochs: !!python/object/apply:os.mkdir ['{made}']\n")
    with pytest.raises(UserError, match="is not YAML"):
        read_yaml(path)
    assert not made.exists()


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(UserError, match="can't be read"):
        read_yaml(tmp_path)
