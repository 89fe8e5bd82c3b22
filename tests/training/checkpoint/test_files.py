"""Checkpoints that are written whole, on disks that fill up and in processes that are killed."""

import hashlib
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.messages import mentions
from helpers.runs import FILE_EVENTS
from isometry.errors import UserError
from isometry.files import write_atomically
from isometry.training.checkpoint.files import (
    Checkpoint,
    has_checkpoint,
    load_checkpoint,
    remove_checkpoint,
    restore_previous,
    save_checkpoint,
    snapshot,
    tidy_checkpoint,
)

WEIGHTS = {
    "w": torch.arange(6.0).view(2, 3),
    "half": torch.ones(2, dtype=torch.bfloat16),
    "n": torch.tensor(7),
}


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow past 50 kB, as on a disk that is nearly full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A disk of 100 kB, where this user may mount one; else a folder in which no file may grow past 50 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    if not mounted:
        request.getfixturevalue("small_files")
    yield disk
    if mounted:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def files(folder: Path) -> list[str]:
    """Names in a folder."""
    return sorted(path.name for path in folder.iterdir())


def save_steps(folder: Path, *steps: int) -> None:
    """A save at each step, with tensors and a state of its own."""
    for step in steps:
        tensors = {name: tensor + step for name, tensor in WEIGHTS.items()}
        save_checkpoint(folder, {"model": tensors, "terms": {}}, {"step": step}, f"step{step}")


def check_is_step(saved: Checkpoint, step: int) -> None:
    """All of it is of that step, and of the types that were saved."""
    assert saved.state == {"step": step}
    assert saved.tag == f"step{step}"
    assert list(saved.parts) == ["model"]
    for name, tensor in WEIGHTS.items():
        assert saved.parts["model"][name].dtype == tensor.dtype
        assert torch.equal(saved.parts["model"][name], tensor + step)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    save_steps(tmp_path / "last", 3)
    saved = load_checkpoint(tmp_path / "last")
    check_is_step(saved, 3)
    assert saved.note == ""


def test_numbers_come_back_as_they_were(tmp_path: Path) -> None:
    state = {"sum": 0.1 + 0.2, "best": None, "name": 'Möwe "x"', "checksum": "its own"}
    save_checkpoint(tmp_path, {"model": WEIGHTS}, state, "x")
    assert load_checkpoint(tmp_path).state == state


def test_the_checkpoint_before_is_kept_and_no_other_nor_what_a_kill_left(tmp_path: Path) -> None:
    save_steps(tmp_path, 1)
    assert files(tmp_path) == ["checkpoint.json", "model-step1.safetensors"]
    (tmp_path / "model-step2.safetensors.new").write_bytes(b"half")
    save_steps(tmp_path, 2, 3)
    both = ["model-step2.safetensors", "model-step3.safetensors"]
    assert files(tmp_path) == ["before.json", "checkpoint.json", *both]


def test_saves_of_one_step_share_no_file(tmp_path: Path) -> None:
    for number in range(5):
        save_checkpoint(tmp_path, {"model": WEIGHTS}, {"number": number}, "step1")
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    assert load_checkpoint(tmp_path).state == {"number": 4}
    (tmp_path / "checkpoint.json").unlink()
    assert load_checkpoint(tmp_path).state == {"number": 3}


def test_tensors_that_share_memory_are_saved_apart(tmp_path: Path) -> None:
    tied = torch.ones(3)
    save_checkpoint(tmp_path, snapshot({"model": {"a": tied, "b": tied, "c": tied[::2]}}), {}, "x")
    assert {name: t.tolist() for name, t in load_checkpoint(tmp_path).parts["model"].items()} == {
        "a": [1, 1, 1],
        "b": [1, 1, 1],
        "c": [1, 1],
    }


# --- kills
# ------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """No ``except`` of the code under test sees it, as none sees a SIGKILL."""


class Countdown:
    """Ends whatever is done to files in ``folder`` before its n-th time; counts the times."""

    def __init__(self) -> None:
        self.folder, self.times, self.last = "", 0, 0
        # An audit hook can't be taken off again: this one rests while there is no folder.
        sys.addaudithook(self._hook)

    def _hook(self, event: str, details: tuple[Any, ...]) -> None:
        if not self.folder or event not in FILE_EVENTS or not str(details[0]).startswith(self.folder):
            return
        self.times += 1
        if self.times == self.last:
            # Nothing more happens to files after a kill, whatever is cleaned up on the way out.
            self.last += 1
            raise Killed

    @contextmanager
    def killing(self, folder: Path, at: int) -> Iterator[None]:
        """Kills what is inside at its ``at``-th touch of a file; lets it end where there are fewer."""
        self.folder, self.times, self.last = str(folder), 0, at
        try:
            with suppress(Killed):
                yield
        finally:
            self.folder = ""


COUNTDOWN = Countdown()


def test_a_kill_at_any_moment_of_a_save_leaves_two_checkpoints_and_one_is_enough(tmp_path: Path) -> None:
    save_steps(tmp_path / "begun", 1, 2)
    found = []
    for moment in count(1):
        folder = tmp_path / str(moment)
        shutil.copytree(tmp_path / "begun", folder)
        with COUNTDOWN.killing(folder, moment):
            save_steps(folder, 3)
        saved = load_checkpoint(folder)
        assert saved.note == ""
        check_is_step(saved, saved.state["step"])
        found.append(saved.state["step"])
        # The kill is no reason to be without the one before.
        damaged = tmp_path / f"{moment} damaged"
        shutil.copytree(folder, damaged)
        (damaged / json.loads((damaged / "checkpoint.json").read_text())["files"]["model"]).unlink()
        check_is_step(
            load_checkpoint(damaged), 1 if found[-1] == 2 else load_checkpoint(damaged).state["step"]
        )
        save_steps(folder, 4)
        assert len(files(folder)) == 4
        check_is_step(load_checkpoint(folder), 4)
        if COUNTDOWN.times < moment:
            break
    assert found == sorted(found)
    assert found.count(2) >= 8
    assert found.count(3) >= 4


# --- disks that fill up
# ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["small_files", "small_disk"])
@pytest.mark.parametrize("large", ["tensors", "state"])
def test_a_full_disk_leaves_both_checkpoints_and_nothing_else(
    kind: str, large: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = (request.getfixturevalue(kind) or tmp_path) / "last"
    save_steps(folder, 1, 2)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    tensors = torch.zeros(50_000 if large == "tensors" else 1)
    state = {"text": "x" * (200_000 if large == "state" else 1)}
    with pytest.raises(UserError, match=r"sav.* --resume"):
        save_checkpoint(folder, {"model": {"w": tensors}}, state, "step3")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    check_is_step(load_checkpoint(folder), 2)


def test_the_error_of_a_full_disk_says_what_is_needed_and_what_is_free(small_disk: Path) -> None:
    free = shutil.disk_usage(small_disk).free
    with pytest.raises(UserError) as caught:
        save_checkpoint(small_disk / "last", {"model": {"w": torch.zeros(1_250_000)}}, {}, "step1")
    assert mentions(str(caught.value), f"5.0 MB … {free / 1e6:,.1f} MB")
    assert len(str(caught.value).splitlines()) == 1


def test_a_first_save_on_a_full_disk_promises_no_checkpoint(tmp_path: Path, small_files: None) -> None:
    with pytest.raises(UserError, match="sav") as caught:
        save_checkpoint(tmp_path, {"model": {"w": torch.zeros(50_000)}}, {}, "step1")
    assert "--resume" not in str(caught.value)
    assert files(tmp_path) == []
    assert not has_checkpoint(tmp_path)


def test_a_text_is_written_whole_or_not_at_all(tmp_path: Path, small_files: None) -> None:
    path = tmp_path / "config.yaml"
    write_atomically(path, "old")
    with pytest.raises(UserError, match=r"config\.yaml: .*file too large"):
        write_atomically(path, "new" * 50_000)
    assert path.read_text() == "old"


# --- what else is in the folder
# ------------------------------------------------------------------------------------------------------


def test_tidying_keeps_what_the_two_checkpoints_name(tmp_path: Path) -> None:
    save_steps(tmp_path, 1, 2)
    kept = files(tmp_path)
    (tmp_path / "model-step0.safetensors").write_bytes(b"stale")
    tidy_checkpoint(tmp_path)
    assert files(tmp_path) == kept


def test_tidying_deletes_nothing_where_it_is_not_known_what_belongs_to_the_checkpoint(tmp_path: Path) -> None:
    save_steps(tmp_path, 1, 2)
    kept = files(tmp_path)
    (tmp_path / "checkpoint.json").write_text("{")
    with pytest.raises(UserError, match=r"checkpoint\.json: "):
        tidy_checkpoint(tmp_path)
    assert files(tmp_path) == kept


def test_a_save_follows_no_link_and_minds_no_folder(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "last"
    outside.write_text("theirs")
    (folder / "a folder").mkdir(parents=True)
    for name in ("model-step1.safetensors", "model-step1.safetensors.new", "checkpoint.json.new", "mine"):
        (folder / name).symlink_to(outside)
    save_steps(folder, 1)
    assert outside.read_text() == "theirs"
    assert files(folder) == ["a folder", "checkpoint.json", "mine", "model-step1.safetensors"]
    check_is_step(load_checkpoint(folder), 1)


def test_a_folder_that_is_a_link_is_refused_and_nothing_in_its_target_is_touched(tmp_path: Path) -> None:
    theirs, folder = tmp_path / "theirs", tmp_path / "last"
    theirs.mkdir()
    (theirs / "model-step1.safetensors").write_text("thesis")
    folder.symlink_to(theirs)
    for touch in (lambda: save_steps(folder, 1), lambda: tidy_checkpoint(folder)):
        with pytest.raises(UserError, match="last: is a link"):
            touch()
    remove_checkpoint(folder)
    assert {path.name: path.read_text() for path in theirs.iterdir()} == {"model-step1.safetensors": "thesis"}


THEIRS = ("notes.txt", "model.safetensors", "model-step1-backup.safetensors", "before.json.bak")


def test_files_of_the_user_in_the_folder_survive_saves_and_removal(tmp_path: Path) -> None:
    folder = tmp_path / "last"
    folder.mkdir()
    for name in THEIRS:
        (folder / name).write_text(name)
    save_steps(folder, 1, 2, 3)
    tidy_checkpoint(folder)
    assert len(files(folder)) == 4 + len(THEIRS)
    remove_checkpoint(folder)
    assert {name: (folder / name).read_text() for name in files(folder)} == {name: name for name in THEIRS}


def test_going_back_puts_the_checkpoint_before_in_the_place_of_the_damaged(tmp_path: Path) -> None:
    save_steps(tmp_path, 1, 2)
    (tmp_path / "model-step2.safetensors").write_bytes(b"")
    restore_previous(tmp_path)
    tidy_checkpoint(tmp_path)
    assert "model-step2.safetensors" not in files(tmp_path)
    save_steps(tmp_path, 3)
    (tmp_path / "model-step3.safetensors").unlink()
    check_is_step(load_checkpoint(tmp_path), 1)


def test_the_index_can_be_read_by_a_person(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"model": WEIGHTS}, {"step": 1}, "step1")
    text = (tmp_path / "checkpoint.json").read_text()
    told = json.loads(text)
    digest = hashlib.sha256((tmp_path / "model-step1.safetensors").read_bytes()).hexdigest()
    assert told["files"] == {"model": "model-step1.safetensors"}
    assert told["sha256"] == {"model-step1.safetensors": digest}
    assert told["step"] == 1
    body = text.partition(',\n "checksum"')[0]
    assert told["checksum"] == hashlib.sha256(body.encode()).hexdigest()
    assert len(text.splitlines()) > 3
