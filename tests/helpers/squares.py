"""Bright rectangles in images of several sizes, and a network that finds them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from isometry.config import DataConfig
from isometry.data import ImageSpec, Preprocess
from isometry.data.dense.annotations import Boxes
from isometry.data.dense.batches import dense_loaders
from isometry.data.dense.sources import DenseSources

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


def squares(task, batch_size=2):
    """The network, a loader of the images as a validation part, and how they are normalised."""
    images: Any = Squares(task)
    sources = DenseSources(task, images, images, None, NAMES, "squares")
    loaders = dense_loaders(sources, DataConfig(batch_size=batch_size, workers=0), SPEC, 0)
    network: Any = Thresholding(task).train()
    assert loaders.val is not None
    return network, loaders.val, Preprocess(DataConfig(), SPEC, None, "cpu")
