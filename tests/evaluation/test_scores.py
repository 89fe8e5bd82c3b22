"""Intervals, calibration, classes and confusions: invariances, and loops from the definitions."""

import numpy as np
import pytest

from isometry.evaluation.scores import (
    BINS,
    Predictions,
    Z,
    calibration,
    confusion,
    frequent_confusions,
    per_class,
    scores,
    wilson,
)
from oracles.evaluation import calibration_error, wilson_by_bisection


def answers(images: int = 400, classes: int = 7, seed: int = 0) -> Predictions:
    """Random predictions, about half of them correct."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, images)
    predictions = np.where(random.random(images) < 0.5, labels, random.integers(0, classes, images))
    within_five = (predictions == labels) | (random.random(images) < 0.5)
    return Predictions(labels, predictions, random.uniform(1 / classes, 1, images), within_five, classes)


@pytest.mark.parametrize(
    ("hits", "of"), [(0, 1), (1, 1), (0, 20), (20, 20), (7, 20), (451, 500), (3, 50_000)]
)
def test_an_interval_solves_its_equation(hits, of):
    assert wilson(hits, of) == pytest.approx(wilson_by_bisection(hits, of, Z), abs=1e-12)


def test_intervals_contain_the_share_are_symmetric_and_narrow_with_more_images():
    for hits in range(11):
        low, high = wilson(hits, 10)
        assert 0 <= low <= hits / 10 <= high <= 1
        assert wilson(10 - hits, 10) == pytest.approx((1 - high, 1 - low))
        assert np.subtract(*wilson(10 * hits, 100)[::-1]) < high - low


@pytest.mark.parametrize(("hits", "of"), [(0, 0), (3, 2), (-1, 2)])
def test_an_invalid_share_is_refused(hits, of):
    with pytest.raises(ValueError, match=r"share|from 0 to 1|between 0 and 1"):
        wilson(hits, of)


@pytest.mark.parametrize("seed", range(5))
def test_calibration_error_follows_its_definition(seed):
    found = answers(seed=seed)
    confidences = np.where(
        np.arange(400) % 4 == 0, np.round(found.confidences * BINS) / BINS, found.confidences
    )
    error = calibration(confidences, found.right)["ece"]
    assert error == pytest.approx(calibration_error(confidences.tolist(), found.right.tolist(), BINS))


def test_calibration_of_a_perfect_and_an_overconfident_network():
    right = np.array([True] * 3 + [False])
    assert calibration(np.full(4, 0.75), right)["ece"] == pytest.approx(0)
    assert calibration(np.ones(4), right)["ece"] == pytest.approx(25)
    assert calibration(np.ones(4), np.ones(4, dtype=bool))["ece"] == pytest.approx(0)


def test_bins_include_their_upper_bound_and_every_image_once():
    rows = calibration(np.array([0.0, 1 / 15, 1.0, 0.5]), np.ones(4, dtype=bool))["bins"]
    assert len(rows) == BINS
    assert [row["images"] for row in rows] == [2, *[0] * 6, 1, *[0] * 6, 1]
    assert all(("accuracy" in row) == bool(row["images"]) for row in rows)


def test_order_of_images_does_not_matter():
    found, order = answers(), np.random.default_rng(1).permutation(400)
    columns = (found.labels, found.predictions, found.confidences, found.within_five)
    shuffled = Predictions(*(column[order] for column in columns), classes=found.classes)
    ours, theirs = (scores(each, [str(n) for n in range(7)]) for each in (found, shuffled))
    assert ours["confusion"] == theirs["confusion"]
    assert ours["calibration"]["ece"] == pytest.approx(theirs["calibration"]["ece"])


def test_confusions_add_up():
    found = answers()
    counts, said = confusion(found), scores(found, [str(number) for number in range(7)])
    assert counts.sum() == 400
    assert counts.trace() == found.right.sum()
    assert counts.sum(1).tolist() == np.bincount(found.labels, minlength=7).tolist()
    assert said["top1"]["value"] == pytest.approx(100 * counts.trace() / 400)
    weighted = sum(row["images"] * row["value"] for row in said["classes"]) / 400
    assert weighted == pytest.approx(said["top1"]["value"])
    assert said["top5"]["value"] >= said["top1"]["value"]


@pytest.mark.parametrize(("classes", "there"), [(2, False), (5, False), (6, True)])
def test_top5_needs_more_than_five_classes(classes, there):
    assert ("top5" in scores(answers(classes=classes), [str(n) for n in range(classes)])) == there


def test_a_class_without_images_has_no_accuracy():
    rows = per_class(np.array([[2, 1], [0, 0]]), ["cat", "dog"])
    assert rows[0]["value"] == pytest.approx(200 / 3)
    assert rows[1] == {"name": "dog", "images": 0}


def test_frequent_confusions_exclude_correct_and_absent_pairs():
    counts = np.array([[9, 2, 0], [5, 9, 0], [0, 1, 9]])
    assert frequent_confusions(counts, 10) == [(1, 0, 5), (0, 1, 2), (2, 1, 1)]
    assert frequent_confusions(counts, 1) == [(1, 0, 5)]
