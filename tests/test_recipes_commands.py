"""A recipe given to a command that can't use it names the command that can."""

from pathlib import Path

import pytest

from isometry.cli.main import main

COMPARISON = "base: base.yaml\nvariants: {a: {epochs: 1}}\n"
RUNS = {
    "train": "model: resnet18\nlosses: {ce: 1}\n",
    "distill": "model: resnet18\nteacher: resnet50\n",
    "grow": "model: resnet18\ngrow: {depth: 6-12}\n",
    "prune": "model: resnet18\nkeep-rate: 0.6\n",
}


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("command", ["check", "distill", "train", "grow", "prune"])
def test_a_comparison_given_to_a_run_names_compare(command: str, tmp_path: Path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(COMPARISON)
    line = refusal(capsys, command, "--config", str(recipe), "--epochs", "1")
    assert f"isometry compare --config {recipe}" in line


@pytest.mark.parametrize("command", RUNS)
def test_a_run_given_to_compare_names_its_command(command: str, tmp_path: Path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RUNS[command])
    assert f"isometry {command} --config {recipe}" in refusal(capsys, "compare", "--config", str(recipe))


@pytest.mark.parametrize("text", ["losses: [soft]\n", "grow: 5\n", "log_tensorboard: true\nlog: 5\n"])
def test_wrong_values_are_no_obstacle(text: str, tmp_path: Path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: resnet18\n{text}")
    assert "is a recipe for isometry" in refusal(capsys, "compare", "--config", str(recipe))
    assert str(recipe) in refusal(capsys, "check", "--config", str(recipe))


def test_losses_of_a_teacher_are_for_distill(tmp_path: Path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: resnet18\nlosses: {soft: 1, ce: 1}\n")
    assert "isometry distill --config" in refusal(capsys, "compare", "--config", str(recipe))


@pytest.mark.parametrize("command", ["check", "compare"])
@pytest.mark.parametrize("text", ["epochz: 1\n", "model: resnet18\nvariantz: {}\n"])
def test_an_unknown_key_is_still_named(command: str, text: str, tmp_path: Path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    line = refusal(capsys, command, "--config", str(recipe))
    assert "no such key" in line
    assert "is a recipe for" not in line
