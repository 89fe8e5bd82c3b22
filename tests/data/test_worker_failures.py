"""Loading processes that are killed under a run, wherever it stands: one line, no save after it, and it goes on."""

import multiprocessing
import os
import signal
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from helpers.runs import (
    LIVELY,
    TINY_STUDENT,
    Told,
    call_at,
    check_equal,
    contents,
    left_alone,
    run,
    send_self,
)
from isometry.data.worker_failures import WorkerDied, watch_workers, worker_deaths
from isometry.errors import UserError

SLOW = pytest.mark.slow


def lose_a_worker(journal: Path) -> None:
    """Kills the loading process that was started last, and waits for torch to notice, in the midst of whatever runs."""
    victim = max(child.pid or 0 for child in multiprocessing.active_children())
    journal.write_text(str(victim))
    os.kill(victim, signal.SIGKILL)
    time.sleep(20)


@pytest.fixture(scope="module")
def words(tiny_teacher: Path) -> list[str]:
    """The run that is disturbed: twelve steps in two epochs, a save after every second one, four loading processes."""
    taught = ["distill", *TINY_STUDENT, "--teacher", f"local-dir:{tiny_teacher}", *LIVELY]
    return [*taught, "--workers", "2", "--recovery-interval", "2"]


@pytest.fixture(scope="module")
def undisturbed(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Told:
    """The run when nothing happens."""
    return left_alone(words, tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        pytest.param("isometry.training.loop:Trainer.train_step", 9, id="as a step begins"),
        pytest.param(
            "isometry.training.loop:Trainer._update", 5, id="between gradients and update", marks=SLOW
        ),
        pytest.param("isometry.training.checkpoint.files:save_file", 6, id="inside a save"),
        pytest.param("isometry.training.validation:accuracies", 2, id="while validation is read"),
        pytest.param(
            "isometry.training.checkpoint.files:load_file",
            1,
            id="while a checkpoint is read back",
            marks=SLOW,
        ),
        pytest.param("isometry.training.run:finish", 1, id="after the last step", marks=SLOW),
    ],
)
def test_a_killed_worker_ends_the_run_in_one_line_and_resuming_ends_as_if_nothing_had_happened(
    words: list[str], undisturbed: Told, tmp_path: Path, moment: str, number: int
):
    folder, journal = tmp_path / "run", tmp_path / "victim"
    lose = partial(call_at, moment, number, partial(lose_a_worker, journal))
    ended = run(*words, "--out", str(folder), said=tmp_path / "said", prepare=lose)
    assert journal.exists(), "no loading process was killed"
    assert ended.code == 2, ended.err
    (line,) = ended.err.splitlines()
    assert line == (
        "isometry: a data loading process was killed by a signal (Killed), most often because memory ran out; "
        "the last save is kept: go on with --resume, perhaps with fewer --workers"
    )
    assert "Traceback" not in ended.out
    saved = (folder / "last" / "checkpoint.json").stat().st_mtime
    assert saved <= journal.stat().st_mtime, "it saved after the death"
    resumed = run(*words, "--out", str(folder), "--resume", "--workers", "1", said=tmp_path / "said-resumed")
    assert resumed.code == 0, resumed.err
    check_equal(contents(folder), undisturbed[0])


def test_sigterm_when_training_is_done_leaves_at_once_though_workers_outlive_it(
    words: list[str], tmp_path: Path
):
    told_to_leave = partial(
        call_at, "isometry.training.results:write_page", 1, partial(send_self, signal.SIGTERM)
    )
    started = run(*words, "--out", str(tmp_path / "run"), said=tmp_path / "said", prepare=told_to_leave)
    assert started.code == 128 + signal.SIGTERM, started.err
    (line,) = started.err.splitlines()
    assert "stopped; the last save is kept: go on with --resume" in line


def test_before_the_first_save_there_is_nothing_to_resume(words: list[str], tmp_path: Path):
    moment = "isometry.training.loop:Trainer.train_step"
    lose = partial(call_at, moment, 1, partial(lose_a_worker, tmp_path / "victim"))
    ended = run(*words, "--out", str(tmp_path / "run"), said=tmp_path / "said", prepare=lose)
    assert ended.code == 2, ended.err
    assert "saved" in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (
            "DataLoader worker (pid 7) is killed by signal: Killed. ",
            "by a signal (Killed), .* because memory",
        ),
        (
            "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are "
            "out of shared memory. Please try to raise your shared memory limit.",
            r"by a signal \(Bus error\), .* shared memory \(/dev/shm\) ran out; .*--shm-size 2g, or --workers 0",
        ),
        ("DataLoader worker (pid(s) 7, 8) exited unexpectedly", "was killed, most"),
    ],
)
def test_what_torch_says_of_a_death_is_put_in_words(told: str, words: str):
    words = words.replace("(Killed)", r"\(Killed\)")
    with pytest.raises(UserError, match=words), worker_deaths(lambda: "go on"):
        raise RuntimeError(told)


def test_no_except_of_the_work_that_it_interrupts_takes_a_death_for_its_own_error():
    with pytest.raises(UserError, match="killed"), worker_deaths(lambda: "go on"), suppress(Exception):
        raise WorkerDied("DataLoader worker (pid 7) is killed by signal: Killed. ")


@pytest.mark.parametrize(
    "error",
    [RuntimeError("Caught KeyError in DataLoader worker process 0."), UserError("no images"), KeyError("x")],
)
def test_other_errors_stay_what_they_are(error: Exception):
    with pytest.raises(type(error)) as caught, worker_deaths(lambda: "go on"):
        raise error
    assert caught.value is error


def test_workers_that_die_after_the_first_raise_nothing_more():
    """Where memory runs out, all are killed; the second must not interrupt the message on the first."""

    def torchs(number: int, frame: object) -> None:
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")

    before = signal.signal(signal.SIGCHLD, torchs)
    try:
        watch_workers()
        for _ in range(2):
            with pytest.raises(UserError, match="a data loading process was killed"), worker_deaths(str):
                os.kill(os.getpid(), signal.SIGCHLD)
            os.kill(os.getpid(), signal.SIGCHLD)
    finally:
        signal.signal(signal.SIGCHLD, before)
