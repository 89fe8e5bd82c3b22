"""Statistics over seeds: the mean, its 95 % interval, and gains paired by seed."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from scipy.special import stdtrit

from isometry.report import formats
from isometry.report.records.data import Row

CONFIDENCE = 0.95


def interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """The mean and its 95 % interval, mean ± t(0.975, n − 1)·s/√n, with s the sample standard deviation
    (Student 1908, "The probable error of a mean"), as (mean, low, high); low and high are None for a single value.

    Raises:
        ValueError: no value at all.
    """
    if not values:
        raise ValueError("no values: an interval needs at least one")
    mean, count = fmean(values), len(values)
    if count == 1:
        return mean, None, None
    # statistics.stdev works in exact fractions, which a diverged seed's NaN or infinity does not have.
    deviation = stdev(values) if all(map(math.isfinite, values)) else math.nan
    half = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * deviation / math.sqrt(count)
    return mean, mean - half, mean + half


def paired_gains(values: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """Each seed's gain, values[i] − baseline[i]: entry i of both must come from the same seed.

    What a seed does to both (its split, its order of images) cancels, so fewer seeds distinguish a paired gain from
    zero than two separate means.

    Raises:
        ValueError: the two differ in length.
    """
    return [value - base for value, base in zip(values, baseline, strict=True)]


def comparison_row(
    name: str, values: Sequence[float], baseline: Sequence[float] | None = None
) -> dict[str, Any]:
    """The row of a variant for `comparison_grid` and `comparison_picture`: its top-1 in percent, one a seed, and
    its gains over the same seeds of ``baseline``, which is None for the baseline itself."""
    mean, low, high = interval(values)
    row = {"name": name, "values": list(values), "mean": mean, "low": low, "high": high}
    return row | _paired("gain", None if baseline is None else paired_gains(values, baseline))


def gains_over_untrained(values: Sequence[float], untrained: Sequence[float] | None) -> dict[str, Any]:
    """More keys for a row of `comparison_row` where a variant is not trained: "untrained_gains", over the same seeds of
    it, and their mean and interval; ``untrained`` is None for the variant itself.

    Raises:
        ValueError: the two differ in length.
    """
    return _paired("untrained_gain", None if untrained is None else paired_gains(values, untrained))


def comparison_times(seconds: Sequence[float], baseline: Sequence[float] | None = None) -> dict[str, Any]:
    """More keys for a row of `comparison_row` where training was timed: "seconds", "seconds_mean", and for all but the
    baseline "speed_ups", whose entry i is baseline[i] / seconds[i], and their mean and interval.

    Raises:
        ValueError: the two differ in length.
    """
    row = {"seconds": list(seconds), "seconds_mean": fmean(seconds)}
    pairs = None if baseline is None else zip(seconds, baseline, strict=True)
    return row | _paired("speed_up", None if pairs is None else [base / spent for spent, base in pairs])


def comparison_classes(rows: Sequence[Row]) -> dict[str, float]:
    """One more key for a row of `comparison_row`: "by_class_mean", the mean over seeds, whose rows are given, of the
    mean of the classes' accuracies; no key where some lack it."""
    found = [row["top1_by_class"] for row in rows if formats.is_number(row.get("top1_by_class"))]
    return {"by_class_mean": fmean(found)} if found and len(found) == len(rows) else {}


def mean_row(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    """The row of the table of models for a variant, from the rows of its seeds: means of the numbers that all have, and
    the first one's other values. A mean of the classes' accuracies that some lack is left out, and so is an interval
    over pictures, which a mean of several runs does not have."""
    if len(rows) > 1:
        rows = [{key: row[key] for key in row if not key.endswith(("_low", "_high"))} for row in rows]
    means = {
        key: fmean(row[key] for row in rows)
        for key in rows[0]
        if all(formats.is_number(row.get(key)) for row in rows)
    }
    others = {key: value for key, value in rows[0].items() if key != "top1_by_class"}
    return {**others, **means, "model": name}


def _paired(name: str, values: list[float] | None) -> dict[str, Any]:
    mean, low, high = (None, None, None) if values is None else interval(values)
    return {f"{name}s": values, f"{name}_mean": mean, f"{name}_low": low, f"{name}_high": high}
