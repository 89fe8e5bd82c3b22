"""Runs that are stopped or killed while they validate lose none of the epoch's steps."""

import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from helpers.messages import mentions
from helpers.runs import (
    Told,
    call_at,
    check_equal,
    contents,
    free_port,
    run,
    run_ranks,
    send_self,
)
from isometry.evaluation.accuracy import _Tally
from isometry.training.checkpoint.files import load_checkpoint

VALIDATES = "isometry.training.loop:Trainer.evaluate"
BATCH = "isometry.evaluation.accuracy:_Tally.add"
"""Called once for each network and batch: twice with a moving average."""


@pytest.fixture(scope="module")
def once_an_epoch(words: list[str]) -> list[str]:
    """The run without saves inside epochs."""
    return words[: words.index("--recovery-interval")]


def step_of(out: Path) -> tuple[int, int]:
    """Finished epochs and steps of the last save."""
    loop = load_checkpoint(out / "last").state["loop"]
    return loop["epoch"], loop["step"]


@pytest.mark.parametrize("epoch", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_killed_as_it_validates_has_saved_the_epoch(
    epoch: int, once_an_epoch: list[str], undisturbed: Told, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    die = partial(call_at, VALIDATES, epoch, partial(send_self, signal.SIGKILL))
    ended = run(*once_an_epoch, "--out", str(out), said=tmp_path / "a", prepare=die)
    assert ended.code == -signal.SIGKILL
    assert step_of(out) == (epoch - 1, 6 * epoch)
    ended = run(*once_an_epoch, "--out", str(out), "--resume", said=tmp_path / "b")
    assert (ended.code, ended.err) == (0, "")
    check_equal(contents(out), undisturbed[0])


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_is_answered_between_batches_of_validation(
    number: signal.Signals, code: int, once_an_epoch: list[str], undisturbed: Told, tmp_path: Path
) -> None:
    words = [*once_an_epoch, "--validation-batch-size", "50"]
    out, stop = tmp_path / "run", partial(call_at, BATCH, 3, partial(send_self, number))
    ended = run(*words, "--out", str(out), said=tmp_path / "a", prepare=partial(_counting, str(out), stop))
    assert ended.code == code
    assert mentions(ended.err, "stopped at step 6 of 12, saved; go on with --resume")
    assert step_of(out) == (0, 6)
    assert not (out / "metrics.jsonl").exists()
    # Both networks on the batch of the signal and on none after it.
    assert (out.parent / "batches").read_text() == "4"
    ended = run(*words, "--out", str(out), "--resume", said=tmp_path / "b")
    assert (ended.code, ended.err) == (0, "")
    head = "student/model.safetensors:head.weight"
    check_equal({head: contents(out)[head]}, {head: undisturbed[0][head]})


def _counting(out: str, stop: partial[None]) -> None:
    """Counts the batches that are evaluated before the run ends."""
    stop()
    evaluate, count = _Tally.add, 0

    def counted(*arguments: Any) -> None:
        nonlocal count
        count += 1
        Path(out).with_name("batches").write_text(str(count))
        evaluate(*arguments)

    _Tally.add = counted


@pytest.mark.slow
def test_processes_that_are_stopped_as_they_validate_go_on_bitwise(
    once_an_epoch: list[str], tmp_path: Path
) -> None:
    words = [*once_an_epoch, "--global-batch-size", "150"]
    alone = [*words, "--out", str(tmp_path / "alone")]
    assert [each.code for each in run_ranks(*alone, folder=tmp_path, port=free_port())] == [0, 0]
    stop = partial(call_at, BATCH, 1, partial(send_self, signal.SIGTERM))
    out = tmp_path / "run"
    ended = run_ranks(*words, "--out", str(out), folder=tmp_path, port=free_port(), prepare=(stop, stop))
    assert [each.code for each in ended] == [0, 0], ended
    assert step_of(out)[0] == 0
    again = run_ranks(*words, "--out", str(out), "--resume", folder=tmp_path, port=free_port())
    assert [(each.code, each.err) for each in again] == [(0, "")] * 2
    check_equal(contents(out), contents(tmp_path / "alone"))
