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
    (Student 1908, "The probable error of a mean").

    Returns:
        (mean, low, high); low and high are None for a single value.

    Raises:
        ValueError: no value at all.
    """
    if not values:
        raise ValueError("no values: an interval needs at least one")
    mean = fmean(values)
    if len(values) == 1:
        return mean, None, None
    quantile = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
    half = quantile * _deviation(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def paired_gains(values: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """Each seed's gain, values[i] − baseline[i]: entry i of both must come from the same seed.

    What a seed does to both (its split, its order of images) cancels, so fewer seeds distinguish a paired gain from
    zero than two separate means.

    Raises:
        ValueError: the two differ in length, so they cannot be paired.
    """
    _check_pairs(values, baseline)
    return [value - base for value, base in zip(values, baseline, strict=True)]


def comparison_row(
    name: str, values: Sequence[float], baseline: Sequence[float] | None = None
) -> dict[str, Any]:
    """One row for `comparison_grid` and `comparison_picture`.

    Args:
        name: the variant.
        values: top-1 in percent, one a seed.
        baseline: the same seeds of the baseline; None for the baseline itself, whose row has no gains.
    """
    mean, low, high = interval(values)
    row: dict[str, Any] = {"name": name, "values": list(values), "mean": mean, "low": low, "high": high}
    if baseline is None:
        return row | {"gains": None, "gain_mean": None, "gain_low": None, "gain_high": None}
    gains = paired_gains(values, baseline)
    gain_mean, gain_low, gain_high = interval(gains)
    return row | {"gains": gains, "gain_mean": gain_mean, "gain_low": gain_low, "gain_high": gain_high}


def comparison_times(seconds: Sequence[float], baseline: Sequence[float] | None = None) -> dict[str, Any]:
    """More keys for a row of `comparison_row` where training was timed: "seconds", "seconds_mean", and for all but the
    baseline "speed_ups", whose entry i is baseline[i] / seconds[i], and their mean and interval.

    Args:
        seconds: measured training time, > 0, one a seed.
        baseline: the same seeds' of the baseline; None for the baseline itself.

    Raises:
        ValueError: the two differ in length, so they cannot be paired.
    """
    row: dict[str, Any] = {"seconds": list(seconds), "seconds_mean": fmean(seconds)}
    if baseline is None:
        return row | {"speed_ups": None, "speed_up_mean": None, "speed_up_low": None, "speed_up_high": None}
    _check_pairs(seconds, baseline)
    speed_ups = [base / spent for spent, base in zip(seconds, baseline, strict=True)]
    mean, low, high = interval(speed_ups)
    return row | {"speed_ups": speed_ups, "speed_up_mean": mean, "speed_up_low": low, "speed_up_high": high}


def mean_row(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    """The row of the table of models for a variant, from the rows of its seeds: means of the numbers that all have, and
    the first one's other values."""
    means = {
        key: fmean(row[key] for row in rows)
        for key in rows[0]
        if all(formats.is_number(row.get(key)) for row in rows)
    }
    return {**rows[0], **means, "model": name}


def _check_pairs(values: Sequence[float], baseline: Sequence[float]) -> None:
    if len(values) != len(baseline):
        raise ValueError(f"{len(values)} values cannot be paired with {len(baseline)} of the baseline")


def _deviation(values: Sequence[float]) -> float:
    # statistics.stdev works in exact fractions, which a diverged seed's NaN or infinity does not have.
    return stdev(values) if all(map(math.isfinite, values)) else math.nan
