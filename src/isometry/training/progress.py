"""Progress of a run: a live bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from typing import Any

from rich import live, progress
from rich.console import Console, Group

from isometry.errors import printable
from isometry.report import formats
from isometry.report.terminal import plain, print_notes, say

SECONDS_BETWEEN_EPOCHS = 10.0
"""Shortest time between the lines of two epochs."""

SECONDS_IN_EPOCH = 60.0
"""Time between lines in a long epoch."""

COMPILING = "compiling the networks; the first step waits for it"


def add_notes(notes: list[str], new: list[str], console: Console | None) -> None:
    """Adds new notes to those of a run, and prints them."""
    notes.extend(new)
    if console is not None:
        print_notes(console, new)


class Live:
    """A bar with the time left, and the loss terms on a second line, so that both fit a narrow terminal."""

    def __init__(self, console: Console, label: str, steps: int, epochs: int, done: int) -> None:
        self._label, self._epochs = printable(label), epochs
        self._terms = self._score = self._stage = self._waiting = ""
        self._progress = progress.Progress(
            progress.TextColumn("{task.description}", style="bold", markup=False),
            progress.BarColumn(bar_width=None),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
            expand=True,
        )
        self._task = self._progress.add_task(self._label, total=steps, completed=done)
        self._view = live.Live(console=console, get_renderable=self._lines, refresh_per_second=8)

    def __enter__(self) -> "Live":
        self._view.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._view.stop()

    def step(self, done: int, epoch: int) -> None:
        """``done`` steps of all are done."""
        self._waiting = ""
        self._progress.update(
            self._task, completed=done, description=f"{self._label} · epoch {epoch + 1}/{self._epochs}"
        )

    def losses(self, values: Mapping[str, float]) -> None:
        """The terms as last read."""
        self._terms = terms_text(values)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch has ended with this row of metrics."""
        self._score = score_text(row)

    def stage(self, label: str, *, compiles: bool = False) -> None:
        """A stage of growth has begun; ``compiles``: its first step compiles the networks."""
        self._stage = label
        self._waiting = COMPILING if compiles and not self._progress.finished else ""

    def _lines(self) -> Group:
        text = " · ".join(part for part in (self._stage, self._waiting, self._terms, self._score) if part)
        return Group(self._progress.get_renderable(), plain(f"  {text}", "dim"))


class Lines:
    """A line after an epoch, at most every ten seconds, and after the last; one a minute in a long epoch.

    One more before networks are compiled. Methods are those of :class:`Live`.
    """

    def __init__(self, console: Console, label: str, steps: int, epochs: int, done: int) -> None:
        self._console, self._label, self._epochs = console, label, epochs
        self._steps, self._first, self._done = steps, done, done
        self._epoch, self._stage, self._waiting = 0, "", False
        self._start = self._shown = time.monotonic()

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def step(self, done: int, epoch: int) -> None:
        self._done, self._epoch = done, epoch + 1
        if self._waiting:
            # A step that compiles says nothing about the time that the others take.
            self._waiting, self._start, self._first = False, time.monotonic(), done

    def losses(self, values: Mapping[str, float]) -> None:
        if self._since_last() >= SECONDS_IN_EPOCH:
            self._print(self._epoch, terms_text(values))

    def epoch(self, row: Mapping[str, Any]) -> None:
        if self._since_last() >= SECONDS_BETWEEN_EPOCHS or self._done >= self._steps:
            terms = {
                key.removeprefix("train/"): value for key, value in row.items() if key.startswith("train/")
            }
            self._print(row["epoch"], terms_text(terms), score_text(row))

    def stage(self, label: str, *, compiles: bool = False) -> None:
        self._stage = label
        self._waiting = compiles and self._done < self._steps
        if self._waiting:
            self._write(self._label, self._stage, COMPILING)

    def _since_last(self) -> float:
        return time.monotonic() - self._shown

    def _print(self, epoch: int, *rest: str) -> None:
        self._shown = time.monotonic()
        per_step = (self._shown - self._start) / max(1, self._done - self._first)
        left = f"{per_step * (self._steps - self._done):.0f} s left"
        self._write(self._label, f"epoch {epoch}/{self._epochs}", self._stage, left, *rest)

    def _write(self, *parts: str) -> None:
        line = " · ".join(part for part in parts if part)
        say(self._console, line)


Reporter = Live | Lines


def reporter(console: Console | None, label: str, steps: int, epochs: int, done: int) -> Reporter:
    """A live bar on a terminal, lines elsewhere; without a console, nothing is printed."""
    if console is None:
        return Lines(Console(quiet=True), label, steps, epochs, done)
    return (Live if console.is_terminal else Lines)(console, label, steps, epochs, done)


def terms_text(values: Mapping[str, float]) -> str:
    """``loss 1.234 soft 0.41 whole 0.0021``."""
    return " ".join(f"{name} {value:.3g}" for name, value in values.items())


def score_text(row: Mapping[str, Any]) -> str:
    """The validation metrics of a row, if it has some."""
    shown = []
    for split, name in (("val/", "val top-1"), ("val_ema/", "EMA")):
        if f"{split}top1" in row:
            shown.append(f"{name} {formats.top1(row, split)}")
    for key, name in (("val/ap", "val AP"), ("val/miou", "val mIoU")):
        if row.get(key) is not None:
            shown.append(f"{name} {row[key]:.1f} %")
    if not shown and "val/loss" in row:
        shown.append(f"val loss {row['val/loss']:.4g}")
    return " · ".join(shown)
