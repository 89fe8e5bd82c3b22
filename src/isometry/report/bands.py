"""Curves of several groups of runs: by epoch the mean over a group's seeds, and its 95 % interval."""

import math
from collections.abc import Sequence

from isometry.report import formats
from isometry.report.data import Row
from isometry.report.groups import Group
from isometry.report.panels import Panel, Series, metric_of, rank, title_of
from isometry.report.summary import interval

OF = {"val_ema": ", averaged weights", "train": ", training"}
"""What a heading says of a key's part of the data, where it is not that of the key itself."""


def compared_panels(groups: Sequence[Group]) -> list[Panel]:
    """A panel for each key of metrics.jsonl that is drawn, a line a group; in the order of a single run's panels."""
    keys = dict.fromkeys(
        key for group in groups for run in group.runs for row in run.data.epochs for key in row
    )
    found = []
    for key in sorted((key for key in keys if metric_of(key)), key=lambda key: rank(metric_of(key) or "")):
        lines = tuple(mean_series(group, key, place) for place, group in enumerate(groups))
        lines = tuple(line for line in lines if line.last)
        if lines:
            metric = metric_of(key) or ""
            of = "" if metric == key else OF.get(key.rpartition("/")[0], "")
            found.append(Panel(metric, title_of(metric) + of, lines))
    return found


def mean_series(group: Group, key: str, place: int = 0) -> Series:
    """The group's line: mean ± t(0.975, n − 1)·s/√n over its n runs (see `isometry.report.interval`), at the
    epochs that all of them have behind them; NaN where a run's value was not finite. A single run has no interval."""
    found = [values_by_epoch(run.data.epochs, key) for run in group.runs]
    epochs = sorted(set.intersection(*map(set, found)))
    spreads = [interval([values[epoch] for values in found]) for epoch in epochs]
    means = tuple(mean for mean, _, _ in spreads)
    if len(found) == 1:
        return Series(group.name, tuple(epochs), means, place=place)
    low = tuple(math.nan if low is None else low for _, low, _ in spreads)
    high = tuple(math.nan if high is None else high for _, _, high in spreads)
    return Series(group.name, tuple(epochs), means, low, high, place)


def values_by_epoch(rows: Sequence[Row], key: str) -> dict[float, float]:
    """A key's values by epoch, NaN for one that is there and not finite."""
    return {
        float(row["epoch"]): float(row[key]) if formats.is_number(row[key]) else math.nan
        for row in rows
        if row.get(key) is not None and formats.is_number(row.get("epoch"))
    }
