"""COCO's average precision of boxes, and which boxes of a picture are right.

Boxes are (x1, y1, x2, y2) in pixels. A picture's detections are a dict of ``boxes`` float32 (N, 4), ``scores`` float32
(N,) and ``labels`` int64 (N,); its truth one of ``boxes`` float32 (M, 4), ``labels`` int64 (M,), ``crowd`` bool (M,),
and ``area`` float32 (M,). Labels are 0..K-1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from isometry.errors import UserError
from isometry.evaluation.dense.precision_intervals import Boxes, precision_intervals

Row = dict[str, Any]
SHOWN_WITHOUT = 3
"""Detections of a picture that are shown, those of the highest scores, where no least score is given."""
OVERLAP = 0.5
"""Least IoU with a box of the truth at which a detection is right, as in AP50."""
AREAS = {"ap": 0, "ap_small": 1, "ap_medium": 2, "ap_large": 3}
"""Figures over all overlaps, and the range of areas that each is of, by its place in COCO's evaluation."""
OVERLAPS = {"ap50": 0, "ap75": 5}
"""Figures at one overlap, by its place."""


def check_installed() -> None:
    """Raises UserError if the library that computes average precision is not installed."""
    if find_spec("faster_coco_eval") is None:
        raise UserError(
            "--task detect: faster_coco_eval is not installed, which computes COCO's average precision; "
            "pip install 'isometry[detect]'"
        )


def average_precision(
    detections: Sequence[Boxes], truths: Sequence[Boxes], class_names: Sequence[str], intervals: bool = True
) -> Row:
    """COCO's average precision over pictures, percent (T.-Y. Lin et al., "Microsoft COCO", arXiv:1405.0312).

    AP is the mean over classes and over IoU thresholds 0.50, 0.55, ..., 0.95 of the precision, interpolated at 101
    recalls; at most 100 detections of a picture count, those of the highest scores. Small are objects of an ``area``
    below 32² pixels, large those from 96² on. A detection that falls on a crowd counts neither way. The library is
    faster-coco-eval, which gives pycocotools' figures.

    Returns:
        ``ap``, ``ap50``, ``ap75``, ``ap_small``, ``ap_medium``, ``ap_large`` (None without objects of that size);
        ``ar100``, the average recall of at most 100 detections of a picture, over the same classes and overlaps; with
        ``intervals`` those of AP and AP50, :func:`isometry.evaluation.dense.precision_intervals.precision_intervals`;
        ``images``, and ``classes``, a row each in the order of ``class_names``: ``name``, ``objects`` (without crowds)
        and its AP ``value``, ``ap50`` and ``ar100`` (None without objects).

    Raises:
        UserError: the library is not installed.
    """
    check_installed()
    precision, recall = _evaluated(detections, truths, len(class_names))
    counts = _objects(truths, len(class_names))
    rows = [
        {
            "name": name,
            "objects": counts[index],
            "value": _percent(precision[:, :, index, 0]),
            "ap50": _percent(precision[0, :, index, 0]),
            "ar100": _percent(recall[:, index, 0]),
        }
        for index, name in enumerate(class_names)
    ]
    scores: Row = {key: _percent(precision[..., place]) for key, place in AREAS.items()}
    scores |= {key: _percent(precision[place, ..., 0]) for key, place in OVERLAPS.items()}
    scores["ar100"] = _percent(recall[..., 0])
    if intervals:
        scores |= precision_intervals(detections, truths, len(class_names))
    return {**scores, "images": len(truths), "classes": rows}


def _evaluated(
    detections: Sequence[Boxes], truths: Sequence[Boxes], classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Precision by overlap, recall, class and range of areas, and the largest recall by overlap, class and range.

    -1 where there is nothing to find.
    """
    from faster_coco_eval import COCO, COCOeval_faster  # takes a second to import

    head = {"images": [{"id": index} for index in range(len(truths))]}
    head["categories"] = [{"id": label} for label in range(classes)]
    sides = [COCO({**head, "annotations": _annotations(pictures)}) for pictures in (truths, detections)]
    found = COCOeval_faster(*sides, iouType="bbox")
    # Those of the library may be rounded, and a recall that equals one falls on its other side.
    found.params.iouThrs, found.params.recThrs = np.linspace(0.5, 0.95, 10), np.linspace(0, 1, 101)
    found.evaluate()
    found.accumulate()
    # By most detections, too, of which the last is 100.
    return found.eval["precision"][..., -1], found.eval["recall"][..., -1]


def _annotations(pictures: Sequence[Boxes]) -> list[dict[str, Any]]:
    """COCO's annotations of the objects or detections of all pictures."""
    made: list[dict[str, Any]] = []
    for index, picture in enumerate(pictures):
        boxes_N4 = picture["boxes"].float()
        sizes_N2 = boxes_N4[:, 2:] - boxes_N4[:, :2]
        places = torch.cat([boxes_N4[:, :2], sizes_N2], dim=1).tolist()
        areas = picture.get("area", sizes_N2.prod(1)).tolist()
        crowds = picture.get("crowd", torch.zeros(len(places))).tolist()
        scores = picture.get("scores", torch.zeros(len(places))).tolist()
        labels = picture["labels"].tolist()
        for box, area, crowd, score, label in zip(places, areas, crowds, scores, labels, strict=True):
            one = {"image_id": index, "category_id": label, "bbox": box, "area": area, "iscrowd": int(crowd)}
            # 0 means "no object" to COCO's evaluation.
            made.append({"id": len(made) + 1, "score": score, **one})
    return made


def _objects(truths: Sequence[Boxes], classes: int) -> list[int]:
    labels = [truth["labels"][~truth["crowd"]] for truth in truths]
    counts = torch.bincount(torch.cat(labels), minlength=classes) if labels else torch.zeros(classes)
    return [int(count) for count in counts]


def _percent(values: np.ndarray) -> float | None:
    """The mean of what there is; COCO writes -1 where there is nothing to find."""
    known = values[values > -1]
    return 100 * float(known.mean()) if known.size else None


Verdict = Literal["right", "wrong class", "no object"]


@dataclass(frozen=True)
class Judged:
    """The detections of one picture that are shown, each right or wrong, and the objects that none of them found.

    Attributes:
        shown: their places in the detections, from the highest score on.
        verdicts: of each of them.
        missed: places in the truth of the objects, without crowds, that no right detection has found.
        objects: number of objects, without crowds.
    """

    shown: list[int]
    verdicts: list[Verdict]
    missed: list[int]
    objects: int

    @property
    def f1(self) -> float:
        """2·right / (shown + objects), percent; 100 where there is nothing to find and nothing was found."""
        right, total = self.verdicts.count("right"), len(self.shown) + self.objects
        return 200 * right / total if total else 100.0


def judge(found: Boxes, truth: Boxes, least: float | None) -> Judged:
    """Which detections of a score from ``least`` on are right; with None the :data:`SHOWN_WITHOUT` of the highest ones.

    From the highest score on, a detection takes the object of its class with which its IoU is largest, if that is at
    least :data:`OVERLAP` and no other has taken it. One that takes none has the wrong class if it overlaps as much with
    an object that is still free; one that only falls on a crowd is left out.
    """
    from torchvision.ops import box_iou  # torchvision takes a second to import

    order = found["scores"].argsort(descending=True, stable=True).tolist()
    reaching = order if least is None else [place for place in order if found["scores"][place] >= least]
    order = reaching[: SHOWN_WITHOUT if least is None else None]
    overlaps_NM = box_iou(found["boxes"].float(), truth["boxes"].float())
    overlaps_NM = overlaps_NM * (overlaps_NM >= OVERLAP)
    same_NM = found["labels"][:, None] == truth["labels"][None]
    free_M = ~truth["crowd"]
    shown: list[int] = []
    verdicts: list[Verdict] = []
    for place in order:
        overlaps_M = overlaps_NM[place]
        candidates_M = overlaps_M * same_NM[place] * free_M
        if candidates_M.any():
            free_M = free_M.clone()
            free_M[candidates_M.argmax()] = False
            verdicts.append("right")
        elif (overlaps_M * free_M).any():
            verdicts.append("wrong class")
        elif _on_crowd(found["boxes"][place], found["labels"][place], truth):
            continue
        else:
            verdicts.append("no object")
        shown.append(place)
    return Judged(shown, verdicts, free_M.nonzero().view(-1).tolist(), int((~truth["crowd"]).sum()))


def _on_crowd(box_4: Tensor, label: Tensor, truth: Boxes) -> bool:
    """Whether so much of a detection's own area lies on a crowd of its class, as COCO compares with crowds."""
    crowds = truth["boxes"][truth["crowd"] & (truth["labels"] == label)].float()
    sides = (torch.minimum(crowds[:, 2:], box_4[2:]) - torch.maximum(crowds[:, :2], box_4[:2])).clamp(min=0)
    area = (box_4[2:] - box_4[:2]).prod()
    return bool((sides.prod(1) >= OVERLAP * area).any())
