"""What a person sees while a run goes on: a live bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Protocol

import rich.live
from rich.console import Console, Group
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

SECONDS_BETWEEN_LINES = 10.0
SECONDS_OF_SILENCE = 60.0


def tell(console: Console, notes: Iterable[str]) -> None:
    """What a person must know before believing a figure, a line each."""
    for note in notes:
        console.print(note, style="yellow", highlight=False, markup=False, soft_wrap=True)


class Reporter(Protocol):
    """What the loop tells; a context manager around the loop."""

    def __enter__(self) -> "Reporter": ...
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    def step(self, done: int, epoch: int) -> None:
        """``done`` steps of all are done."""

    def losses(self, values: Mapping[str, float]) -> None:
        """The terms as last read."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch has ended with this row of metrics."""

    def stage(self, words: str) -> None:
        """A stage of growth has begun."""


class Live:
    """A bar with time left, and under it the loss terms by name: two lines, so that both fit a narrow terminal."""

    def __init__(self, console: Console, label: str, steps: int, epochs: int, done: int) -> None:
        self._label, self._epochs = label, epochs
        self._terms = self._score = self._stage = ""
        self._progress = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
            expand=True,
        )
        self._task = self._progress.add_task(label, total=steps, completed=done)
        self._view = rich.live.Live(console=console, get_renderable=self._lines, refresh_per_second=8)

    def __enter__(self) -> "Live":
        self._view.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._view.stop()

    def step(self, done: int, epoch: int) -> None:
        self._progress.update(
            self._task, completed=done, description=f"{self._label} · epoch {epoch + 1}/{self._epochs}"
        )

    def losses(self, values: Mapping[str, float]) -> None:
        self._terms = terms_text(values)

    def epoch(self, row: Mapping[str, Any]) -> None:
        self._score = score_text(row)

    def stage(self, words: str) -> None:
        self._stage = words

    def _lines(self) -> Group:
        words = " · ".join(text for text in (self._stage, self._terms, self._score) if text)
        return Group(self._progress.get_renderable(), Text(f"  {words}", style="dim"))


class Lines:
    """A line after an epoch, at most every ten seconds, and after the last; one a minute in a long epoch."""

    def __init__(self, console: Console, label: str, steps: int, epochs: int, done: int) -> None:
        self._console, self._label, self._epochs = console, label, epochs
        self._steps, self._first, self._done = steps, done, done
        self._epoch, self._stage = 0, ""
        self._start = self._shown = time.monotonic()

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def step(self, done: int, epoch: int) -> None:
        self._done, self._epoch = done, epoch + 1

    def losses(self, values: Mapping[str, float]) -> None:
        if self._silent_for() >= SECONDS_OF_SILENCE:
            self._print(self._epoch, terms_text(values))

    def epoch(self, row: Mapping[str, Any]) -> None:
        if self._silent_for() >= SECONDS_BETWEEN_LINES or self._done >= self._steps:
            terms = {
                key.removeprefix("train/"): value for key, value in row.items() if key.startswith("train/")
            }
            self._print(row["epoch"], terms_text(terms), score_text(row))

    def stage(self, words: str) -> None:
        self._stage = words

    def _silent_for(self) -> float:
        return time.monotonic() - self._shown

    def _print(self, epoch: int, *rest: str) -> None:
        self._shown = time.monotonic()
        a_step = (self._shown - self._start) / max(1, self._done - self._first)
        left = f"{a_step * (self._steps - self._done):.0f} s left"
        words = [self._label, f"epoch {epoch}/{self._epochs}", self._stage, left, *rest]
        told = " · ".join(word for word in words if word)
        self._console.print(told, highlight=False, markup=False, soft_wrap=True)


class Silent:
    """For processes that are not the main one."""

    def __enter__(self) -> "Silent":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def step(self, done: int, epoch: int) -> None:
        """Says nothing."""

    def losses(self, values: Mapping[str, float]) -> None:
        """Says nothing."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Says nothing."""

    def stage(self, words: str) -> None:
        """Says nothing."""


def reporter(console: Console | None, label: str, steps: int, epochs: int, done: int) -> Reporter:
    """A live bar on a terminal, lines off one, silence without a console."""
    if console is None:
        return Silent()
    return (Live if console.is_terminal else Lines)(console, label, steps, epochs, done)


def terms_text(values: Mapping[str, float]) -> str:
    """``loss 1.234 soft 0.41 whole 0.0021``."""
    return " ".join(f"{name} {value:.3g}" for name, value in values.items())


def score_text(row: Mapping[str, Any]) -> str:
    """The validation figures of a row, if it has some."""
    shown = []
    for key, name in (("val/top1", "val top-1"), ("val_ema/top1", "EMA")):
        if key in row:
            shown.append(f"{name} {row[key]:.1f} %")
    if not shown and "val/loss" in row:
        shown.append(f"val loss {row['val/loss']:.4g}")
    return " · ".join(shown)
