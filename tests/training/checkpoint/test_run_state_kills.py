"""One run, killed at twenty random moments, in saves and between: bitwise as if nothing had happened."""

import os
import random
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from helpers.runs import (
    FILE_EVENTS,
    LIVELY,
    SECONDS_TO_WAIT,
    TINY_STUDENT,
    Started,
    check_equal,
    contents,
    run,
    start,
)
from isometry.training.checkpoint import run_state

KILLS, STEPS = 20, 72


def note_saves(journal: Path, die: tuple[int, int] | None = None) -> None:
    """Writes ``TAG begun`` and ``TAG done OPERATIONS`` around every save of this process into ``journal``.

    With ``die`` it is killed in the first save of that step or a later one, before so many operations on files
    (from 1) are done.
    """
    save = run_state.save_checkpoint
    paper = os.open(journal, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    saving, operations = False, 0

    def noted(folder: Path, parts: object, state: object, tag: str) -> None:
        nonlocal saving, operations
        os.write(paper, f"{tag} begun\n".encode())
        saving = die is None or step_of(tag) >= die[0]
        operations = 0
        save(folder, parts, state, tag)
        saving = False
        os.write(paper, f"{tag} done {operations}\n".encode())

    def hook(event: str, details: tuple[Any, ...]) -> None:
        nonlocal operations
        if not saving or event not in FILE_EVENTS:
            return
        operations += 1
        if die is not None and operations == die[1]:
            os.kill(os.getpid(), signal.SIGKILL)

    run_state.save_checkpoint = noted
    sys.addaudithook(hook)


def step_of(tag: str) -> int:
    """The step that a save is of; 0 of those that are not named by one."""
    return int(tag.removeprefix("step")) if tag.startswith("step") else 0


def written(journal: Path) -> list[list[str]]:
    """The words of the lines so far; none before the process has got that far."""
    return [line.split() for line in journal.read_text().splitlines()] if journal.exists() else []


def wait_for_save(step: int, journal: Path, started: Started) -> None:
    """Waits until a save of that step or a later one is done."""
    for _ in range(SECONDS_TO_WAIT * 1000):
        if any(line[1] == "done" and step_of(line[0]) >= step for line in written(journal)):
            return
        assert started.process.is_alive(), started.wait().err
        time.sleep(0.001)
    raise TimeoutError(f"no save at step {step}")


@pytest.mark.slow
def test_a_run_killed_at_twenty_random_moments_ends_as_if_nothing_had_happened(
    tiny_teacher: Path, tmp_path: Path
) -> None:
    teacher = ["--teacher", f"local-dir:{tiny_teacher}"]
    words = [
        "distill",
        *TINY_STUDENT,
        *teacher,
        *LIVELY,
        "--epochs",
        str(STEPS // 6),
        "--recovery-interval",
        "1",
    ]
    journal, whole, out = tmp_path / "journal", tmp_path / "whole", tmp_path / "run"
    said = tmp_path / "said"
    started = start(*words, "--out", str(whole), said=said, prepare=partial(note_saves, journal))
    wait_for_save(1, journal, started)
    begun = time.monotonic()
    wait_for_save(STEPS - 1, journal, started)
    seconds_a_step = (time.monotonic() - begun) / (STEPS - 2)
    ended = started.wait()
    assert (ended.code, ended.err) == (0, "")
    operations = min(int(line[2]) for line in written(journal) if line[1] == "done")

    draw = random.Random(0)
    resume: list[str] = []
    for number, step in enumerate(sorted(draw.randrange(1, STEPS) for _ in range(KILLS))):
        journal.unlink()
        # The clock finds few saves where disks are fast, so every second kill is in one.
        in_save = number % 2 == 1
        die = (step, draw.randint(1, operations)) if in_save else None
        prepare = partial(note_saves, journal, die)
        started = start(*words, "--out", str(out), *resume, said=said, prepare=prepare)
        if not in_save:
            wait_for_save(step, journal, started)
            time.sleep(draw.uniform(0, seconds_a_step))
            started.process.kill()
        assert started.wait().code == -signal.SIGKILL
        assert not in_save or written(journal)[-1][1] == "begun"
        resume = ["--resume"]
    ended = run(*words, "--out", str(out), "--resume", said=said)
    assert (ended.code, ended.err) == (0, "")
    assert "damaged" not in ended.out
    check_equal(contents(out), contents(whole))
