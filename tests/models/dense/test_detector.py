"""Detectors: boxes of raw answers and of NMS, what they learn from, the same bits for the same seed."""

import pytest
import torch

from helpers.dense_networks import BACKBONES, CLASSES, dense_network, images_of, targets_of
from isometry.models.dense.detector import MOST_BOXES, NMS_IOU, SCORE_THRESHOLD, cells_of

NAMES = list(BACKBONES)


def overlap(a, b):
    """Intersection over union, from the definition."""
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - wide * high
    return wide * high / area if area else 0.0


def slow_detections(boxes, scores):
    """Threshold, then NMS of each class, one box after another: [(score, label, box)] by falling score."""
    kept = []
    for label in range(scores.shape[1]):
        found = [(float(scores[i, label]), boxes[i].tolist()) for i in range(len(boxes))]
        chosen = []
        for score, box in sorted((pair for pair in found if pair[0] > SCORE_THRESHOLD), reverse=True):
            if all(overlap(box, other) <= NMS_IOU for _, other in chosen):
                chosen.append((score, box))
        kept += [(score, label, box) for score, box in chosen]
    return sorted(kept, reverse=True)[:MOST_BOXES]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 3])
@torch.no_grad()
def test_detections_are_the_raw_boxes_after_threshold_and_nms(name, channels):
    network = dense_network("detect", name, channels=channels)
    images = images_of(2, channels)
    boxes_BA4, scores_BAK = network.raw(images)
    assert scores_BAK.shape == (*boxes_BA4.shape[:2], len(CLASSES))
    for found, boxes, scores in zip(network(images), boxes_BA4, scores_BAK, strict=True):
        wanted = slow_detections(boxes, scores)
        assert len(wanted) > 5
        torch.testing.assert_close(found["scores"], torch.tensor([score for score, _, _ in wanted]))
        assert found["labels"].tolist() == [label for _, label, _ in wanted]
        torch.testing.assert_close(found["boxes"], torch.tensor([box for _, _, box in wanted]))


@torch.no_grad()
def test_boxes_lie_inside_the_image_and_scores_between_0_and_1():
    boxes_BA4, scores_BAK = dense_network("detect").raw(images_of(3))
    assert boxes_BA4.min() >= 0
    assert boxes_BA4.max() <= 96
    assert (boxes_BA4[..., :2] <= boxes_BA4[..., 2:]).all()
    assert 0 < scores_BAK.min() < scores_BAK.max() < 1


def test_cells_tile_the_image_row_by_row():
    cells = cells_of(torch.zeros(1, 1, 3, 4), (30, 80))
    assert cells[0].tolist() == [0, 0, 20, 10]
    assert cells[1].tolist() == [20, 0, 40, 10]
    assert cells[-1].tolist() == [60, 20, 80, 30]
    assert ((cells[:, 2:] - cells[:, :2]).prod(1)).sum() == 30 * 80


def losses(network, images, targets, seed=0):
    torch.manual_seed(seed)
    return network.train()(images, targets)


@pytest.mark.parametrize("side", [6, 10, 17, 30, 33, 50, 64, 90])
def test_boxes_of_every_size_have_cells_to_learn_from(side):
    """Wherever the box lies: without a cell its loss of boxes would be 0."""
    network = dense_network("detect")
    for left in (0, 1.5, 3):
        found = losses(network, images_of(1), targets_of([[left, left, left + side, left + side]]))
        assert found["bbox_regression"] > 0


def test_an_image_without_boxes_has_a_loss_of_classes_alone():
    found = losses(dense_network("detect"), images_of(2), targets_of([], []))
    assert found["classification"] > 0
    assert found["bbox_regression"] == found["bbox_ctrness"] == 0


def test_crowds_are_no_objects_to_learn():
    network, images = dense_network("detect"), images_of(1)
    both = targets_of([[10, 10, 30, 40], [50, 50, 90, 90]])
    both[0]["crowd"] = torch.tensor([False, True])
    assert losses(network, images, both) == losses(network, images, targets_of([[10, 10, 30, 40]]))


@torch.no_grad()
def test_boxes_begin_around_their_cells():
    """Six strides wide, so that the losses of the boxes have gradients from the first step."""
    network = dense_network("detect")
    for parameter in network.fcos.head.regression_head.bbox_reg.parameters():
        if parameter.dim() > 1:
            parameter.zero_()
    boxes_BA4, _ = network.raw(images_of(1))
    # Of the cell in row 12 and column 10 of the finest level, whose stride is 4.
    assert boxes_BA4[0, 12 * 24 + 10].tolist() == [42 - 12, 50 - 12, 42 + 12, 50 + 12]


def test_the_first_label_is_0_and_is_learned():
    """A few steps on one image raise the score of its box's class there."""
    torch.manual_seed(0)
    network = dense_network("detect")
    images, targets = images_of(1), targets_of([[20, 20, 50, 50]])
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    for _ in range(25):
        optimizer.zero_grad()
        sum(losses(network, images, targets).values()).backward()
        optimizer.step()
    with torch.no_grad():
        found = network.eval()(images)[0]
    assert found["labels"][0] == 0
    assert overlap(found["boxes"][0].tolist(), [20, 20, 50, 50]) > 0.7


def test_a_detector_in_training_mode_needs_targets():
    with pytest.raises(ValueError, match="needs targets"):
        dense_network("detect").train()(images_of(1))


def test_the_same_seed_gives_the_same_bits():
    def weights():
        network = dense_network("detect", "resnet18", seed=3)
        optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
        for step in range(3):
            optimizer.zero_grad()
            boxes = targets_of([[10, 10, 40, 40], [15, 20, 60, 70]], [[5, 5, 20, 25]])
            sum(losses(network, images_of(2, seed=step), boxes, step).values()).backward()
            optimizer.step()
        return network.state_dict()

    first, second = weights(), weights()
    assert all(torch.equal(value, second[key]) for key, value in first.items())
