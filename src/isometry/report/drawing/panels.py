"""Rows of metrics.jsonl -> the small multiples that are drawn: which key goes where, and which points."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from isometry.report import formats
from isometry.report.records.data import Row

SERIES_NAMES = {"train": "training", "val": "validation", "val_ema": "validation, averaged weights"}
TITLES = {
    "top1": "Top-1 accuracy, %",
    "top5": "Top-5 accuracy, %",
    "train/loss": "Training loss, all terms",
    "loss": "Validation loss",
    "lr": "Learning rate",
    "keep_rate": "Keep rate",
}
ALONE = ("lr", "keep_rate")
"""Keys that are no split's."""
LOG_RATIO = 20
"""Values of one panel that span more than this are drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Series:
    """One line: values measured at epochs; NaN where a value was recorded but was not finite."""

    name: str
    epochs: tuple[float, ...]
    values: tuple[float, ...]
    low: tuple[float, ...] = ()
    """Of the values' interval, where they are means."""
    high: tuple[float, ...] = ()
    place: int | None = None
    """That its colour goes by; its place in the panel if not given."""

    @property
    def last(self) -> tuple[float, float] | None:
        """(epoch, value) of the last finite point."""
        points = [pair for pair in zip(self.epochs, self.values, strict=True) if math.isfinite(pair[1])]
        return points[-1] if points else None

    @property
    def last_half(self) -> float | None:
        """Half the width of the interval there; None where there is none, or no width."""
        if not self.low or self.last is None:
            return None
        place = self.epochs.index(self.last[0])
        return (self.high[place] - self.low[place]) / 2 or None


@dataclass(frozen=True)
class Panel:
    """One small chart."""

    key: str
    title: str
    series: tuple[Series, ...]

    @property
    def places(self) -> list[int]:
        """Each line's, that its colour goes by."""
        return [index if line.place is None else line.place for index, line in enumerate(self.series)]

    @property
    def log(self) -> bool:
        """Whether the values span so much that a linear axis would hide the small ones."""
        loss = not self.key.startswith("top") and self.key not in ALONE
        least, most = min(self._finite), max(self._finite)
        return loss and least > 0 and most / least > LOG_RATIO

    @property
    def span(self) -> tuple[float, float]:
        """Least and largest value with a little room around them, for a logarithmic axis."""
        least, most = min(self._finite), max(self._finite)
        room = (most / least) ** 0.08
        return least / room, most * room

    @property
    def _finite(self) -> list[float]:
        return [value for line in self.series for value in line.values if math.isfinite(value)]

    @property
    def caption(self) -> str:
        """Says where values were not finite; empty where all were."""
        lost = sorted(
            {
                epoch
                for line in self.series
                for epoch, value in zip(line.epochs, line.values, strict=True)
                if not math.isfinite(value)
            }
        )
        if not lost:
            return ""
        named = ", ".join(f"{epoch:g}" for epoch in lost[:4]) + (", …" if len(lost) > 4 else "")
        return f"not finite in epoch{'s' if len(lost) > 1 else ''} {named}"


def panels(epochs: Sequence[Row]) -> list[Panel]:
    """All panels that have at least one finite value: accuracies first, then the whole training loss, its
    terms by name in the order of the file, validation loss, learning rate, keep rate."""
    keys = list(dict.fromkeys(key for row in epochs for key in row))
    groups: dict[str, list[str]] = {}
    for key in keys:
        if group := metric_of(key):
            groups.setdefault(group, []).append(key)
    found = []
    for group in sorted(groups, key=rank):
        lines = tuple(_series(epochs, key) for key in groups[group])
        lines = tuple(line for line in lines if line.last)
        if lines:
            found.append(Panel(group, title_of(group), lines))
    return found


def never_finite(epochs: Sequence[Row]) -> list[str]:
    """The keys that were recorded and never once finite: no panel can show them, so the page names them."""
    keys = dict.fromkeys(key for row in epochs for key in row if metric_of(key) and row[key] is not None)
    return [key for key in keys if not any(formats.is_number(row.get(key)) for row in epochs)]


def epoch_range(epochs: Sequence[Row]) -> tuple[float, float]:
    """First and last epoch: the one horizontal axis of all panels."""
    found = [_epoch(row, position) for position, row in enumerate(epochs)]
    return min(found), max(found)


def metric_of(key: str) -> str | None:
    """The panel that a key of metrics.jsonl is drawn in; None for one that is not drawn."""
    split, _, metric = key.rpartition("/")
    if not split:
        return key if key in ALONE else None
    # The terms of the training loss have scales of their own, so each has a panel of its own.
    return key if split == "train" and not metric.startswith("top") else metric


def rank(group: str) -> int:
    """Where a panel stands among the others."""
    ranks = {"top1": 0, "train/loss": 1, "top5": 3, "loss": 4, "lr": 6, "keep_rate": 7}
    return ranks.get(group, 2 if group.startswith("train/") else 5)


def title_of(group: str) -> str:
    """The heading of a panel."""
    name = group.removeprefix("train/")
    return TITLES.get(group, f"Term “{name}”" if group != name else name)


def _series(epochs: Sequence[Row], key: str) -> Series:
    # A key that is absent or None was not measured in that epoch: the line goes on. A value that is there and
    # is not finite is a fault of the run: the line breaks.
    points = [
        (_epoch(row, position), float(row[key]) if formats.is_number(row[key]) else math.nan)
        for position, row in enumerate(epochs)
        if row.get(key) is not None
    ]
    split = key.rpartition("/")[0]
    return Series(
        SERIES_NAMES.get(split, split or key), tuple(x for x, _ in points), tuple(y for _, y in points)
    )


def _epoch(row: Row, position: int) -> float:
    epoch = row.get("epoch")
    return float(epoch) if formats.is_number(epoch) else float(position)
