"""Rows of metrics.jsonl as panels of curves: which key is drawn in which panel."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from isometry.report import formats
from isometry.report.records.data import Row

SERIES_NAMES = {"train": "training", "val": "validation", "val_ema": "validation, averaged weights"}
TITLES = {
    "top1": "Top-1 accuracy, %",
    "top1_by_class": "Mean of the classes' accuracies, %",
    "top5": "Top-5 accuracy, %",
    "ap": "Average precision (AP), %",
    "ap50": "AP50, %",
    "miou": "Mean IoU, %",
    "train/loss": "Training loss, all terms",
    "train/classification": "Focal loss",
    "train/bbox_regression": "GIoU loss",
    "train/bbox_ctrness": "Centre-ness loss",
    "loss": "Validation loss",
    "lr": "Learning rate",
    "keep_rate": "Keep rate",
}
WITHOUT_SPLIT = ("lr", "keep_rate")
"""Keys that belong to no split of the data."""
PERCENT = ("top", "ap", "miou")
"""How the names of metrics begin that are in percent."""
LOG_RATIO = 20
"""Values of one panel that span more than this are drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Series:
    """One curve: values at epochs; NaN where a value was recorded but was not finite. ``low`` and ``high`` are the ends
    of the values' intervals, where the values are means; ``colour`` is the place among the colours."""

    name: str
    epochs: tuple[float, ...]
    values: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    colour: int = 0

    @property
    def last(self) -> tuple[float, float] | None:
        """(epoch, value) of the last finite point."""
        points = [pair for pair in zip(self.epochs, self.values, strict=True) if math.isfinite(pair[1])]
        return points[-1] if points else None

    @property
    def last_text(self) -> str:
        """The last finite value, with the margin of its interval where it has one."""
        if self.last is None:
            return formats.MISSING
        place = self.epochs.index(self.last[0])
        margin = (self.high[place] - self.low[place]) / 2 if self.low else 0
        return formats.number(self.last[1]) + (f" ± {margin:.2g}" if margin > 0 else "")


@dataclass(frozen=True)
class Panel:
    """One chart: curves that share an axis."""

    metric: str
    title: str
    series: tuple[Series, ...]

    @property
    def log_span(self) -> tuple[float, float] | None:
        """Ends of a logarithmic axis, a little beyond the least and the largest value; None where a linear axis shows
        the small values too."""
        finite = [value for line in self.series for value in line.values if math.isfinite(value)]
        least, most = min(finite), max(finite)
        is_loss = not self.metric.startswith(PERCENT) and self.metric not in WITHOUT_SPLIT
        if not is_loss or least <= 0 or most / least <= LOG_RATIO:
            return None
        margin = (most / least) ** 0.08
        return least / margin, most * margin

    @property
    def note(self) -> str:
        """Epochs at which a value was not finite; empty where all were."""
        points = [point for line in self.series for point in zip(line.epochs, line.values, strict=True)]
        lost = sorted({epoch for epoch, value in points if not math.isfinite(value)})
        if not lost:
            return ""
        named = ", ".join(f"{epoch:g}" for epoch in lost[:4]) + (", …" if len(lost) > 4 else "")
        return f"not finite in epoch{'s' if len(lost) > 1 else ''} {named}"


def panels(epochs: Sequence[Row]) -> list[Panel]:
    """The panels of one run, a curve a key, without those that were never finite: accuracies first, then the training
    loss, its terms by name in the order of the file, validation loss, learning rate, keep rate."""
    by_metric: dict[str, list[Series]] = {}
    for metric, key in drawn_keys(epochs):
        values, split, lines = (
            values_by_epoch(epochs, key),
            key.rpartition("/")[0],
            by_metric.setdefault(metric, []),
        )
        name = SERIES_NAMES.get(split, split or key)
        line = Series(name, tuple(values), tuple(values.values()), colour=len(lines))
        if line.last:
            lines.append(line)
    return [
        Panel(metric, title_of(metric), tuple(lines) if len(lines) > 1 else (replace(lines[0], name=""),))
        for metric, lines in by_metric.items()
        if lines
    ]


def drawn_keys(rows: Iterable[Row]) -> list[tuple[str, str]]:
    """(panel, key) of the keys of metrics.jsonl that are drawn, in the order of the panels."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return sorted(
        ((panel, key) for key in keys if (panel := _panel_of(key))), key=lambda pair: _rank(pair[0])
    )


def never_finite(epochs: Sequence[Row]) -> list[str]:
    """Keys that were recorded and never finite: no panel can show them."""
    keys = dict.fromkeys(key for row in epochs for key in row if _panel_of(key) and row[key] is not None)
    return [key for key in keys if not any(formats.is_number(row.get(key)) for row in epochs)]


def epoch_range(epochs: Sequence[Row]) -> tuple[float, float]:
    """First and last epoch: the horizontal axis of all panels."""
    found = [_epoch(row, index) for index, row in enumerate(epochs)]
    return min(found), max(found)


def title_of(metric: str) -> str:
    """The heading of a panel."""
    name = metric.removeprefix("train/")
    return TITLES.get(metric, f"Term “{name}”" if metric != name else name)


def values_by_epoch(rows: Sequence[Row], key: str) -> dict[float, float]:
    """A key's values by epoch, NaN where the value is not finite. Epochs where it is absent or None are left out."""
    return {
        _epoch(row, index): float(row[key]) if formats.is_number(row[key]) else math.nan
        for index, row in enumerate(rows)
        if row.get(key) is not None
    }


def _panel_of(key: str) -> str | None:
    split, _, metric = key.rpartition("/")
    if not split:
        return key if key in WITHOUT_SPLIT else None
    # The terms of the training loss differ in scale, so each has a panel.
    return key if split == "train" and not metric.startswith("top") else metric


def _rank(metric: str) -> int:
    ranks = {
        "top1": 0,
        "top1_by_class": 0,
        "ap": 0,
        "ap50": 0,
        "miou": 0,
        "train/loss": 1,
        "top5": 3,
        "loss": 4,
        "lr": 6,
        "keep_rate": 7,
    }
    return ranks.get(metric, 2 if metric.startswith("train/") else 5)


def _epoch(row: Row, index: int) -> float:
    epoch = row.get("epoch")
    return float(epoch) if formats.is_number(epoch) else float(index)
