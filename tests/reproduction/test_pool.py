"""Runs in the pool: bit-identical to a single run; what is kept when one fails, is killed or is stopped."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from reproduction.pool import MEASURED, Pool, Task

from helpers.runs import TINY_STUDENT, check_equal, config_of, contents, run
from isometry.config import RunConfig
from isometry.errors import UserError

WORDS = [*TINY_STUDENT, "--seed", "3", "--lr", "1e-3"]
SECONDS = 60
"""Far more than a run takes here."""


def task(folder: Path, epochs: int, **changed: object) -> Task:
    config: RunConfig = config_of(*WORDS, "--epochs", str(epochs), "--losses.ce", "1", "--out", str(folder))
    return Task(folder.name, replace(config, **changed))


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(1) as pool:
        yield pool


def results_of(folder: Path) -> dict:
    """The files that must be identical for the same run."""
    return {
        name: value for name, value in contents(folder).items() if name.startswith(("student", "metrics"))
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict:
    """The run of 40 epochs from the command line."""
    folder = tmp_path_factory.mktemp("alone")
    words = [*WORDS, "--epochs", "40", "--losses.ce", "1", "--out", str(folder / "run")]
    ended = run("train", *words, said=folder / "said")
    assert ended.code == 0, ended.err
    return results_of(folder / "run")


def test_a_run_is_bit_identical_to_a_single_run_also_after_another(pool, alone, tmp_path):
    tasks = [task(tmp_path / "first", 1, seed=4), task(tmp_path / "run", 40)]
    assert not any(each.finished for each in tasks)
    assert [ended.label for ended in pool.each(tasks)] == ["first", "run"]
    assert all(each.finished for each in tasks)
    check_equal(results_of(tmp_path / "run"), alone)
    measured = json.loads((tmp_path / "run" / MEASURED).read_text(encoding="utf-8"))
    assert measured["threads"] == "1"
    assert measured["cpu_seconds"] > 0


def test_a_failed_run_is_reported_and_the_pool_continues(pool, tmp_path):
    with pytest.raises(UserError, match=r"^bad: --lr"):
        list(pool.each([task(tmp_path / "bad", 1, lr=-1.0)]))
    assert not (tmp_path / "bad" / MEASURED).exists()
    assert [ended.label for ended in pool.each([task(tmp_path / "good", 1)])] == ["good"]


def after_an_epoch(folder: Path, action: object) -> threading.Thread:
    """Calls ``action`` once the run in ``folder`` has finished an epoch."""

    def wait() -> None:
        until = time.monotonic() + SECONDS
        while not (folder / "metrics.jsonl").is_file() and time.monotonic() < until:
            time.sleep(0.01)
        action()  # type: ignore[operator]

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, as at a terminal; test runners may have their processes ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_a_run_stopped_by_ctrl_c_or_killed_is_continued_by_another_pool(alone, tmp_path):
    mine = task(tmp_path / "run", 40)
    thread = after_an_epoch(tmp_path / "run", lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt), Pool(1) as pool:
        list(pool.each([mine]))
    thread.join()
    assert not mine.finished
    stopped = len((tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    assert 0 < stopped < 40
    with Pool(1) as pool:
        (worker,) = pool._workers
        thread = threading.Thread(target=worker.process.kill)
        thread.start()
        with pytest.raises(UserError, match="killed"):
            list(pool.each([mine]))
        thread.join()
    with Pool(1) as pool:
        list(pool.each([mine]))
        (worker,) = pool._workers
        assert worker.process.is_alive()
    assert worker.process.exitcode == 0
    check_equal(results_of(tmp_path / "run"), alone)
