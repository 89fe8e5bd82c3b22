"""Spearman's rank correlation against scipy's, and where there is none."""

import warnings

import numpy as np
import pytest
from scipy.stats import spearmanr

from isometry.report.records.correlation import RESAMPLES, rank_correlation
from isometry.seeding import derive_seed

NOTHING = {"rho": None, "low": None, "high": None}


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("ties", [False, True])
def test_it_is_scipys(ties):
    random = np.random.default_rng(3)
    first = random.normal(size=20)
    second = first + random.normal(size=20)
    if ties:
        first, second = first.round(), second.round()
    found = rank_correlation(first.tolist(), second.tolist())
    assert found["n"] == 20
    assert found["rho"] == pytest.approx(spearmanr(first, second).statistic)


def test_the_interval_is_that_of_a_loop_over_resamples():
    first, second = [1.0, 2, 2, 4, 5, 6, 7], [1.0, 3, 2, 2, 6, 5, 9]
    found = rank_correlation(first, second)
    drawn = np.random.default_rng(derive_seed("rank correlation", 7)).integers(7, size=(RESAMPLES, 7))
    values = []
    for numbers in drawn:
        x, y = np.array(first)[numbers], np.array(second)[numbers]
        if len(set(x)) > 1 and len(set(y)) > 1:
            values.append(spearmanr(x, y).statistic)
    low, high = np.quantile(values, (0.025, 0.975))
    assert (found["low"], found["high"]) == (pytest.approx(low), pytest.approx(high))
    assert low < found["rho"] < high


@pytest.mark.parametrize(
    ("first", "second", "count"),
    [
        ([], [], 0),
        ([1.0, 2.0], [1.0, 2.0], 2),
        ([1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0], 4),
        ([1.0, 2.0, 3.0], [0.1, 0.1, 0.1], 3),
        ([1.0, 2.0, float("nan"), 4.0], [1.0, 2.0, 3.0, float("inf")], 2),
    ],
)
def test_no_correlation_is_told_of_few_pairs_or_constant_ones(first, second, count):
    assert rank_correlation(first, second) == {"n": count, **NOTHING}


def test_pairs_that_are_not_finite_are_left_out():
    found = rank_correlation([1.0, 2.0, float("nan"), 3.0], [3.0, 2.0, 9.0, 1.0])
    assert (found["n"], found["rho"]) == (3, -1)
    assert -1 <= found["low"] <= found["high"] <= 1


def test_pairs_are_pairs():
    with pytest.raises(ValueError, match="zip"):
        rank_correlation([1.0, 2.0, 3.0], [1.0, 2.0])
