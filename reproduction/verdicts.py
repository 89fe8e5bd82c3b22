"""Tests the orderings claimed by the paper: the gain, paired by seed, with its 95 % interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

from isometry.report.records.intervals import interval, paired_gains
from reproduction.published import Measure, Ordering

Runs = Mapping[str, Mapping[str, Any]]
"""By name: ``top1`` on test and ``curves`` on validation by epoch, in percent, one entry per seed."""

HOLDS, REVERSED, UNDECIDED = "holds", "reversed", "not decided"
DIFFERENT, CLOSE = "differ", "no difference shown"


@dataclass(frozen=True)
class Verdict:
    """The result for one ordering.

    Attributes:
        ordering: the claim.
        paper: the paper's gain in points; None where it prints none.
        gain: our mean gain, in the unit of the measure.
        low, high: 95 % interval of the mean gain; None with one seed.
        verdict: holds, if the interval is above 0; reversed, if it is below; otherwise not decided. For a pair that
            the paper calls close: differ, if the interval does not contain 0; otherwise no difference shown.
    """

    ordering: Ordering
    paper: float | None
    gain: float
    low: float | None
    high: float | None
    verdict: str

    @property
    def detectable(self) -> bool | None:
        """Whether an interval of this width around the paper's gain excludes 0; None without a gain or interval."""
        if self.paper is None or self.low is None or self.high is None:
            return None
        return abs(self.paper) > (self.high - self.low) / 2


def judge(ordering: Ordering, paper: float | None, runs: Runs) -> Verdict:
    """The verdict over all seeds; entry i of both runs is from the same seed."""
    ahead, behind = (values(runs[name], ordering.measure) for name in (ordering.ahead, ordering.behind))
    gain, low, high = interval(paired_gains(ahead, behind))
    return Verdict(ordering, paper, gain, low, high, _verdict(low, high, ordering.close))


def values(run: Mapping[str, Any], measure: Measure) -> list[float]:
    """One value per seed, higher is better: test top-1, or the level or steadiness of the validation curve."""
    if measure == "top1":
        return list(run["top1"])
    return [level(curve) if measure == "level" else -mean_drop(curve) for curve in run["curves"]]


def level(curve: Sequence[float]) -> float:
    """Mean of a curve over its epochs, in percent."""
    return fmean(curve)


def mean_drop(curve: Sequence[float]) -> float:
    """Mean of max(0, before − after) over consecutive epochs, in points: 0 for a curve that never falls.

    Rises count as 0, so a steep curve is not less steady than a flat one.
    """
    drops = [max(0.0, before - after) for before, after in pairwise(curve)]
    return fmean(drops) if drops else 0.0


def _verdict(low: float | None, high: float | None, close: bool) -> str:
    if low is None or high is None or low <= 0 <= high:
        return CLOSE if close else UNDECIDED
    if close:
        return DIFFERENT
    return HOLDS if low > 0 else REVERSED
