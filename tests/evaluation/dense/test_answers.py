"""Answers in pixels of the image itself, and the choice of pictures."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from isometry.config import DataConfig
from isometry.data import ImageSpec, Preprocess
from isometry.data.dense.annotations import Boxes
from isometry.data.dense.batches import dense_loaders
from isometry.data.dense.placement import Placement
from isometry.data.dense.sources import DenseSources
from isometry.evaluation.dense.answers import Best, Example, classes_in_image, evaluate_answers

SPEC = ImageSpec((1, 32, 32), (0.5,), (0.5,), "bilinear", 1.0, "center")
NAMES = ["background", "bright"]
SIZES = [(64, 32), (20, 40), (32, 32), (50, 50), (16, 8)]


@dataclass
class Squares:
    """A bright rectangle on black, in images of several sizes; the last has none."""

    task: str

    def __len__(self):
        return len(SIZES)

    def load(self, number):
        width, height = SIZES[number]
        pixels = np.zeros((height, width), np.uint8)
        corners = [width // 4, height // 4, width // 2, height // 2]
        if number < len(SIZES) - 1:
            pixels[corners[1] : corners[3], corners[0] : corners[2]] = 255
        if self.task == "segment":
            return Image.fromarray(pixels), (pixels > 0).astype(np.uint8)
        there = number < len(SIZES) - 1
        return Image.fromarray(pixels), Boxes.of([corners] * there, [1] * there)

    def where(self, number):
        return f"square {number}"

    def boxes(self, number):
        return None


@dataclass(eq=False)
class Thresholding(nn.Module):
    """Answers with what is bright, so that it is nearly right wherever the image lies in its input."""

    task: str
    class_names: list[str] = field(default_factory=lambda: NAMES)

    def __post_init__(self):
        super().__init__()

    def forward(self, images_BCHW) -> Any:
        assert not self.training
        if self.task == "segment":
            return torch.cat([0.2 - images_BCHW, images_BCHW - 0.2], 1)
        found = []
        for image in images_BCHW:
            rows, columns = (image[0] > 0.2).nonzero(as_tuple=True)
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else []
            boxes = torch.tensor(box, dtype=torch.float32).view(-1, 4)
            found.append(
                {"boxes": boxes, "scores": torch.ones(len(boxes)), "labels": torch.ones(len(boxes)).long()}
            )
        return found


def evaluated(task, batch_size=2):
    images: Any = Squares(task)
    sources = DenseSources(task, images, images, None, NAMES, "squares")
    loaders = dense_loaders(sources, DataConfig(batch_size=batch_size, workers=0), SPEC, 0)
    network: Any = Thresholding(task).train()
    best = Best(2)
    scores = evaluate_answers(network, loaders.val, Preprocess(DataConfig(), SPEC, None, "cpu"), best)
    assert network.training
    return scores, best


def test_boxes_are_judged_in_pixels_of_the_image():
    scores, best = evaluated("detect")
    assert scores["ap50"] == pytest.approx(100)
    assert scores["ap"] > 80
    assert scores["classes"][1] == {"name": "bright", "objects": 4, "value": scores["ap"]}
    assert {example.score for group in best.groups.values() for example in group} == {100.0}
    assert scores == evaluated("detect", 5)[0]


def test_masks_are_judged_in_pixels_of_the_image():
    scores, best = evaluated("segment")
    pixels = sum(width * height for width, height in SIZES)
    assert sum(row["pixels"] for row in scores["classes"]) == pixels
    assert scores["miou"] > 85
    assert scores == evaluated("segment", 5)[0]
    assert [len(group) for group in best.groups.values()] == [2, 2]


def test_classes_one_after_another_are_those_of_all_at_once():
    logits = torch.randn(4, 32, 32, generator=torch.Generator().manual_seed(0))
    placement = Placement.fitted((70, 41), (32, 32))
    wanted = placement.map_to_image(logits).argmax(0)
    assert torch.equal(classes_in_image(logits, placement), wanted)
    assert wanted.shape == (41, 70)


def example(index, score):
    return Example(index, score, torch.zeros(1), None, None)


def test_the_best_and_the_worst_pictures_are_chosen():
    best = Best(2)
    for index, score in enumerate([50, 90, 10, 90, 30, 90, 10]):
        best.add(example(index, float(score)))
    found = {group: [each.index for each in examples] for group, examples in best.groups.items()}
    assert found == {"worst": [2, 6], "best": [1, 3]}


def test_few_pictures_are_not_shown_twice():
    best = Best(4)
    for index in range(5):
        best.add(example(index, 0.0))
    found = {group: [each.index for each in examples] for group, examples in best.groups.items()}
    assert found == {"worst": [4], "best": [0, 1, 2, 3]}
