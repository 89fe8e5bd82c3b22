"""Answers of a detector or segmentation network to the images of a split, and their scores."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isometry.data import Preprocess
from isometry.data.dense.annotations import Boxes
from isometry.data.dense.batches import DenseBatch, box_tensors
from isometry.evaluation.dense.detection import Judged, average_precision, judge
from isometry.evaluation.dense.score_threshold import Threshold, best_threshold
from isometry.evaluation.dense.segmentation import class_iou, class_pixels, confusion, iou_scores
from isometry.models.dense.network import DenseNetwork

Row = dict[str, Any]


@dataclass(frozen=True)
class PictureScore:
    """How well a picture was answered: ``place`` among those that were answered, its ``index`` in the part, its
    ``score`` (percent) and the number of its ``objects``, or of the classes of its mask."""

    place: int
    index: int
    score: float
    objects: int


class Answers:
    """What scores are computed from, in pixels of the images themselves: boxes of every picture, or pixels of each
    class. Pictures are in the order in which they were added; ``unreadable`` names those that were left out."""

    def __init__(self, network: DenseNetwork) -> None:
        self.task, self.names = network.task, network.class_names
        self.indices: list[int] = []
        self.unreadable: list[str] = []
        self.found: list[dict[str, Tensor]] = []
        self.truths: list[dict[str, Tensor]] = []
        self.pixels: list[np.ndarray] = []

    def add(self, batch: DenseBatch, answers: Iterable[Any]) -> None:
        """The answers to a batch."""
        self.indices += batch.indices.tolist()
        self.unreadable += batch.unreadable
        for answer, placement, truth in zip(answers, batch.placements, batch.truths, strict=True):
            if isinstance(truth, Boxes):
                found = {name: value.cpu() for name, value in answer.items()}
                self.found.append(placement.answer_to_image(found))
                self.truths.append(box_tensors(truth))
            else:
                mask_HW = placement.answer_to_image(answer).cpu()
                counts_KK = confusion(mask_HW, torch.from_numpy(truth), len(self.names))
                self.pixels.append(class_pixels(counts_KK))

    def scores(self, intervals: bool = True) -> Row:
        """As :func:`isometry.evaluation.dense.detection.average_precision` or
        :func:`isometry.evaluation.dense.segmentation.iou_scores`; without ``intervals`` those of average precision,
        which take seconds, are left out."""
        if self.task == "detect":
            return average_precision(self.found, self.truths, self.names, intervals)
        pixels_I3K = np.array(self.pixels, dtype=np.int64).reshape(-1, 3, len(self.names))
        return iou_scores(pixels_I3K, self.names)

    @cached_property
    def threshold(self) -> Threshold | None:
        """From which score on boxes are shown; None where none is right."""
        return best_threshold(self.found, self.truths, len(self.names))

    def judged(self, place: int) -> Judged:
        """The boxes of a picture that are shown."""
        return judge(self.found[place], self.truths[place], self.threshold and self.threshold.least)

    @cached_property
    def pictures(self) -> list[PictureScore]:
        """F1 of the boxes that are shown, or the mean IoU of the mask's classes (100 where no pixel counts)."""
        places = enumerate(self.indices)
        if self.task == "detect":
            judged = [(place, index, self.judged(place)) for place, index in places]
            return [PictureScore(place, index, each.f1, each.objects) for place, index, each in judged]
        return [PictureScore(place, index, *_mask_score(self.pixels[place])) for place, index in places]


@contextmanager
def answering(network: DenseNetwork) -> Iterator[None]:
    """The network answers, in eval mode and without gradients; it is in its mode again afterwards."""
    mode = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(mode)


def answers_to(network: DenseNetwork, batches: Iterable[DenseBatch], preprocess: Preprocess) -> Answers:
    """The network's answers to a split, see :func:`answering`."""
    answers = Answers(network)
    with answering(network):
        for batch in batches:
            images, _ = preprocess.normalise(batch)
            answers.add(batch, network(images))
    return answers


def _mask_score(pixels_3K: np.ndarray) -> tuple[float, int]:
    """Mean IoU of the classes that a mask has, percent, and their number."""
    there = pixels_3K[1] > 0
    return (100 * float(class_iou(pixels_3K)[there].mean()) if there.any() else 100.0), int(there.sum())
