import math

import numpy as np
import pytest
from scipy import stats

from isometry.report.records.intervals import (
    comparison_classes,
    comparison_row,
    comparison_times,
    interval,
    mean_row,
    paired_gains,
)


def test_interval_against_a_value_by_hand():
    # Mean 92, s = √10, s/√5 = √2, and t(0.975, 4) = 2.7764 from any table.
    mean, low, high = interval([88.0, 90.0, 92.0, 94.0, 96.0])
    assert mean == 92.0
    assert high - mean == pytest.approx(2.7764 * math.sqrt(2), abs=1e-4)
    assert mean - low == pytest.approx(high - mean)


def test_interval_against_scipy():
    values = [91.2, 93.9, 92.4]
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert interval(values) == pytest.approx((np.mean(values), low, high))


def test_one_value_has_no_interval():
    assert interval([91.0]) == (91.0, None, None)


def test_equal_values_have_a_narrow_interval():
    assert interval([91.0, 91.0]) == (91.0, 91.0, 91.0)


def test_an_interval_covers_the_truth_19_times_in_20():
    draws = np.random.default_rng(0).normal(92.0, 1.5, (2000, 5))
    covered = [low <= 92.0 <= high for _, low, high in map(interval, draws.tolist())]
    assert 0.935 < np.mean(covered) < 0.965


def test_a_diverged_seed_is_not_hidden():
    mean, low, high = interval([91.0, math.nan, 92.0])
    assert math.isnan(mean)
    assert math.isnan(low)
    assert math.isnan(high)


def test_no_values_are_refused():
    with pytest.raises(ValueError, match="no values"):
        interval([])


def test_gains_are_paired_by_seed():
    # Seeds differ by far more than the two variants do: paired, the gain is certain, unpaired lost.
    baseline = [80.0, 90.0, 70.0]
    gains = paired_gains([81.0, 91.2, 70.8], baseline)
    assert gains == pytest.approx([1.0, 1.2, 0.8])
    _, low, _ = interval(gains)
    assert low > 0


def test_gains_need_the_same_seeds():
    with pytest.raises(ValueError, match="longer"):
        paired_gains([1.0, 2.0], [1.0, 2.0, 3.0])


def test_comparison_rows():
    baseline = [80.0, 90.0]
    row = comparison_row("whole", [81.0, 92.0], baseline)
    assert row["gains"] == [1.0, 2.0]
    assert row["gain_mean"] == 1.5
    assert row["gain_low"] < 1.5 < row["gain_high"]
    assert comparison_row("soft", baseline)["gains"] is None


def test_speed_ups_are_paired_by_seed():
    # The machine was twice as slow during the second seed: the ratio does not move, the times do.
    row = comparison_times([40.0, 80.0], [50.0, 100.0])
    assert row["seconds_mean"] == 60.0
    assert row["speed_ups"] == [1.25, 1.25]
    assert (row["speed_up_low"], row["speed_up_mean"], row["speed_up_high"]) == (1.25, 1.25, 1.25)


def test_a_variant_is_as_fast_as_itself_and_the_other_way_round_is_the_inverse():
    mine, its = [3.0, 4.0], [5.0, 3.0]
    assert comparison_times(mine, mine)["speed_ups"] == [1.0, 1.0]
    there, back = comparison_times(mine, its)["speed_ups"], comparison_times(its, mine)["speed_ups"]
    assert [a * b for a, b in zip(there, back, strict=True)] == pytest.approx([1.0, 1.0])


def test_times_of_one_seed_and_of_the_baseline():
    one = comparison_times([40.0], [50.0])
    assert (one["speed_up_mean"], one["speed_up_low"], one["speed_up_high"]) == (1.25, None, None)
    assert comparison_times([40.0])["speed_ups"] is None


def test_speed_ups_need_the_same_seeds():
    with pytest.raises(ValueError, match="longer"):
        comparison_times([1.0], [1.0, 2.0])


def test_the_mean_of_the_classes_is_one_of_all_seeds_or_none():
    both = [{"top1": 90.0, "top1_by_class": 50.0}, {"top1": 91.0, "top1_by_class": 61.0}]
    assert comparison_classes(both) == {"by_class_mean": 55.5}
    assert mean_row("a", both) == {"top1": 90.5, "top1_by_class": 55.5, "model": "a"}
    some = [both[0], {"top1": 91.0}]
    assert comparison_classes(some) == comparison_classes([]) == {}
    assert mean_row("a", some) == {"top1": 90.5, "model": "a"}


def test_intervals_over_pictures_are_those_of_one_run_alone():
    rows = [
        {"model": "m", "ap": 40.0, "ap_low": 38.0, "ap_high": 42.0},
        {"model": "m", "ap": 50.0, "ap_low": 48.0},
    ]
    assert mean_row("soft", rows) == {"model": "soft", "ap": 45.0}
    assert mean_row("soft", rows[:1]) == {**rows[0], "model": "soft"}
