"""Verdicts against values by hand and laws: shifts, swaps, one seed; the measures of curves."""

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
    mean_fall,
    values,
)
from scipy import stats

CLEAR = Ordering("a", "b", "somewhere")


def runs(ahead: list[float], behind: list[float]) -> dict:
    return {"a": {"top1": ahead}, "b": {"top1": behind}}


def test_the_gain_is_paired_by_seed():
    """Seeds that move both rows by tens of points leave the gain as clear as it is."""
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
def test_the_verdict_is_where_the_interval_lies(ahead, behind, verdict):
    assert judge(CLEAR, 1.0, runs(ahead, behind)).verdict == verdict


def test_a_shift_of_both_changes_no_verdict_and_a_swap_turns_it():
    random = np.random.default_rng(0)
    for _ in range(50):
        ahead, behind = random.normal(90, 1, (2, 5))
        ahead = ahead + random.normal()
        found = judge(CLEAR, 1.0, runs(list(ahead), list(behind)))
        moved = judge(CLEAR, 1.0, runs(list(ahead + 7), list(behind + 7)))
        turned = judge(CLEAR, 1.0, runs(list(behind), list(ahead)))
        assert moved.verdict == found.verdict
        assert turned.gain == pytest.approx(-found.gain)
        assert turned.verdict == {HOLDS: REVERSED, REVERSED: HOLDS, UNDECIDED: UNDECIDED}[found.verdict]


def test_two_that_are_called_close_differ_or_not():
    close = Ordering("a", "b", "somewhere", close=True)
    assert judge(close, -0.02, runs([92, 93, 94], [90, 91, 92.1])).verdict == DIFFERENT
    assert judge(close, -0.02, runs([90, 91, 92.1], [92, 93, 94])).verdict == DIFFERENT
    assert judge(close, -0.02, runs([92, 90, 94], [90, 92, 93])).verdict == CLOSE


def test_a_gain_of_the_papers_size_shows_if_it_is_wider_than_half_of_the_interval():
    sample = runs([92, 90, 94], [90, 92, 93])
    found = judge(CLEAR, 0.1, sample)
    half = (found.high - found.low) / 2
    assert found.could_tell is False
    assert judge(CLEAR, 1.01 * half, sample).could_tell is True
    assert judge(CLEAR, None, sample).could_tell is None
    assert judge(CLEAR, 0.1, runs([92], [90])).could_tell is None


def test_a_curve_that_only_rises_never_falls():
    assert mean_fall([10, 40, 90, 90, 91]) == 0
    assert mean_fall([50]) == 0


def test_the_mean_fall_by_hand_and_its_laws():
    curve = [50.0, 60.0, 55.0, 70.0, 69.0]
    assert mean_fall(curve) == pytest.approx((5 + 1) / 4)
    assert mean_fall([value + 10 for value in curve]) == pytest.approx(mean_fall(curve))
    assert mean_fall([2 * value for value in curve]) == pytest.approx(2 * mean_fall(curve))
    steeper = [value + 5 * place for place, value in enumerate(curve)]
    assert mean_fall(steeper) <= mean_fall(curve)


def test_measures_of_curves_are_one_figure_a_seed_and_more_is_better():
    run = {"top1": [90.0, 91.0], "curves": [[50.0, 60.0, 55.0], [50.0, 60.0, 70.0]]}
    assert values(run, "top1") == [90.0, 91.0]
    assert values(run, "level") == [level(curve) for curve in run["curves"]] == [55.0, 60.0]
    assert values(run, "steadiness") == [-2.5, 0.0]
