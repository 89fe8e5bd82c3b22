"""The run that tests of checkpoints disturb, unless they have one of their own."""

from pathlib import Path

import pytest

from helpers.runs import LIVELY, TINY_STUDENT, Told, left_alone


@pytest.fixture(scope="module")
def words(tiny_teacher: Path) -> list[str]:
    """Twelve steps, a save after every second one."""
    teacher = ["--teacher", f"local-dir:{tiny_teacher}"]
    return ["distill", *TINY_STUDENT, *teacher, *LIVELY, "--recovery-interval", "2"]


@pytest.fixture(scope="module")
def undisturbed(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Told:
    """The run when nothing happens."""
    return left_alone(words, tmp_path_factory.mktemp("undisturbed"))
