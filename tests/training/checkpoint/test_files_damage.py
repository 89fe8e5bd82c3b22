"""Checkpoints that are cut short, altered, lost or forged: found by checksum, and the one before is used, and said."""

import hashlib
import json
import os
import pickle
import random
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers.messages import mentions
from helpers.runs import (
    Told,
    call_at,
    check_equal,
    contents,
    rewrite_index,
    run,
    send_self,
    signalled_at_step,
)
from isometry.errors import UserError
from isometry.training import loop
from isometry.training.checkpoint.files import load_checkpoint, save_checkpoint, tidy_checkpoint
from isometry.training.checkpoint.index import SEAL

SLOW = pytest.mark.slow
FILES = ["checkpoint.json", "model-step2.safetensors", "optimizer-step2.safetensors"]
"""Of the last checkpoint in ``saved``."""


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with a checkpoint and the one before."""
    folder = tmp_path / "last"
    for step in (1, 2):
        parts = {"model": {"w": torch.full((2, 3), float(step))}, "optimizer": {"m": torch.tensor(step)}}
        save_checkpoint(folder, parts, {"step": step}, f"step{step}")
    return folder


def check_goes_back(folder: Path, damaged: str) -> None:
    """What is loaded is the checkpoint before, whole, and the note names what is damaged and what is used."""
    found = load_checkpoint(folder)
    assert found.state == {"step": 1}
    assert torch.equal(found.parts["model"]["w"], torch.ones(2, 3))
    assert found.parts["optimizer"]["m"] == 1
    assert found.note.startswith(f"{folder}: damaged ({damaged}: ")
    assert found.note.endswith("); the checkpoint before it is used (step1)")
    assert len(found.note.splitlines()) == 1


def refusal(folder: Path) -> str:
    """The one line that loading ends with."""
    with pytest.raises(UserError) as caught:
        load_checkpoint(folder)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def flipped(content: bytes, place: int, bit: int) -> bytes:
    """The content with one bit of one byte the other way round."""
    return content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :]


# --- one file of the last checkpoint
# ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_any_flipped_byte_is_found(name: str, saved: Path) -> None:
    """Every byte: tensors, header, JSON, and the checksum itself."""
    whole, draw = (saved / name).read_bytes(), random.Random(0)
    for place in range(len(whole)):
        (saved / name).write_bytes(flipped(whole, place, draw.randrange(8)))
        check_goes_back(saved, name)
    (saved / name).write_bytes(whole)
    assert load_checkpoint(saved).state == {"step": 2}


@pytest.mark.parametrize("name", FILES)
def test_any_cut_is_found_and_anything_added(name: str, saved: Path) -> None:
    whole = (saved / name).read_bytes()
    for length in range(len(whole)):
        (saved / name).write_bytes(whole[:length])
        check_goes_back(saved, name)
    for more in (b"\0", b"\n", whole):
        (saved / name).write_bytes(whole + more)
        check_goes_back(saved, name)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "replace",
    [
        pytest.param(lambda path: None, id="nothing"),
        pytest.param(lambda path: path.mkdir(), id="a folder"),
        pytest.param(os.mkfifo, id="a pipe"),
        pytest.param(lambda path: path.symlink_to(path.parent.parent / "copy"), id="a link to it elsewhere"),
        pytest.param(lambda path: path.write_bytes(b"\x80\x04K\x01."), id="a pickle"),
        pytest.param(
            lambda path: (
                shutil.copy(path.with_name(path.name.replace("step2", "step1")), path)
                if "step2" in path.name
                else path.write_text("{}")
            ),
            id="another file",
        ),
    ],
)
def test_a_file_that_is_gone_or_replaced_is_found(
    replace: Callable[[Path], object], name: str, saved: Path
) -> None:
    shutil.copy(saved / name, saved.parent / "copy")
    (saved / name).unlink()
    replace(saved / name)
    check_goes_back(saved, name)


# --- the one before
# ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["before.json", "model-step1.safetensors", "optimizer-step1.safetensors"])
def test_damage_to_the_checkpoint_before_alone_costs_nothing(name: str, saved: Path) -> None:
    (saved / name).write_bytes((saved / name).read_bytes()[:-1])
    found = load_checkpoint(saved)
    assert (found.state, found.note) == ({"step": 2}, "")


@pytest.mark.parametrize("name", FILES)
def test_when_both_are_damaged_both_files_are_named(name: str, saved: Path) -> None:
    older = name.replace("step2", "step1").replace("checkpoint", "before")
    for damaged in (name, older):
        whole = (saved / damaged).read_bytes()
        (saved / damaged).write_bytes(flipped(whole, len(whole) // 2, 3))
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    said = refusal(saved)
    assert f"({name}: " in said
    assert f"({older}: " in said
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_a_first_checkpoint_has_none_before_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"model": {"w": torch.ones(2)}}, {}, "step1")
    (tmp_path / "model-step1.safetensors").write_bytes(b"")
    said = refusal(tmp_path)
    assert "model-step1.safetensors: " in said


# --- what somebody forges who can compute a checksum
# ------------------------------------------------------------------------------------------------------

LEADING_OUT = [
    "../w.safetensors",
    "a/../../w.safetensors",
    "",
    "..",
    ".",
    "checkpoint.json",
    "a\0.safetensors",
]


@pytest.mark.parametrize("name", [*LEADING_OUT, "/ABSOLUTE", "a\nb.safetensors", "w", 3, None, ["w"], {}])
def test_names_that_are_no_tensor_file_of_the_folder_are_refused(name: Any, saved: Path) -> None:
    """They are neither read nor deleted, though what they lead to is whole and its checksum right."""
    outside = saved.parent / "w.safetensors"
    shutil.copy(saved / FILES[1], outside)
    name = str(outside) if name == "/ABSOLUTE" else name
    digest = json.loads((saved / "checkpoint.json").read_text())["sha256"][FILES[1]]

    def forge(told: dict[str, Any]) -> None:
        told["files"]["model"] = name
        told["sha256"][str(name)] = digest

    rewrite_index(saved / "checkpoint.json", forge)
    check_goes_back(saved, "checkpoint.json")
    with pytest.raises(UserError, match=r"checkpoint\.json: "):
        tidy_checkpoint(saved)
    save_checkpoint(saved, {"model": {"w": torch.ones(1)}}, {}, "step3")
    assert outside.is_file()
    shutil.copy(outside, saved / "model-step3.safetensors")
    rewrite_index(saved / "before.json", forge)
    assert "nor the one before it (before.json: " in refusal(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"files": []},
        {"files": None},
        {"files": "model"},
        {"files": {"model": {"name": "model-step2.safetensors"}}},
        {"sha256": None},
        {"sha256": []},
        {"sha256": {}},
        {"sha256": {name: None for name in FILES}},
        {"tag": None},
        {"tag": ["step2"]},
        {"tag": "two\nlines"},
    ],
)
def test_an_index_of_other_types_is_said_in_one_line(change: dict[str, Any], saved: Path) -> None:
    rewrite_index(saved / "checkpoint.json", lambda told: told.update(change))
    found = load_checkpoint(saved)
    assert found.state == {"step": 1}
    assert len(found.note.splitlines()) == 1


@pytest.mark.parametrize(
    "body", ["[" * 100_000, "[]", "3", '"files"', '{"a":' * 100_000, "{", "9" * 10_000, ""]
)
def test_what_is_no_object_is_said_in_one_line(body: str, saved: Path) -> None:
    seal = SEAL.format(hashlib.sha256(body.encode()).hexdigest())
    (saved / "checkpoint.json").write_text(body)
    check_goes_back(saved, "checkpoint.json")
    (saved / "checkpoint.json").write_text(body + seal)
    check_goes_back(saved, "checkpoint.json")


def test_no_pickle_is_ever_opened(saved: Path) -> None:
    """Under a tensor file's name, with the right checksum."""
    trap = saved.parent / "trap"
    shut = pickle.dumps(Trap(trap))
    digest = hashlib.sha256(shut).hexdigest()
    for index, name in (("checkpoint.json", FILES[1]), ("before.json", "model-step1.safetensors")):
        (saved / name).write_bytes(shut)
        rewrite_index(saved / index, lambda told, name=name: told["sha256"].update({name: digest}))
    assert "SafetensorError" in refusal(saved)
    assert not trap.exists()
    pickle.loads(shut)
    assert trap.exists(), "else this test shows nothing"


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


# --- whole runs
# ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was asked to stop in its second epoch, after a save at step 8."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    prepare = signalled_at_step(9, signal.SIGTERM)
    ended = run(*words, "--out", str(out), said=out.with_name("said"), prepare=prepare)
    assert ended.code == 0, ended.err
    return out


@pytest.fixture(scope="module")
def stopped_after_an_epoch(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was asked to stop after its first epoch; the save before is the one at that epoch's last step."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    prepare = partial(
        call_at,
        "isometry.training.checkpoint.run_folder:Metrics.append",
        1,
        partial(send_self, signal.SIGTERM),
    )
    ended = run(*words, "--out", str(out), said=out.with_name("said"), prepare=prepare)
    assert ended.code == 0, ended.err
    return out


def flip_somewhere(path: Path, seed: int) -> None:
    """One bit of the file, wherever."""
    draw, whole = random.Random(seed), path.read_bytes()
    path.write_bytes(flipped(whole, draw.randrange(len(whole)), draw.randrange(8)))


def cut_in_half(path: Path) -> None:
    """The file's first half stays."""
    os.truncate(path, path.stat().st_size // 2)


def goes_on(words: list[str], out: Path, damaged: str, used: str, wanted: dict[str, Any]) -> None:
    """The run goes on to the end it would have had, and says on the console and in the report what happened."""
    ended = run(*words, "--out", str(out), "--resume", said=out.with_name("said"), report=True)
    assert (ended.code, ended.err) == (0, "")
    said = [line for line in ended.out.splitlines() if "damaged" in line]
    assert len(said) == 1
    assert mentions(said[0], f"{out / 'last'}: … ({damaged}: ")
    assert f"({used})" in said[0]
    assert f"({damaged}: " in (out / "report.html").read_text(encoding="utf-8")
    check_equal(contents(out), wanted)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        pytest.param("model-step9.safetensors", partial(flip_somewhere, seed=1), id="a flipped byte"),
        pytest.param("optimizer-step9.safetensors", cut_in_half, id="a file cut short", marks=SLOW),
        pytest.param("checkpoint.json", partial(flip_somewhere, seed=2), id="a flipped letter", marks=SLOW),
        pytest.param("ema-step9.safetensors", os.unlink, id="a lost file", marks=SLOW),
    ],
)
def test_a_run_whose_last_save_is_damaged_goes_on_from_the_one_before_bitwise(
    name: str,
    damage: Callable[[Path], None],
    words: list[str],
    undisturbed: Told,
    stopped: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    shutil.copytree(stopped, out)
    damage(out / "last" / name)
    goes_on(words, out, name, "step8", undisturbed[0])


@pytest.mark.parametrize("name", ["checkpoint.json", pytest.param("model-step6-2.safetensors", marks=SLOW)])
def test_a_run_that_goes_back_over_an_epochs_end_takes_its_metrics_back_too(
    name: str, words: list[str], undisturbed: Told, stopped_after_an_epoch: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(stopped_after_an_epoch, out)
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 1
    cut_in_half(out / "last" / name)
    goes_on(words, out, name, "step6", undisturbed[0])


@SLOW
def test_a_run_killed_again_while_it_goes_back_goes_on_bitwise(
    words: list[str], undisturbed: Told, stopped: Path, tmp_path: Path
) -> None:
    """At each thing that it does to get back on its feet: what is damaged never counts again."""
    out = tmp_path / "run"
    shutil.copytree(stopped, out)
    cut_in_half(out / "last" / "model-step9.safetensors")
    said = []
    for moment in ("run_state:restore_previous", "run_folder:Metrics.rewind", "run_state:tidy_checkpoint"):
        kill = partial(
            call_at, f"isometry.training.checkpoint.{moment}", 1, partial(send_self, signal.SIGKILL)
        )
        ended = run(*words, "--out", str(out), "--resume", said=tmp_path / "said", prepare=kill)
        assert ended.code == -signal.SIGKILL
        assert load_checkpoint(out / "last").state["loop"]["step"] == 8
        said.append("damaged (model-step9.safetensors" in ended.out)
    assert said == [True, True, False]
    ended = run(*words, "--out", str(out), "--resume", said=tmp_path / "said")
    assert (ended.code, ended.err) == (0, "")
    check_equal(contents(out), undisturbed[0])


def test_a_run_whose_two_saves_are_damaged_says_so_and_touches_nothing(
    words: list[str], stopped: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(stopped, out)
    for name in ("model-step9.safetensors", "model-step8.safetensors"):
        cut_in_half(out / "last" / name)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    ended = run(*words, "--out", str(out), "--resume", said=tmp_path / "said")
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert "(model-step9.safetensors: " in ended.err
    assert "(model-step8.safetensors: " in ended.err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@SLOW
def test_a_damaged_best_epoch_is_said_and_the_best_before_it_is_exported(
    words: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    ended = run(*words, "--out", str(out), said=tmp_path / "a", prepare=_improving_and_killed_at_its_end)
    assert ended.code == -signal.SIGKILL, ended.err
    cut_in_half(out / "best" / "model-epoch2.safetensors")
    ended = run(*words, "--out", str(out), "--resume", said=tmp_path / "b", report=True)
    assert (ended.code, ended.err) == (0, "")
    assert mentions(ended.out, f"{out / 'best'}: … (model-epoch2.safetensors: ")
    assert "(epoch1)" in ended.out
    assert "(model-epoch2.safetensors: " in (out / "report.html").read_text(encoding="utf-8")
    student = load_file(out / "student" / "model.safetensors")
    wanted = load_file(out / "best" / "model-epoch1.safetensors")
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in student.items())


def _improving_and_killed_at_its_end() -> None:
    loop.score_of = lambda row, has_average: (row["epoch"], has_average)
    call_at("isometry.training.run:finish", 1, partial(send_self, signal.SIGKILL))
