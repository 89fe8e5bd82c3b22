"""Runs whose saves are written behind their steps, as on a GPU: here on a CPU, which writes them at once by itself."""

import errno
import os
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.messages import mentions
from helpers.runs import (
    FILE_EVENTS,
    SECONDS_TO_WAIT,
    Told,
    call_at,
    check_equal,
    contents,
    free_port,
    run,
    run_ranks,
    send_self,
    signalled_at_step,
)
from isometry.losses.soft import SoftLabel
from isometry.training import loop
from isometry.training.checkpoint import files, run_state
from isometry.training.checkpoint.files import has_checkpoint, load_checkpoint
from isometry.training.checkpoint.writer import Writer

SLOW = pytest.mark.slow
STEP = "isometry.training.loop:Trainer.train_step"


def behind() -> None:
    """Writes saves as on a GPU."""
    loop.Writer = lambda device: Writer(torch.device("cuda"))


def slowly(then: partial[None] | None = None) -> None:
    """The same, on a disk that takes several steps for a save."""
    behind()
    save = run_state.save_checkpoint

    def slow(*arguments: Any) -> None:
        assert threading.current_thread().name == "save"
        time.sleep(0.2)
        save(*arguments)

    run_state.save_checkpoint = slow
    if then is not None:
        then()


def step_of(out: Path) -> int:
    """The step of the last save; 0 without one."""
    step: int = load_checkpoint(out / "last").state["loop"]["step"] if has_checkpoint(out / "last") else 0
    return step


def check_goes_on(words: list[str], out: Path, wanted: Told) -> None:
    """With saves still slow, to the same bits."""
    ended = run(*words, "--out", str(out), "--resume", said=out.with_name("again"), prepare=slowly)
    assert (ended.code, ended.err) == (0, "")
    check_equal(contents(out), wanted[0])


def test_the_files_are_those_that_are_written_at_once(
    words: list[str], undisturbed: Told, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    ended = run(*words, "--out", str(out), said=tmp_path / "said", prepare=slowly)
    assert (ended.code, ended.err) == (0, "")
    check_equal(contents(out), undisturbed[0])


def killed_behind(tag: str, step: int, operations: int) -> None:
    """SIGKILL in the write of the save ``tag``, after so many operations on files, once step ``step`` has begun."""
    behind()
    save, moved_on, left = run_state.save_checkpoint, threading.Event(), [0]
    call_at(STEP, step, moved_on.set)

    def hook(event: str, details: tuple[Any, ...]) -> None:
        if left[0] and event in FILE_EVENTS and threading.current_thread().name == "save":
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    def late(folder: Path, parts: Any, state: Any, of: str) -> None:
        if of == tag:
            assert moved_on.wait(SECONDS_TO_WAIT)
            left[0] = operations
        save(folder, parts, state, of)

    run_state.save_checkpoint = late
    sys.addaudithook(hook)


@pytest.mark.parametrize(
    ("tag", "step", "operations", "saved"),
    [
        pytest.param("step2", 3, 1, 0, id="in the first save"),
        pytest.param("step4", 5, 9, 2, id="in a save inside an epoch"),
        pytest.param("epoch1", 7, 5, 6, id="in best"),
        pytest.param("epoch1", 7, 40, 6, id="in last, after best", marks=SLOW),
        pytest.param("step8", 9, 1, 6, id="in the second epoch", marks=SLOW),
    ],
)
def test_a_run_killed_in_a_write_behind_its_steps_goes_on_bitwise(
    tag: str, step: int, operations: int, saved: int, words: list[str], undisturbed: Told, tmp_path: Path
) -> None:
    out, prepare = tmp_path / "run", partial(killed_behind, tag, step, operations)
    ended = run(*words, "--out", str(out), said=tmp_path / "said", prepare=prepare)
    assert ended.code == -signal.SIGKILL, ended.err
    assert step_of(out) == saved
    check_goes_on(words, out, undisturbed)


@pytest.mark.parametrize("step", [3, 4, pytest.param(7, marks=SLOW), pytest.param(9, marks=SLOW)])
def test_a_run_killed_before_a_step_goes_on_bitwise(
    step: int, words: list[str], undisturbed: Told, tmp_path: Path
) -> None:
    out, prepare = tmp_path / "run", partial(slowly, signalled_at_step(step, signal.SIGKILL))
    ended = run(*words, "--out", str(out), said=tmp_path / "said", prepare=prepare)
    assert ended.code == -signal.SIGKILL, ended.err
    check_goes_on(words, out, undisturbed)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), pytest.param(signal.SIGINT, 130, marks=SLOW)]
)
def test_a_run_that_says_it_saved_has(
    number: signal.Signals, code: int, words: list[str], undisturbed: Told, tmp_path: Path
) -> None:
    out, prepare = tmp_path / "run", partial(slowly, signalled_at_step(3, number))
    ended = run(*words, "--out", str(out), said=tmp_path / "said", prepare=prepare)
    assert (ended.code, ended.err) == (
        code,
        "isometry: stopped at step 3 of 12, saved; go on with --resume\n",
    )
    assert step_of(out) == 3
    check_goes_on(words, out, undisturbed)


@SLOW
def test_a_second_ctrl_c_keeps_the_save_before_it(
    words: list[str], undisturbed: Told, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    ended = run(*words, "--out", str(out), said=tmp_path / "said", prepare=_ctrl_c_twice)
    assert ended.code == 130
    assert len(ended.err.splitlines()) == 1
    assert step_of(out) == 4
    check_goes_on(words, out, undisturbed)


def _ctrl_c_twice() -> None:
    slowly()
    call_at(STEP, 5, lambda: [send_self(signal.SIGINT) for _ in range(2)])


def test_a_failed_loss_is_saved_before_it_is_said(
    words: list[str], undisturbed: Told, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    ended = run(*words, "--out", str(out), said=tmp_path / "said", prepare=_a_loss_is_nan)
    assert ended.code == 2
    assert mentions(ended.err, "step 4 (epoch 1): … not finite … saved at step 4")
    assert len(ended.err.splitlines()) == 1
    assert step_of(out) == 4
    check_goes_on(words, out, undisturbed)


def _a_loss_is_nan() -> None:
    slowly()
    forward, calls = SoftLabel.forward, [0]

    def spoiled(self: SoftLabel, *inputs: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        return forward(self, *inputs) * (float("nan") if calls[0] == 5 else 1.0)

    SoftLabel.forward = spoiled


# --- disks that fill up
# ------------------------------------------------------------------------------------------------------


def full_from(tag: str, then: partial[None] | None = None) -> None:
    """No tensor file can be written in the save ``tag`` and later ones."""
    slowly(then)
    save = run_state.save_checkpoint

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def filling(folder: Path, parts: Any, state: Any, of: str) -> None:
        if of == tag:
            files.save_file = full
        save(folder, parts, state, of)

    run_state.save_checkpoint = filling


TERMINATED = signalled_at_step(4, signal.SIGTERM)


@pytest.mark.parametrize(
    ("tag", "then", "saved"),
    [
        pytest.param("step4", None, 2, id="said at the next save"),
        pytest.param("epoch1", None, 6, id="in best", marks=SLOW),
        pytest.param("step4", TERMINATED, 2, id="said instead of saved"),
        pytest.param("step12", None, 10, id="at the end"),
    ],
)
def test_a_disk_that_is_full_behind_the_steps_is_said_in_one_line(
    tag: str, then: partial[None] | None, saved: int, words: list[str], undisturbed: Told, tmp_path: Path
) -> None:
    out, prepare = tmp_path / "run", partial(full_from, tag, then)
    ended = run(*words, "--out", str(out), said=tmp_path / "said", prepare=prepare)
    assert ended.code == 2, ended.err
    assert len(ended.err.splitlines()) == 1
    assert mentions(ended.err, "could not save (no space left on device; needs … make room")
    assert "stopped" not in ended.err
    assert step_of(out) == saved
    assert not (out / "summary.json").exists()
    check_goes_on(words, out, undisturbed)


def test_the_last_save_fails_before_anything_is_said_of_the_run(words: list[str], tmp_path: Path) -> None:
    """With no save after it that would raise its error."""
    out, rare = tmp_path / "run", words[: words.index("--recovery-interval")]
    ended = run(*rare, "--out", str(out), said=tmp_path / "said", prepare=partial(full_from, "step12"))
    assert ended.code == 2
    assert "could not save" in ended.err
    assert step_of(out) == 6
    assert not (out / "summary.json").exists()


# --- two processes
# ------------------------------------------------------------------------------------------------------


def test_of_two_processes_the_main_one_writes_behind_and_both_go_on_bitwise(
    words: list[str], tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    ended = run_ranks(*words, "--out", str(whole), folder=tmp_path, port=free_port())
    assert [each.code for each in ended] == [0, 0], ended
    dies = partial(slowly, signalled_at_step(6, signal.SIGKILL))
    again = [*words, "--out", str(out)]
    ended = run_ranks(*again, folder=tmp_path, port=free_port(), prepare=(slowly, dies))
    assert [each.code for each in ended] == [2, -signal.SIGKILL], ended
    assert mentions(ended[0].err, "0 of 2 … --resume")
    assert step_of(out) == 4
    ended = run_ranks(*again, "--resume", folder=tmp_path, port=free_port(), prepare=(slowly, slowly))
    assert [each.code for each in ended] == [0, 0], ended
    check_equal(contents(out), contents(whole))
