"""Answers in pixels of the image itself."""

import pytest

from helpers.squares import SIZES, squares
from isometry.evaluation.dense.answers import answers_to


def evaluated(task, batch_size=2):
    network, batches, preprocess = squares(task, batch_size)
    answers = answers_to(network, batches, preprocess)
    assert network.training
    return answers.scores(), answers


def test_boxes_are_judged_in_pixels_of_the_image():
    scores, answers = evaluated("detect")
    assert scores["ap50"] == pytest.approx(100)
    assert scores["ap"] > 80
    assert scores["classes"][1] == {
        "name": "bright",
        "objects": 4,
        "value": scores["ap"],
        "ap50": scores["ap50"],
        "ar100": scores["ar100"],
    }
    assert [(each.index, each.score, each.objects) for each in answers.pictures] == [
        (index, 100.0, int(index < 4)) for index in range(5)
    ]
    assert answers.threshold == (1.0, 100.0)
    assert scores == evaluated("detect", 5)[0]


def test_masks_are_judged_in_pixels_of_the_image():
    scores, answers = evaluated("segment")
    pixels = sum(width * height for width, height in SIZES)
    assert sum(row["pixels"] for row in scores["classes"]) == pixels
    assert scores["miou"] > 85
    assert scores == evaluated("segment", 5)[0]
    assert [each.objects for each in answers.pictures] == [2, 2, 2, 2, 1]
    assert all(80 < each.score <= 100 for each in answers.pictures)
