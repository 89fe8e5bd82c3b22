"""Answers of a detector or segmentation network to a split: their scores, and the best and worst pictures."""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isometry.data import Preprocess
from isometry.data.dense.annotations import Boxes
from isometry.data.dense.batches import DenseBatch, box_tensors
from isometry.data.dense.placement import Placement
from isometry.evaluation.dense.detection import average_precision, judge
from isometry.evaluation.dense.segmentation import class_iou, class_pixels, confusion, iou_scores
from isometry.models.dense.network import DenseNetwork

Row = dict[str, Any]
Answer = Any
"""Detections of a picture, as in :mod:`isometry.evaluation.dense.detection`, or its mask (H, W)."""

EXAMPLES = 4
"""Pictures that are kept of the best, and as many of the worst."""


@dataclass(frozen=True)
class Example:
    """A picture as the network saw it, with its truth and the answer, both in pixels of the network's input.

    ``score`` is F1 of the boxes that are shown, or the mean IoU of the picture's classes; percent. ``pixels`` are uint8
    (C, H, W).
    """

    index: int
    score: float
    pixels: Tensor
    truth: Any
    answer: Answer


@dataclass
class Best:
    """The best and the worst pictures so far; of equal ones the first."""

    kept: int = EXAMPLES
    _best: list[tuple[float, int, Example]] = field(default_factory=list)
    _worst: list[tuple[float, int, Example]] = field(default_factory=list)

    def add(self, example: Example) -> None:
        """Keeps the picture if it is among them."""
        # Twice as many of the worst, since the best are taken out of them.
        for heap, sign, most in ((self._best, 1, self.kept), (self._worst, -1, 2 * self.kept)):
            heapq.heappush(heap, (sign * example.score, -example.index, example))
            if len(heap) > most:
                heapq.heappop(heap)

    @property
    def groups(self) -> dict[str, list[Example]]:
        """By "worst" and "best", each from its end on; none is in both."""
        best = [example for *_, example in sorted(self._best, reverse=True)]
        taken = {example.index for example in best}
        worst = [example for *_, example in sorted(self._worst, reverse=True) if example.index not in taken]
        return {"worst": worst[: self.kept], "best": best}


@torch.no_grad()
def evaluate_answers(
    network: DenseNetwork,
    batches: Iterable[DenseBatch],
    preprocess: Preprocess,
    examples: Best | None = None,
    intervals: bool = True,
) -> Row:
    """Scores of the answers to a split, compared with the truth in pixels of the images themselves.

    The network answers in eval mode, and is in its mode again afterwards. ``examples`` takes the best and the worst
    pictures; without ``intervals`` those of average precision, which take seconds, are left out.

    Returns:
        As :func:`average_precision` or :func:`iou_scores`.
    """
    mode = network.training
    network.eval()
    tally = _Tally(network)
    for batch in batches:
        images, _ = preprocess.normalise(batch)
        answers = list(network(images))
        tally.add(batch, answers)
        if examples is not None:
            for example in _examples(network, batch, answers):
                examples.add(example)
    network.train(mode)
    return tally.scores(intervals)


class _Tally:
    """What scores are computed from: boxes of every picture, or pixels of each class."""

    def __init__(self, network: DenseNetwork) -> None:
        self.task, self.names = network.task, network.class_names
        self.found: list[dict[str, Tensor]] = []
        self.truths: list[dict[str, Tensor]] = []
        self.pixels: list[np.ndarray] = []

    def add(self, batch: DenseBatch, answers: list[Any]) -> None:
        for answer, placement, truth in zip(answers, batch.placements, batch.truths, strict=True):
            if isinstance(truth, Boxes):
                found = {name: value.cpu() for name, value in answer.items()}
                self.found.append({**found, "boxes": placement.to_image(found["boxes"])})
                self.truths.append(box_tensors(truth))
            else:
                mask_HW = classes_in_image(answer.float(), placement).cpu()
                counts_KK = confusion(mask_HW, torch.from_numpy(truth), len(self.names))
                self.pixels.append(class_pixels(counts_KK))

    def scores(self, intervals: bool) -> Row:
        if self.task == "detect":
            return average_precision(self.found, self.truths, self.names, intervals)
        pixels_I3K = np.array(self.pixels, dtype=np.int64).reshape(-1, 3, len(self.names))
        return iou_scores(pixels_I3K, self.names)


def classes_in_image(logits_KHW: Tensor, placement: Placement) -> Tensor:
    """The most probable class of each pixel of the whole image, int64 (height, width)."""
    best_HW = answer_HW = None
    # One class after another: of a large image the logits of all classes would take gigabytes.
    for number, logits_HW in enumerate(logits_KHW):
        values_HW = placement.map_to_image(logits_HW[None])[0]
        if best_HW is None or answer_HW is None:
            best_HW, answer_HW = values_HW, torch.zeros_like(values_HW, dtype=torch.int64)
            continue
        larger_HW = values_HW > best_HW
        best_HW = torch.where(larger_HW, values_HW, best_HW)
        answer_HW[larger_HW] = number
    assert answer_HW is not None
    return answer_HW


def _examples(network: DenseNetwork, batch: DenseBatch, answers: list[Any]) -> Iterator[Example]:
    for place, (answer, truth) in enumerate(zip(answers, batch.annotations, strict=True)):
        if network.task == "detect":
            answer = {name: value.cpu() for name, value in answer.items()}
            score = judge(answer, truth).f1
        else:
            answer = answer.argmax(0).cpu()
            score = _picture_iou(answer, truth, len(network.class_names))
        yield Example(int(batch.indices[place]), score, batch.images[place].clone(), truth, answer)


def _picture_iou(answer_HW: Tensor, mask_HW: Tensor, classes: int) -> float:
    """Mean IoU of the classes of one mask, percent; 100 where no pixel counts."""
    pixels_3K = class_pixels(confusion(answer_HW, mask_HW, classes))
    there = pixels_3K[1] > 0
    return 100 * float(class_iou(pixels_3K)[there].mean()) if there.any() else 100.0
