"""What the runs say of an ordering that the paper claims: the gain, paired by seed, with its 95 % interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

from isometry.report.records.intervals import interval, paired_gains
from reproduction.published import Measure, Ordering

Runs = Mapping[str, Mapping[str, Any]]
"""By name: ``top1``, percent on test, one a seed; ``curves``, percent on validation by epoch, one curve a seed."""

HOLDS, REVERSED, UNDECIDED = "holds", "reversed", "not decided"
DIFFERENT, CLOSE = "differ", "no difference shown"


@dataclass(frozen=True)
class Verdict:
    """The ordering, the paper's gain (points; None where it printed none) and ours.

    Attributes:
        low, high: 95 % interval of the mean gain; None with one seed.
        verdict: holds, if the interval is above 0; reversed, if it is below; else not decided. Of two that are said to
            be close: differ, if the interval does not contain 0; else no difference shown.
    """

    ordering: Ordering
    paper: float | None
    gain: float
    low: float | None
    high: float | None
    verdict: str

    @property
    def could_tell(self) -> bool | None:
        """Whether a gain of the paper's size would have put the interval clear of 0; None where there is none."""
        if self.paper is None or self.low is None or self.high is None:
            return None
        return abs(self.paper) > (self.high - self.low) / 2


def judge(ordering: Ordering, paper: float | None, runs: Runs) -> Verdict:
    """The verdict over the seeds of both runs, entry i of both from the same seed."""
    ahead, behind = (values(runs[name], ordering.measure) for name in (ordering.ahead, ordering.behind))
    gain, low, high = interval(paired_gains(ahead, behind))
    return Verdict(ordering, paper, gain, low, high, _verdict(low, high, ordering.close))


def values(run: Mapping[str, Any], measure: Measure) -> list[float]:
    """One figure a seed, more is better: top-1 on test; or the level or the steadiness of the curve."""
    if measure == "top1":
        return list(run["top1"])
    return [level(curve) if measure == "level" else -mean_fall(curve) for curve in run["curves"]]


def level(curve: Sequence[float]) -> float:
    """Mean of a curve over its epochs, percent."""
    return fmean(curve)


def mean_fall(curve: Sequence[float]) -> float:
    """Mean over neighbouring epochs of max(0, before − after), points: 0 for a curve that never falls.

    A rise, however steep, does not count, so a fast learner is not called restless.
    """
    falls = [max(0.0, before - after) for before, after in pairwise(curve)]
    return fmean(falls) if falls else 0.0


def _verdict(low: float | None, high: float | None, close: bool) -> str:
    if low is None or high is None or low <= 0 <= high:
        return CLOSE if close else UNDECIDED
    if close:
        return DIFFERENT
    return HOLDS if low > 0 else REVERSED
