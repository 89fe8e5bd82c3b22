"""One run, killed at twenty random moments by the clock, in saves and between: bitwise as if nothing had happened."""

import os
import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from helpers import LIVELY, SECONDS_TO_WAIT, TINY_STUDENT, Started, check_equal, contents, run, start
from isometry.training import saves

KILLS, STEPS = 20, 72


def note_saves(journal: Path) -> None:
    """Writes ``TAG begun`` and ``TAG done`` around every save of this process into ``journal``."""
    save = saves.save_checkpoint
    paper = os.open(journal, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)

    def noted(folder: Path, parts: object, state: object, tag: str) -> None:
        os.write(paper, f"{tag} begun\n".encode())
        save(folder, parts, state, tag)
        os.write(paper, f"{tag} done\n".encode())

    saves.save_checkpoint = noted


def written(journal: Path) -> list[str]:
    """The lines so far; none before the process has got that far."""
    return journal.read_text().splitlines() if journal.exists() else []


def wait_for(word: str, step: int, journal: Path, started: Started) -> None:
    """Waits until a save of that step or a later one has begun or is done."""
    for _ in range(SECONDS_TO_WAIT * 1000):
        steps = [line.split() for line in written(journal) if line.startswith("step")]
        if any(int(tag.removeprefix("step")) >= step and said == word for tag, said in steps):
            return
        assert started.process.is_alive(), started.wait().err
        time.sleep(0.001)
    raise TimeoutError(f"no save {word} at step {step}")


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
    note = partial(note_saves, journal)
    started = start(*words, "--out", str(whole), said=tmp_path / "said", prepare=note)
    wait_for("done", 1, journal, started)
    begun = time.monotonic()
    wait_for("done", STEPS - 1, journal, started)
    seconds_a_step = (time.monotonic() - begun) / (STEPS - 2)
    ended = started.wait()
    assert (ended.code, ended.err) == (0, "")

    draw = random.Random(0)
    in_saves = 0
    resume: list[str] = []
    for step in sorted(draw.randrange(1, STEPS) for _ in range(KILLS)):
        journal.unlink()
        started = start(*words, "--out", str(out), *resume, said=tmp_path / "said", prepare=note)
        # As many from a save's beginning on as from its end.
        wait_for(draw.choice(["begun", "done"]), step, journal, started)
        time.sleep(draw.uniform(0, seconds_a_step))
        started.process.kill()
        assert started.wait().code == -signal.SIGKILL
        in_saves += written(journal)[-1].endswith("begun")
        resume = ["--resume"]
    print(f"{in_saves} of {KILLS} kills in a save, a step takes {seconds_a_step:.3f} s")
    assert 3 <= in_saves < KILLS
    ended = run(*words, "--out", str(out), "--resume", said=tmp_path / "said")
    assert (ended.code, ended.err) == (0, "")
    assert "damaged" not in ended.out
    check_equal(contents(out), contents(whole))
