"""The score from which on boxes are shown, compared with trying every score."""

import numpy as np
import pytest
import torch

from helpers.detections import random_detections, random_truth
from isometry.evaluation.dense.detection import judge
from isometry.evaluation.dense.score_threshold import best_threshold


def f1_at(detections, truths, least):
    judged = [judge(found, truth, least) for found, truth in zip(detections, truths, strict=True)]
    right = sum(each.verdicts.count("right") for each in judged)
    return 200 * right / sum(len(each.shown) + each.objects for each in judged)


@pytest.mark.parametrize("seed", range(3))
def test_no_other_score_gives_a_larger_f1(seed):
    generator = np.random.default_rng(seed)
    truths = [random_truth(generator, int(count)) for count in generator.integers(0, 6, 12)]
    # Which of a crowd's detections count is told apart in another test.
    truths = [{**truth, "crowd": torch.zeros_like(truth["crowd"])} for truth in truths]
    detections = [random_detections(generator, truth) for truth in truths]
    # Equal scores are among them.
    detections = [{**found, "scores": (10 * found["scores"]).round() / 10} for found in detections]
    scores = sorted({float(score) for found in detections for score in found["scores"]}, reverse=True)
    by_score = [f1_at(detections, truths, score) for score in scores]
    found = best_threshold(detections, truths, 4)
    assert found.least == scores[int(np.argmax(by_score))]
    assert found.f1 == pytest.approx(max(by_score))
    assert min(by_score) < max(by_score)


def boxes(*rows):
    """(x, label, score) each, of 10 pixels."""
    return {
        "boxes": torch.tensor([[x, 0, x + 10, 10] for x, *_ in rows], dtype=torch.float32).view(-1, 4),
        "labels": torch.tensor([label for _, label, _ in rows], dtype=torch.int64),
        "scores": torch.tensor([score for *_, score in rows], dtype=torch.float32),
    }


def truth_of(*rows):
    """(x, label, crowd) each."""
    truth = boxes(*rows)
    return {**truth, "crowd": truth["scores"] > 0}


def test_boxes_on_a_crowd_count_neither_way():
    truth = truth_of((0, 0, 0), (50, 0, 1))
    found = boxes((50, 0, 0.9), (0, 0, 0.25), (90, 0, 0.125))
    assert best_threshold([found], [truth], 1) == (0.25, 100.0)


def test_there_is_none_where_no_box_is_right():
    truth = truth_of((0, 0, 0))
    assert best_threshold([boxes((0, 1, 0.9))], [truth], 2) is None
    assert best_threshold([boxes()], [truth], 2) is None
    assert best_threshold([boxes((0, 0, 0.9))], [truth_of()], 1) is None
    assert best_threshold([], [], 1) is None
