"""Names of other libraries' teachers, and where they may stand."""

from pathlib import Path

import pytest

from isometry.cli.arguments import parse
from isometry.config import RunConfig
from isometry.errors import UserError
from isometry.models.libraries.base import build_external, library_of


@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("transformers:facebook/dinov2-small", "transformers"),
        ("torchhub:owner/repo:name", "torchhub"),
        ("deit_tiny_patch16_224", ""),
        ("local-dir:runs/a/student", ""),
        ("hf-hub:timm/x", ""),
        ("", ""),
    ],
)
def test_the_library_is_what_stands_before_the_colon(name: str, library: str) -> None:
    assert library_of(name) == library


def test_an_unknown_library_is_refused_with_near_ones() -> None:
    with pytest.raises(
        UserError, match=r"--teacher transformer:x: no such library; did you mean transformers"
    ):
        build_external("transformer:x", {}, "pretrained", trusted=True)


def test_no_recipe_gives_the_permission_to_run_code(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("teacher: python:evil.function\ntrust_remote_code: true\n")
    with pytest.raises(UserError, match="trust_remote_code: is for the command line alone"):
        parse(RunConfig, ["--config", str(recipe)])


def test_the_permission_is_for_a_teacher_of_the_command_line(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("teacher: python:evil.function\n")
    with pytest.raises(UserError, match="--trust-remote-code: is for a --teacher on the command line"):
        parse(RunConfig, ["--config", str(recipe), "--trust-remote-code"])
    config = parse(RunConfig, ["--teacher", "python:mine.function", "--trust-remote-code"])
    assert config.trust_remote_code
