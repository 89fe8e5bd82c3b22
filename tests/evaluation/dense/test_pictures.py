"""The report's pictures of answers: boxes where they lie in the input, and what is counted beside them."""

from typing import Any

import pytest

from helpers.squares import SIZES, Squares, squares
from isometry.data.dense.annotations import Boxes
from isometry.data.dense.box_files import BoxFiles
from isometry.data.dense.summary import class_counts
from isometry.evaluation.dense.answers import answers_to
from isometry.evaluation.dense.examples import read_examples
from isometry.evaluation.dense.pictures import task_data

TRAIN = BoxFiles(
    [
        ("a.png", Boxes.of([[0, 0, 9, 9], [1, 1, 5, 5], [2, 2, 8, 8]], [1, 0, 1], [False, False, True])),
        ("b.png", Boxes.of([], [])),
        ("c.png", Boxes.of([[0, 0, 9, 9]], [1])),
    ]
)


def drawn(task):
    network, loader, preprocess = squares(task)
    answers = answers_to(network, loader, preprocess)
    examples = read_examples(network, loader, preprocess, answers)
    train: Any = TRAIN
    return task_data(answers, answers.scores(), "val", examples, Squares(task).where, train)


def test_boxes_of_each_class_are_counted_without_crowds():
    train: Any = TRAIN
    assert class_counts(train) == ({0: 1, 1: 2}, 0)


def test_boxes_are_drawn_where_they_lie_in_the_input():
    data = drawn("detect")
    (picture,) = (each for each in data.pictures if each.name == "square 0")
    # 64 by 32 pixels are scaled by a half, and in the middle of 32 by 32.
    assert SIZES[0] == (64, 32)
    assert picture.truth[0].corners == (8, 12, 16, 16)
    assert picture.answer[0].corners == pytest.approx((8, 12, 16, 16), abs=1)
    assert (picture.answer[0].text, picture.answer[0].verdict) == ("bright 100 %", "right")
    assert (data.least_score, data.f1, data.zeros) == (100.0, 100.0, 0)
    assert [row["train"] for row in data.classes] == [1, 2]


def test_masks_have_neither_scores_nor_training_boxes():
    data = drawn("segment")
    assert data.f1 is None
    assert "train" not in data.classes[0]
    assert all(each.truth_mask is not None and each.answer_mask is not None for each in data.pictures)
