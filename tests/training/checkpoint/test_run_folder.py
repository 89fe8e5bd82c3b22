"""One run a folder: claimed, refused, and left as it was found."""

import re
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from helpers.runs import DIGITS, TINY_STUDENT, call_at, config_of, run, signalled_at_step, start
from isometry.config import RunConfig
from isometry.errors import UserError
from isometry.models.network_folder import replace_folder
from isometry.report.page import write_page
from isometry.training.checkpoint.run_folder import NAMES, RunFolder

ALONE = ["train", *TINY_STUDENT, "--epochs", "1"]


def config(out: Path, *words: str) -> RunConfig:
    """The smallest RunConfig into a folder."""
    return config_of(*DIGITS, "--model", "vit_tiny_patch16_224", "--out", str(out), *words)


def begun(out: Path) -> RunFolder:
    """A folder with a run in it that has ended."""
    with RunFolder(config(out)) as folder:
        folder.begin(config(out))
    return folder


def everything(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file with its bytes and its time of change."""
    return {
        str(path): (path.read_bytes() if path.is_file() else b"", path.stat().st_mtime_ns)
        for path in sorted([folder, *folder.rglob("*")])
    }


def test_a_second_run_is_refused_after_the_first_has_ended(tmp_path: Path) -> None:
    begun(tmp_path / "run")
    before = everything(tmp_path)
    with (
        pytest.raises(UserError, match="--resume"),
        RunFolder(config(tmp_path / "run")),
    ):
        pass
    assert everything(tmp_path) == before


def test_a_second_run_is_refused_while_the_first_goes_on(tmp_path: Path) -> None:
    out, stopped = tmp_path / "run", tmp_path / "stopped"
    pause = partial(call_at, "isometry.training.loop:Trainer.train_step", 2, partial(_wait_for, stopped))
    first = start(*ALONE, "--out", str(out), said=tmp_path / "first", prepare=pause)
    while not (out / "data.json").is_file():
        time.sleep(0.01)
    before = everything(out)
    for words in ([], ["--resume"]):
        second = run(*ALONE, "--out", str(out), *words, said=tmp_path / "second")
        assert second.code == 2
        assert second.err == f"isometry: --out {out}: another run is writing here; give another --out\n"
    assert everything(out) == before
    stopped.touch()
    assert first.wait().code == 0
    before = everything(out)
    third = run(*ALONE, "--out", str(out), said=tmp_path / "third")
    assert third.code == 2
    assert len(third.err.splitlines()) == 1
    assert everything(out) == before


def _wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


@pytest.mark.parametrize("words", [[], ["--resume"]])
def test_a_folder_with_something_else_is_refused_and_not_touched(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("all of it")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=r"thesis\.tex|no run"), RunFolder(config(tmp_path, *words)):
        pass
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_nothing_is_resumed_where_nothing_is(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="no run"),
        RunFolder(config(tmp_path / "typo", "--resume")),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_run_killed_before_it_began_is_begun(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / "config.yaml.new").write_text("half a con")
    for words in ([], ["--resume"]):
        with RunFolder(config(tmp_path, *words)) as folder:
            assert not folder.config.is_file()
    with RunFolder(config(tmp_path, "--resume")) as folder:
        folder.begin(config(tmp_path))
    assert folder.config.is_file()


@pytest.mark.parametrize("name", NAMES)
def test_a_link_where_a_file_of_the_run_should_be_is_refused_by_name(name: str, tmp_path: Path) -> None:
    out, theirs = tmp_path / "run", tmp_path / "theirs"
    begun(out)
    theirs.mkdir()
    (theirs / "thesis").write_text("mine")
    if (out / name).exists():
        (out / name).unlink()
    (out / name).symlink_to(theirs)
    with (
        pytest.raises(UserError, match=f"run/{re.escape(name)}: is a link"),
        RunFolder(config(out, "--resume")),
    ):
        pass
    assert [path.read_text() for path in theirs.iterdir()] == ["mine"]
    assert (out / name).is_symlink()


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    begun(tmp_path / "run")
    assert (tmp_path / "disk" / "config.yaml").is_file()
    with RunFolder(config(tmp_path / "run", "--resume")) as folder:
        folder.begin(config(tmp_path / "run"))


def test_a_run_that_fails_deletes_no_file_that_the_user_added(tmp_path: Path) -> None:
    def fail() -> None:
        with RunFolder(config(tmp_path / "run")) as folder:
            folder.begin(config(tmp_path / "run"))
            folder.best.mkdir()
            (folder.best / "notes.txt").write_text("mine")
            raise UserError("fails")

    with pytest.raises(UserError, match="fails"):
        fail()
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "best", "notes.txt"]


def test_a_students_file_that_was_changed_is_said_before_training(tmp_path: Path) -> None:
    begun(tmp_path)
    with replace_folder(tmp_path / "student") as new:
        (new / "config.json").write_text("{}")
    (tmp_path / "student" / "config.json").write_text("by hand")
    with (
        pytest.raises(UserError, match=r"student/config\.json: was changed"),
        RunFolder(config(tmp_path, "--resume")),
    ):
        pass
    assert (tmp_path / "student" / "config.json").read_text() == "by hand"


def test_a_page_that_was_edited_is_told_before_the_run_goes_on(tmp_path: Path) -> None:
    with RunFolder(config(tmp_path)) as folder:
        folder.begin(config(tmp_path))
    write_page(tmp_path / "report.html", "a page")
    with RunFolder(config(tmp_path, "--resume")):
        pass
    (tmp_path / "report.html").write_text("a page and my notes")
    with (
        pytest.raises(UserError, match=r"report\.html: was changed since"),
        RunFolder(config(tmp_path, "--resume")),
    ):
        pass
    assert (tmp_path / "report.html").read_text() == "a page and my notes"


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="written"), RunFolder(config(tmp_path / "file" / "run")):
        pass


@pytest.mark.parametrize("there", [False, True])
def test_a_run_that_fails_before_its_first_save_leaves_the_folder_as_it_was(
    there: bool, tmp_path: Path
) -> None:
    """So that the mended command can be given as it is."""
    out = tmp_path / "run"
    if there:
        out.mkdir()
    ended = run(*ALONE, "--opt", "adamm", "--out", str(out), said=tmp_path / "said")
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert out.exists() == there
    assert not there or list(out.iterdir()) == []


def test_a_run_that_fails_after_a_save_keeps_it(tmp_path: Path) -> None:
    saved = partial(call_at, "isometry.training.loop:Trainer.train_epoch", 2, _complain)
    ended = run(
        *ALONE, "--epochs", "2", "--out", str(tmp_path / "run"), said=tmp_path / "said", prepare=saved
    )
    assert (ended.code, ended.err) == (2, "isometry: later\n")
    assert (tmp_path / "run" / "config.yaml").is_file()
    assert (tmp_path / "run" / "last" / "checkpoint.json").is_file()


def _complain() -> None:
    raise UserError("later")


def test_changed_options_are_all_named(tmp_path: Path) -> None:
    begun(tmp_path)
    changed = config(tmp_path, "--resume", "--mixup", "0.5", "--workers", "7", "--opt", "lamb")
    with (
        pytest.raises(UserError, match=r"--opt .*'adamw' .*'lamb' .*--mixup .*0.0 .*0.5"),
        RunFolder(changed) as folder,
    ):
        folder.begin(changed)
    assert RunFolder(config(tmp_path)).config.is_file()


def test_a_lock_outlives_no_process(tmp_path: Path) -> None:
    out = tmp_path / "run"
    killed = signalled_at_step(3, signal.SIGKILL)
    assert run(*ALONE, "--out", str(out), said=tmp_path / "a", prepare=killed).code == -signal.SIGKILL
    with RunFolder(config(out, "--resume")):
        pass
