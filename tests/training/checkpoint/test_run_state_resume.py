"""A run that is killed, stopped or starved at any moment, and goes on: bitwise as if nothing had happened."""

import os
import signal
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from helpers.messages import mentions
from helpers.runs import (
    TINY_STUDENT,
    Told,
    call_at,
    check_equal,
    contents,
    disturb,
    killed_at,
    run,
    send_self,
    signalled_at_step,
)
from isometry.training import assemble
from isometry.training.checkpoint import files

SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("event", "which"),
    [
        pytest.param("os.rename /config.yaml.new", 0, id="before the run has begun"),
        pytest.param("os.rename /last/checkpoint.json.new", 0, id="before its first save counts", marks=SLOW),
        pytest.param("open /last/optimizer-step4.safetensors.new", 0, id="inside a save in an epoch"),
        pytest.param("open /metrics.jsonl", 0, id="between the two files of metrics", marks=SLOW),
        pytest.param("open /last/model-step12-2.safetensors.new", 0, id="between best and last"),
        pytest.param("os.rename /student.new", 0, id="while it exports the student", marks=SLOW),
    ],
)
def test_a_run_killed_while_it_writes_goes_on_bitwise(
    event: str, which: int, words: list[str], undisturbed: Told, tmp_path: Path
) -> None:
    wanted, journal = undisturbed
    number = [place for place, line in enumerate(journal, start=1) if line == event][which]
    disturb(words, tmp_path, wanted, killed_at(tmp_path, number), code=-signal.SIGKILL)


@SLOW
def test_a_run_killed_in_the_middle_of_a_file_goes_on_bitwise(
    words: list[str], undisturbed: Told, tmp_path: Path
) -> None:
    wanted, _ = undisturbed
    disturb(words, tmp_path, wanted, _killed_with_half_a_file_written, code=-signal.SIGKILL)


def _killed_with_half_a_file_written() -> None:
    save_file, written = files.save_file, []

    def half(tensors: dict[str, torch.Tensor], path: Path) -> None:
        save_file(tensors, path)
        written.append(path)
        if len(written) == 8:
            os.truncate(path, path.stat().st_size // 2)
            send_self(signal.SIGKILL)

    files.save_file = half


@SLOW
def test_a_run_killed_while_it_tidies_up_after_its_last_save_goes_on_bitwise(
    words: list[str], undisturbed: Told, tmp_path: Path
) -> None:
    """Nothing is saved any more when it goes on, and what was to be deleted is."""
    # The last save inside an epoch is then not at the epoch's end, and the one before that goes.
    apart = [*words[:-1], "5"]
    disturb(apart, tmp_path, undisturbed[0], _killed_deleting_step_6, code=-signal.SIGKILL)


def _killed_deleting_step_6() -> None:
    unlink = Path.unlink

    def deadly(self: Path, missing_ok: bool = False) -> None:
        if self.name == "model-step6.safetensors":
            send_self(signal.SIGKILL)
        unlink(self, missing_ok)

    Path.unlink = deadly


@pytest.mark.parametrize("step", [pytest.param(1, marks=SLOW), 4, pytest.param(7, marks=SLOW)])
def test_a_run_killed_between_saves_goes_on_bitwise(
    step: int, words: list[str], undisturbed: Told, tmp_path: Path
) -> None:
    """Before any save, off a save inside an epoch, and at an epoch's first step."""
    disturb(words, tmp_path, undisturbed[0], signalled_at_step(step, signal.SIGKILL), code=-signal.SIGKILL)


@SLOW
def test_a_run_saved_at_an_epochs_last_step_and_killed_before_its_evaluation_goes_on_bitwise(
    words: list[str], undisturbed: Told, tmp_path: Path
) -> None:
    die = partial(call_at, "isometry.training.loop:Trainer.end_epoch", 1, partial(send_self, signal.SIGKILL))
    disturb(words, tmp_path, undisturbed[0], die, code=-signal.SIGKILL)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), pytest.param(signal.SIGINT, 130, marks=SLOW)]
)
def test_a_run_asked_to_stop_saves_says_so_and_goes_on_bitwise(
    number: signal.Signals, code: int, words: list[str], undisturbed: Told, tmp_path: Path
) -> None:
    # Asked in a step after which no save is due.
    said = disturb(words, tmp_path, undisturbed[0], signalled_at_step(3, number), code=code)
    assert said == ["isometry: stopped at step 3 of 12, saved; go on with --resume\n"]


@SLOW
def test_a_run_asked_to_stop_while_it_evaluates_stops_after_the_epochs_save(
    words: list[str], undisturbed: Told, tmp_path: Path
) -> None:
    ask = partial(call_at, "isometry.training.loop:Trainer.evaluate", 1, partial(send_self, signal.SIGTERM))
    said = disturb(words, tmp_path, undisturbed[0], ask, code=0)
    assert said == ["isometry: stopped at step 6 of 12, saved; go on with --resume\n"]


@SLOW
def test_a_second_ctrl_c_does_not_wait(words: list[str], undisturbed: Told, tmp_path: Path) -> None:
    said = disturb(words, tmp_path, undisturbed[0], _ctrl_c_twice, code=128 + signal.SIGINT)
    assert "stopped" in said[0]
    assert len(said[0].splitlines()) == 1


def _ctrl_c_twice() -> None:
    call_at(
        "isometry.training.loop:Trainer.train_step", 5, lambda: [send_self(signal.SIGINT) for _ in range(2)]
    )


def test_a_failed_loss_is_named_and_the_save_before_it_goes_on_bitwise(
    words: list[str], undisturbed: Told, tmp_path: Path
) -> None:
    (said,) = disturb(words, tmp_path, undisturbed[0], _one_loss_is_nan, code=2)
    assert said.startswith(
        "isometry: step 8 (epoch 2): losses.embedding is not finite, on the training images ["
    )
    assert mentions(said, "saved … step 8")
    assert len(said.splitlines()) == 1


def _one_loss_is_nan() -> None:
    from isometry.losses.embedding import Embedding

    calls = 0
    forward = Embedding.forward

    def spoiled(self: Embedding, *tokens: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        # Two blocks are tapped, so this is the ninth step.
        return forward(self, *tokens) * (float("nan") if calls == 17 else 1.0)

    Embedding.forward = spoiled


@SLOW
def test_weights_that_are_no_longer_finite_are_never_saved(
    words: list[str], undisturbed: Told, tmp_path: Path
) -> None:
    """The loss of the step is finite and its gradient is not, in the last step of an epoch."""
    (said,) = disturb(words, tmp_path, undisturbed[0], _one_gradient_is_nan, code=2)
    assert mentions(said, "step 6: … weights … finite")


def _one_gradient_is_nan() -> None:
    from isometry.training.loop import Trainer

    calls = 0
    update = Trainer._update

    def spoiled(self: Trainer) -> None:
        nonlocal calls
        calls += 1
        if calls == 6:
            next(p for p in self.objective.student.parameters() if p.grad is not None).grad.fill_(
                float("nan")
            )
        update(self)

    Trainer._update = spoiled


@SLOW
def test_options_that_change_nothing_may_change(words: list[str], undisturbed: Told, tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    ended = run(*words, "--out", out, said=tmp_path / "a", prepare=signalled_at_step(4, signal.SIGTERM))
    assert ended.code == 0
    free = ["--resume", "--log-interval", "1", "--recovery-interval", "5", "--workers", "1"]
    ended = run(*words, "--out", out, *free, said=tmp_path / "b")
    assert ended.code == 0, ended.err
    check_equal(contents(tmp_path / "run"), undisturbed[0])


def test_other_options_may_not_and_are_named(words: list[str], tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    run(*words, "--out", out, said=tmp_path / "a", prepare=signalled_at_step(3, signal.SIGTERM))
    before = contents(tmp_path / "run")
    ended = run(*words, "--out", out, "--resume", "--lr", "0.5", "--drop-path", "0.1", said=tmp_path / "b")
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert mentions(ended.err, "--lr … 0.001 … 0.5")
    assert mentions(ended.err, "--drop-path … 0.2 … 0.1")
    check_equal(contents(tmp_path / "run"), before)


@SLOW
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_with_loading_processes_too(
    number: signal.Signals, words: list[str], undisturbed: Told, tmp_path: Path
) -> None:
    """Ctrl-C, and batch systems' SIGTERM, reach every process of the group; SIGKILL the run alone."""
    out = tmp_path / "run"
    prepare = partial(_signalled_from_outside_at_step, 5, number)
    ended = run(*words, "--out", str(out), "--workers", "2", said=tmp_path / "a", prepare=prepare)
    assert ended.code == {signal.SIGKILL: -9, signal.SIGTERM: 0, signal.SIGINT: 130}[number], ended.err
    if number != signal.SIGKILL:
        assert ended.err == "isometry: stopped at step 5 of 12, saved; go on with --resume\n"
    ended = run(*words, "--out", str(out), "--workers", "2", "--resume", said=tmp_path / "b")
    assert (ended.code, ended.err) == (0, "")
    check_equal(contents(out), undisturbed[0])


@SLOW
@pytest.mark.parametrize("failing", ["_one_loss_is_nan", "_ctrl_c_twice"])
def test_loading_processes_leave_without_a_word(failing: str, words: list[str], tmp_path: Path) -> None:
    ended = run(
        *words,
        "--out",
        str(tmp_path / "run"),
        "--workers",
        "2",
        said=tmp_path / "a",
        prepare=globals()[failing],
    )
    assert ended.code in (2, 130)
    assert len(ended.err.splitlines()) == 1


def _signalled_from_outside_at_step(step: int, number: signal.Signals) -> None:
    os.setsid()
    # From another process, because a loading process takes its parent's SIGTERM in another way than a
    # stranger's.
    target = os.getpid() if number == signal.SIGKILL else -os.getpid()
    command = ["setsid", "kill", f"-{int(number)}", "--", str(target)]
    call_at("isometry.training.loop:Trainer.train_step", step, partial(subprocess.run, command, check=True))


@SLOW
def test_random_terms_that_are_evaluated_without_labels_repeat(tiny_teacher: Path, tmp_path: Path) -> None:
    """Where the validation figure is the objective's own loss, its draws must not depend on the steps
    before.
    """
    words = ["distill", *TINY_STUDENT, "--teacher", f"local-dir:{tiny_teacher}", "--losses.random.k", "20"]
    words += ["--epochs", "2", "--recovery-interval", "1"]
    ended = run(*words, "--out", str(tmp_path / "whole"), said=tmp_path / "said", prepare=_without_labels)
    assert ended.code == 0, ended.err
    out = str(tmp_path / "run")
    ended = run(*words, "--out", out, said=tmp_path / "a", prepare=_without_labels_and_killed)
    assert ended.code == -signal.SIGKILL
    ended = run(*words, "--out", out, "--resume", said=tmp_path / "b", prepare=_without_labels)
    assert ended.code == 0, ended.err
    check_equal(contents(tmp_path / "run"), contents(tmp_path / "whole"))
    assert "val/loss" in (tmp_path / "run" / "metrics.csv").read_text()


def _without_labels() -> None:
    find = assemble.find_sources
    assemble.find_sources = lambda config: replace(find(config), labelled=False)


def _without_labels_and_killed() -> None:
    _without_labels()
    call_at("isometry.training.loop:Trainer.end_epoch", 1, partial(send_self, signal.SIGKILL))
