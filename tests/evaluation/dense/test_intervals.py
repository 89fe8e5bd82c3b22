"""Bootstrap intervals: of a mean near its normal approximation, of ratios by images, always the same."""

from itertools import product

import numpy as np
import pytest

from isometry.evaluation.dense.intervals import RESAMPLES, bootstrap, mean_share, pooled_share


def test_the_interval_of_a_mean_is_near_that_of_its_standard_error():
    shares = np.random.default_rng(0).uniform(size=400)
    row = mean_share(shares)
    error = 100 * shares.std(ddof=1) / 20
    assert row["value"] == pytest.approx(100 * shares.mean())
    assert row["low"] == pytest.approx(row["value"] - 1.96 * error, abs=0.25 * error)
    assert row["high"] == pytest.approx(row["value"] + 1.96 * error, abs=0.25 * error)
    assert mean_share(shares) == row


def test_it_covers_the_truth_as_often_as_it_says():
    random = np.random.default_rng(1)
    rows = [mean_share(random.uniform(size=60)) for _ in range(200)]
    covered = np.mean([row["low"] <= 50 <= row["high"] for row in rows])
    assert 0.88 < covered < 0.99


def test_shares_of_patches_weigh_images_by_their_patches():
    hits, trials = np.array([1, 30, 0, 0]), np.array([1, 100, 50, 0])
    row = pooled_share(hits, trials)
    assert row["value"] == pytest.approx(100 * 31 / 151)
    assert row["images"] == 3
    # Resampled by images: one of them holds most of the hits.
    assert row["low"] < 5
    assert row["high"] > 30


def test_it_is_the_quantiles_over_resamples_by_loops():
    values = np.array([0.0, 1.0, 5.0])
    found: list[float] = []
    low, high = bootstrap(values[:, None], lambda sums: found.append(sums[0] / 3) or sums[0] / 3)
    assert len(found) == RESAMPLES
    possible = {round(sum(drawn) / 3, 9) for drawn in product(values.tolist(), repeat=3)}
    assert set(np.round(found, 9)) <= possible
    assert (low, high) == (np.quantile(found, 0.025), np.quantile(found, 0.975))
