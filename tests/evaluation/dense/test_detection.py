"""Average precision equals pycocotools'; right and wrong boxes of a picture, by hand."""

import numpy as np
import pytest
import torch

from helpers.detections import NAMES, by_pycocotools, random_detections, random_truth
from isometry.errors import UserError
from isometry.evaluation.dense import detection
from isometry.evaluation.dense.detection import average_precision, judge


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_that_of_pycocotools(seed):
    generator = np.random.default_rng(seed)
    # Pictures without objects, and pictures without detections, are among them.
    truths = [random_truth(generator, int(count)) for count in [0, 0, *generator.integers(1, 8, 30)]]
    detections = [random_detections(generator, truth) for truth in truths]
    empty = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "scores": torch.zeros(0),
    }
    detections[1], detections[5] = empty, empty
    found = average_precision(detections, truths, NAMES)
    stats, by_class = by_pycocotools(detections, truths)
    for key, wanted in zip(("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"), stats, strict=False):
        assert found[key] == (None if wanted < 0 else pytest.approx(100 * wanted, abs=1e-4)), key
    assert [row["name"] for row in found["classes"]] == NAMES
    assert found["ar100"] == pytest.approx(100 * stats[8], abs=1e-4)
    for row, wanted in zip(found["classes"], by_class, strict=True):
        for key, figure in zip(("value", "ap50", "ar100"), wanted, strict=True):
            assert row[key] == (None if figure < 0 else pytest.approx(100 * figure, abs=1e-4)), key
    assert found["images"] == 32
    assert [row["objects"] for row in found["classes"]] == [
        sum(int(((t["labels"] == k) & ~t["crowd"]).sum()) for t in truths) for k in range(4)
    ]
    assert 10 < found["ap"] < 90


def truth_of(*boxes):
    """(x, y, side, label, crowd) each."""
    rows = [[x, y, x + side, y + side] for x, y, side, _, _ in boxes]
    return {
        "boxes": torch.tensor(rows, dtype=torch.float32).view(-1, 4),
        "labels": torch.tensor([label for *_, label, _ in boxes], dtype=torch.int64),
        "crowd": torch.tensor([crowd for *_, crowd in boxes], dtype=torch.bool),
    }


def found_of(*boxes):
    """(x, y, side, label, score) each."""
    truth = truth_of(*boxes)
    return {**truth, "scores": torch.tensor([float(score) for *_, score in boxes])}


@pytest.mark.parametrize("intervals", [True, False])
def test_of_no_pictures_every_figure_is_unknown(intervals):
    none = average_precision([], [], ["cat"], intervals)
    truth = truth_of((0, 0, 5, 0, False)) | {"area": torch.tensor([25.0])}
    one = average_precision([found_of()], [truth], ["cat"], intervals)
    assert none.keys() == one.keys()
    assert none["classes"] == [{"name": "cat", "objects": 0, "value": None, "ap50": None, "ar100": None}]
    assert none["images"] == 0
    assert {none[key] for key in none.keys() - {"images", "classes"}} == {None}


def test_right_and_wrong_boxes():
    truth = truth_of(
        (0, 0, 10, 1, False), (20, 0, 10, 2, False), (50, 50, 30, 1, True), (80, 0, 10, 0, False)
    )
    found = found_of(
        (21, 0, 10, 2, 0.9),  # right
        (0, 1, 10, 3, 0.8),  # another class
        (20, 0, 10, 2, 0.7),  # the second on one object
        (55, 55, 6, 1, 0.95),  # on the crowd
        (0, 0, 10, 1, 0.4),  # not shown
        (60, 5, 8, 1, 0.6),  # nothing there
    )
    judged = judge(found, truth, 0.5)
    assert judged.shown == [0, 1, 2, 5]
    assert judged.verdicts == ["right", "wrong class", "no object", "no object"]
    assert judged.missed == [0, 3]
    assert judged.objects == 3
    assert judged.f1 == pytest.approx(100 * 2 * 1 / (4 + 3))
    # The box on the crowd is one of the three, and is left out again.
    assert judge(found, truth, None).shown == [0, 1]


def test_nothing_to_find_and_nothing_found_is_right():
    assert judge(found_of(), truth_of(), 0.5).f1 == 100
    assert judge(found_of((0, 0, 5, 1, 0.9)), truth_of(), 0.5).f1 == 0
    assert judge(found_of(), truth_of((0, 0, 5, 1, False)), None).missed == [0]


def test_without_the_extra_it_is_refused_in_a_line(monkeypatch):
    monkeypatch.setattr(detection, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"--task detect: faster_coco_eval is not installed.*isometry\[detect\]"
    ):
        detection.check_installed()
