"""Fixtures that many tests share."""

from pathlib import Path

import pytest

from helpers.runs import TINY_TEACHER, UNDRAWN, UNMEASURED, run
from isometry.training import results


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved teacher of the digits, hardly trained: give it as ``local-dir:PATH``."""
    folder = tmp_path_factory.mktemp("teacher")
    ended = run("train", *TINY_TEACHER, "--epochs", "1", "--out", str(folder / "run"), said=folder / "said")
    assert ended.code == 0, ended.err
    return folder / "run" / "student"


@pytest.fixture
def quick_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process end without measuring speeds and without drawing the report."""
    for name, value in (UNMEASURED | UNDRAWN).items():
        monkeypatch.setattr(results, name, value)
