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
KEYS = {
    "ap": "map",
    "ap50": "map_50",
    "ap75": "map_75",
    "ap_small": "map_small",
    "ap_medium": "map_medium",
    "ap_large": "map_large",
    "ar100": "mar_100",
}
"""Our keys and those of torchmetrics."""


def check_installed() -> None:
    """Raises UserError if the libraries that compute average precision are not installed."""
    if missing := [name for name in ("torchmetrics", "faster_coco_eval") if find_spec(name) is None]:
        raise UserError(
            f"--task detect: {missing[0]} is not installed, which computes COCO's average precision; "
            "pip install 'isometry[detect]'"
        )


def average_precision(
    detections: Sequence[Boxes], truths: Sequence[Boxes], class_names: Sequence[str], intervals: bool = True
) -> Row:
    """COCO's average precision over pictures, percent (T.-Y. Lin et al., "Microsoft COCO", arXiv:1405.0312).

    AP is the mean over classes and over IoU thresholds 0.50, 0.55, ..., 0.95 of the precision, interpolated at 101
    recalls; at most 100 detections of a picture count, those of the highest scores. Small are objects of an ``area``
    below 32² pixels, large those from 96² on. A detection that falls on a crowd counts neither way. By torchmetrics on
    faster-coco-eval, which gives pycocotools' figures.

    Returns:
        ``ap``, ``ap50``, ``ap75``, ``ap_small``, ``ap_medium``, ``ap_large`` (None without objects of that size);
        ``ar100``, the average recall of at most 100 detections of a picture, over the same classes and overlaps; with
        ``intervals`` those of AP and AP50, :func:`isometry.evaluation.dense.precision_intervals.precision_intervals`;
        ``images``, and ``classes``, a row each in the order of ``class_names``: ``name``, ``objects`` (without crowds)
        and its AP ``value``, ``ap50`` and ``ar100`` (None without objects).

    Raises:
        UserError: the libraries are not installed.
    """
    check_installed()
    if not truths:
        return _of_no_pictures(class_names, intervals)
    from torchmetrics.detection import MeanAveragePrecision  # takes seconds to import

    metric = MeanAveragePrecision(
        # torchmetrics' own are rounded to float32, and a recall that equals one falls on its other side.
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
        rec_thresholds=np.linspace(0, 1, 101).tolist(),
        backend="faster_coco_eval",
        class_metrics=True,
        extended_summary=True,
    )
    metric.warn_on_many_detections = False
    metric.update([_detected(found) for found in detections], [_true(truth) for truth in truths])
    figures = metric.compute()
    # By overlap, recall, class, range of areas (first of all) and most detections (last 100).
    ap50_K = figures["precision"][0, :, :, 0, -1].mean(0)
    by_class = zip(
        *(
            each.view(-1).tolist()
            for each in (figures["map_per_class"], ap50_K, figures["mar_100_per_class"])
        ),
        strict=True,
    )
    values = dict(zip(figures["classes"].view(-1).tolist(), by_class, strict=True))
    counts = _objects(truths, len(class_names))
    rows = [
        {"name": name, "objects": counts[index]}
        | dict(zip(("value", "ap50", "ar100"), map(_percent, values.get(index, (-1.0,) * 3)), strict=True))
        for index, name in enumerate(class_names)
    ]
    scores: Row = {key: _percent(float(figures[theirs])) for key, theirs in KEYS.items()}
    if intervals:
        scores |= precision_intervals(detections, truths, len(class_names))
    return {**scores, "images": len(truths), "classes": rows}


def _of_no_pictures(class_names: Sequence[str], intervals: bool) -> Row:
    rows = [{"name": name, "objects": 0, "value": None, "ap50": None, "ar100": None} for name in class_names]
    scores: Row = dict.fromkeys(KEYS)
    if intervals:
        scores |= precision_intervals([], [], len(class_names))
    return {**scores, "images": 0, "classes": rows}


def _detected(found: Boxes) -> dict[str, Tensor]:
    return {"boxes": found["boxes"].float(), "scores": found["scores"].float(), "labels": found["labels"]}


def _true(truth: Boxes) -> dict[str, Tensor]:
    return {
        "boxes": truth["boxes"].float(),
        "labels": truth["labels"],
        "iscrowd": truth["crowd"].long(),
        "area": truth["area"].float(),
    }


def _objects(truths: Sequence[Boxes], classes: int) -> list[int]:
    labels = [truth["labels"][~truth["crowd"]] for truth in truths]
    counts = torch.bincount(torch.cat(labels), minlength=classes) if labels else torch.zeros(classes)
    return [int(count) for count in counts]


def _percent(value: float) -> float | None:
    """COCO writes -1 where there is nothing to find."""
    return None if value < 0 else 100 * value


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
