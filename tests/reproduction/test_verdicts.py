"""Verdicts: values by hand, invariances, one seed; measures of curves."""

import numpy as np
import pytest
from reproduction.published import Ordering
from reproduction.verdicts import (
    CLOSE,
    DIFFERENT,
    HOLDS,
    REVERSED,
    UNDECIDED,
    judge,
    level,
    mean_drop,
    values,
)
from scipy import stats

CLEAR = Ordering("a", "b", "somewhere")


def runs(ahead: list[float], behind: list[float]) -> dict:
    return {"a": {"top1": ahead}, "b": {"top1": behind}}


def test_the_gain_is_paired_by_seed():
    """Differences between seeds that both rows share do not widen the interval."""
    found = judge(CLEAR, 0.5, runs([51, 72.1, 90.9], [50, 71, 90]))
    low, high = stats.t.interval(0.95, 2, 1.0, stats.sem([1, 1.1, 0.9]))
    assert (found.gain, found.low, found.high) == pytest.approx((1.0, low, high))
    assert found.verdict == HOLDS


@pytest.mark.parametrize(
    ("ahead", "behind", "verdict"),
    [
        ([92, 93, 94], [90, 91, 92.1], HOLDS),
        ([90, 91, 92.1], [92, 93, 94], REVERSED),
        ([92, 90, 94], [90, 92, 93], UNDECIDED),
        ([92], [80], UNDECIDED),
        ([92, 92], [92, 92], UNDECIDED),
    ],
)
def test_the_verdict_follows_from_the_interval(ahead, behind, verdict):
    assert judge(CLEAR, 1.0, runs(ahead, behind)).verdict == verdict


def test_a_shift_of_both_keeps_the_verdict_and_a_swap_reverses_it():
    random = np.random.default_rng(0)
    for _ in range(50):
        ahead, behind = random.normal(90, 1, (2, 5))
        ahead = ahead + random.normal()
        found = judge(CLEAR, 1.0, runs(list(ahead), list(behind)))
        moved = judge(CLEAR, 1.0, runs(list(ahead + 7), list(behind + 7)))
        swapped = judge(CLEAR, 1.0, runs(list(behind), list(ahead)))
        assert moved.verdict == found.verdict
        assert swapped.gain == pytest.approx(-found.gain)
        assert swapped.verdict == {HOLDS: REVERSED, REVERSED: HOLDS, UNDECIDED: UNDECIDED}[found.verdict]


def test_a_pair_called_close_differs_or_not():
    close = Ordering("a", "b", "somewhere", close=True)
    assert judge(close, -0.02, runs([92, 93, 94], [90, 91, 92.1])).verdict == DIFFERENT
    assert judge(close, -0.02, runs([90, 91, 92.1], [92, 93, 94])).verdict == DIFFERENT
    assert judge(close, -0.02, runs([92, 90, 94], [90, 92, 93])).verdict == CLOSE


def test_a_gain_of_the_papers_size_is_detectable_if_larger_than_half_of_the_interval():
    sample = runs([92, 90, 94], [90, 92, 93])
    found = judge(CLEAR, 0.1, sample)
    half = (found.high - found.low) / 2
    assert found.detectable is False
    assert judge(CLEAR, 1.01 * half, sample).detectable is True
    assert judge(CLEAR, None, sample).detectable is None
    assert judge(CLEAR, 0.1, runs([92], [90])).detectable is None


def test_a_rising_curve_has_no_drop():
    assert mean_drop([10, 40, 90, 90, 91]) == 0
    assert mean_drop([50]) == 0


def test_the_mean_drop_by_hand_and_its_invariances():
    curve = [50.0, 60.0, 55.0, 70.0, 69.0]
    assert mean_drop(curve) == pytest.approx((5 + 1) / 4)
    assert mean_drop([value + 10 for value in curve]) == pytest.approx(mean_drop(curve))
    assert mean_drop([2 * value for value in curve]) == pytest.approx(2 * mean_drop(curve))
    steeper = [value + 5 * place for place, value in enumerate(curve)]
    assert mean_drop(steeper) <= mean_drop(curve)


def test_measures_have_one_value_per_seed_and_higher_is_better():
    run = {"top1": [90.0, 91.0], "curves": [[50.0, 60.0, 55.0], [50.0, 60.0, 70.0]]}
    assert values(run, "top1") == [90.0, 91.0]
    assert values(run, "level") == [level(curve) for curve in run["curves"]] == [55.0, 60.0]
    assert values(run, "steadiness") == [-2.5, 0.0]
