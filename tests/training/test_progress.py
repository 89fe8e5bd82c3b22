"""Progress of a run on terminals and in files."""

import io

import pytest
from rich.console import Console

from isometry.training import progress
from isometry.training.progress import COMPILING, Lines, Live, reporter, score_text, terms_text

ROW = {"epoch": 1, "step": 10, "lr": 1e-3, "train/loss": 1.25, "train/whole": 0.002, "val/top1": 87.5}


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        """The time now."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that ``progress`` looks at."""
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def paper(terminal: bool = False) -> Console:
    """A console that keeps what is printed."""
    return Console(file=io.StringIO(), force_terminal=terminal, width=160)


def text(console: Console) -> str:
    """What was printed."""
    return console.file.getvalue()


def test_a_terminal_gets_a_bar_a_file_lines_and_other_processes_nothing() -> None:
    assert isinstance(reporter(paper(terminal=True), "run", 10, 1, 0), Live)
    assert isinstance(reporter(paper(), "run", 10, 1, 0), Lines)
    assert isinstance(reporter(None, "run", 10, 1, 0), Lines)


def test_the_bar_names_the_terms_the_epoch_and_the_score() -> None:
    console = paper(terminal=True)
    with reporter(console, "student", 20, 2, 5) as bar:
        bar.step(10, 0)
        bar.losses({"loss": 1.25, "whole": 0.002})
        bar.epoch(ROW)
    shown = text(console)
    for words in ("student · epoch 1/2", "10/20", "left", "loss 1.25 whole 0.002", "val top-1 87.5 %"):
        assert words in shown


def test_a_narrow_terminal_shows_the_time_left_and_the_terms_in_full() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with reporter(console, "whole+intra · seed 4", 3600, 200, 0) as bar:
        bar.step(1800, 99)
        bar.losses({"loss": 1.25, "soft": 1.24, "whole": 0.002, "intra": 0.003})
        bar.epoch(ROW)
    shown = text(console)
    for words in ("1800/3600", "left", "loss 1.25 soft 1.24 whole 0.002 intra 0.003", "val top-1 87.5 %"):
        assert words in shown
    assert "…" not in shown


def test_lines_show_the_time_left_since_the_run_resumed(clock: Clock) -> None:
    console = paper()
    with reporter(console, "student", 30, 3, 10) as lines:
        clock.now += 40
        lines.step(20, 1)
        lines.epoch({**ROW, "epoch": 2})
    # Ten steps took 40 s, and ten are left.
    assert text(console) == "student · epoch 2/3 · 40 s left · loss 1.25 whole 0.002 · val top-1 87.5 %\n"


def test_lines_are_not_many_but_the_last_epoch_has_one(clock: Clock) -> None:
    console = paper()
    with reporter(console, "student", 100, 100, 0) as lines:
        for step in range(100):
            clock.now += 1
            lines.step(step + 1, step)
            lines.losses({"loss": 1.0})
            lines.epoch({**ROW, "epoch": step + 1})
    printed = text(console).splitlines()
    assert len(printed) == 10
    assert printed[-1].startswith("student · epoch 100/100 · 0 s left")


def test_long_epochs_have_lines_too(clock: Clock) -> None:
    console = paper()
    with reporter(console, "student", 1000, 1, 0) as lines:
        clock.now += 60
        lines.step(100, 0)
        lines.losses({"loss": 1.0, "soft": 0.5})
        lines.losses({"loss": 2.0})
    assert text(console) == "student · epoch 1/1 · 540 s left · loss 1 soft 0.5\n"


def test_the_bar_and_the_lines_name_the_stage_that_grows() -> None:
    bar, lines = paper(terminal=True), paper()
    for console in (bar, lines):
        with reporter(console, "student", 20, 2, 0) as shown:
            shown.stage("stage 1/2 (depth 6)")
            shown.stage("stage 2/2 (depth 12)")
            shown.step(20, 1)
            shown.losses({"loss": 1.25})
            shown.epoch({**ROW, "epoch": 2})
    assert text(lines).startswith("student · epoch 2/2 · stage 2/2 (depth 12) · 0 s left · loss 1.25")
    assert "stage 2/2 (depth 12) · loss 1.25 · val top-1 87.5 %" in text(bar)


def test_a_run_that_does_not_grow_shows_no_stage() -> None:
    console = paper(terminal=True)
    with reporter(console, "student", 20, 2, 0) as bar:
        bar.stage("")
        bar.losses({"loss": 1.25})
    assert "  loss 1.25" in text(console)
    assert "stage" not in text(console)


def test_the_bar_says_that_the_first_step_waits_until_it_is_done() -> None:
    console = paper(terminal=True)
    with reporter(console, "student", 20, 2, 0) as bar:
        bar.stage("", compiles=True)
        assert COMPILING in shown_by(bar)
        bar.step(1, 0)
        assert COMPILING not in shown_by(bar)
        bar.stage("stage 2/2 (depth 12)", compiles=True)
        assert f"stage 2/2 (depth 12) · {COMPILING}" in shown_by(bar)
        bar.step(20, 1)
        bar.stage("", compiles=True)
        assert COMPILING not in shown_by(bar)


def shown_by(bar: Live) -> str:
    """What the bar shows now."""
    console = paper()
    console.print(bar._lines())
    return text(console)


def test_lines_say_once_that_the_first_step_waits_and_leave_it_out_of_the_time_left(clock: Clock) -> None:
    console = paper()
    with reporter(console, "student", 30, 3, 0) as lines:
        lines.stage("", compiles=True)
        assert text(console) == f"student · {COMPILING}\n"
        clock.now += 66
        lines.step(1, 0)
        clock.now += 38
        lines.step(20, 1)
        lines.epoch({**ROW, "epoch": 2})
        lines.step(30, 2)
        lines.stage("", compiles=True)
    # 19 steps took 38 s after the one that waited, and ten are left.
    assert text(console).splitlines()[1:] == [
        "student · epoch 2/3 · 20 s left · loss 1.25 whole 0.002 · val top-1 87.5 %"
    ]


def test_a_process_without_a_console_prints_nothing() -> None:
    with reporter(None, "student", 20, 2, 0) as silent:
        silent.stage("stage 1/2 (depth 6)")


def test_figures_are_short() -> None:
    assert terms_text({"loss": 1.23456, "whole": 2.1e-5}) == "loss 1.23 whole 2.1e-05"
    assert score_text({"val/top1": 50.04, "val_ema/top1": 51.0}) == "val top-1 50.0 % · EMA 51.0 %"
    assert (
        score_text({"val/top1": 50.0, "val/top1_by_class": 31.0})
        == "val top-1 50.0 % (mean of classes 31.0 %)"
    )
    assert score_text({"val/loss": 0.12345}) == "val loss 0.1235"
    assert score_text({}) == ""
