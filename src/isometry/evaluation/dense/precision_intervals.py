"""95 % intervals of average precision over pictures: detections are matched once, and resamples only weigh them.

Shapes: I pictures, R resamples; of one class D detections, from the highest score on, M objects in a picture, T
thresholds of IoU.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from isometry.evaluation.dense.intervals import multiplicities

Row = dict[str, Any]
Boxes = Mapping[str, Tensor]
"""Of one picture: detections or truth."""

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MOST_DETECTIONS = 100
"""Detections of a class in a picture that count."""
TOGETHER = 2**22
"""About so many weights are in memory at once."""


@dataclass(frozen=True)
class Matches:
    """The detections of one class in all pictures, from the highest score on, and the pictures' objects.

    ``pictures`` int64 (D,): where each is; ``scores`` float (D,). ``right`` bool (T, D): it takes an object;
    ``ignored`` bool (T, D): it falls on a crowd, and counts neither way. ``objects`` int64 (I,), without crowds.
    """

    pictures: np.ndarray
    scores: np.ndarray
    right: np.ndarray
    ignored: np.ndarray
    objects: np.ndarray


def precision_intervals(
    detections: Sequence[Boxes], truths: Sequence[Boxes], classes: int, resamples: int = 1000
) -> Row:
    """Intervals of AP and AP50 as :func:`isometry.evaluation.dense.detection.average_precision` has them.

    The bootstrap's: the 2.5th and 97.5th percentile over draws of I pictures with replacement (B. Efron, "Bootstrap
    methods: another look at the jackknife", Ann. Statist. 7, 1979). They cover the sampling of pictures, not the
    variation between training runs. Boxes have sides of at least 0.

    Returns:
        ``ap_low``, ``ap_high``, ``ap50_low``, ``ap50_high``, percent; None without objects.
    """
    ends: Row = dict.fromkeys(["ap_low", "ap_high", "ap50_low", "ap50_high"])
    if not truths:
        return ends
    times_RI = multiplicities(len(truths), resamples)
    found_TR = resampled_precision(match_classes(detections, truths, classes), times_RI)
    for key, values_R in (("ap", _mean(found_TR)), ("ap50", found_TR[0])):
        known = values_R[~np.isnan(values_R)]
        if len(known):
            low, high = np.percentile(known, [2.5, 97.5])
            ends |= {f"{key}_low": 100 * float(low), f"{key}_high": 100 * float(high)}
    return ends


def match_classes(detections: Sequence[Boxes], truths: Sequence[Boxes], classes: int) -> list[Matches]:
    """The matches of each class."""
    found = [{name: value.numpy() for name, value in each.items()} for each in detections]
    true = [{name: value.numpy() for name, value in each.items()} for each in truths]
    return [_match_class(found, true, label) for label in range(classes)]


def _match_class(
    detections: Sequence[Mapping[str, np.ndarray]], truths: Sequence[Mapping[str, np.ndarray]], label: int
) -> Matches:
    scores: list[np.ndarray] = []
    right: list[np.ndarray] = []
    ignored: list[np.ndarray] = []
    objects = []
    for found, truth in zip(detections, truths, strict=True):
        mine, theirs = found["labels"] == label, truth["labels"] == label
        crowd_M = truth["crowd"][theirs]
        objects.append(int((~crowd_M).sum()))
        scores_N, boxes_N4 = found["scores"][mine], found["boxes"][mine]
        order = np.argsort(-scores_N, kind="stable")[:MOST_DETECTIONS]
        right_TN, ignored_TN = match(overlaps(boxes_N4[order], truth["boxes"][theirs], crowd_M), crowd_M)
        scores.append(scores_N[order])
        right.append(right_TN)
        ignored.append(ignored_TN)
    scores_D = np.concatenate(scores)
    ranked = np.argsort(-scores_D, kind="stable")
    pictures_D = np.repeat(np.arange(len(scores)), [len(each) for each in scores])
    right_TD, ignored_TD = (np.concatenate(each, 1)[:, ranked] for each in (right, ignored))
    return Matches(pictures_D[ranked], scores_D[ranked], right_TD, ignored_TD, np.array(objects))


def overlaps(found_N4: np.ndarray, true_M4: np.ndarray, crowd_M: np.ndarray) -> np.ndarray:
    """IoU of boxes (x1, y1, x2, y2), float64 (N, M); with a crowd the share of the detection that lies in it."""
    (found_N2, found_sides), (true_M2, true_sides) = (
        (boxes[:, :2].astype(np.float64), (boxes[:, 2:] - boxes[:, :2]).astype(np.float64))
        for boxes in (found_N4, true_M4)
    )
    low = np.maximum(found_N2[:, None], true_M2[None])
    high = np.minimum((found_N2 + found_sides)[:, None], (true_M2 + true_sides)[None])
    shared_NM = (high - low).clip(0).prod(2)
    area_N1, area_M = found_sides.prod(1)[:, None], true_sides.prod(1)
    union_NM = np.where(crowd_M, area_N1, area_N1 + area_M - shared_NM)
    return np.divide(shared_NM, union_NM, out=np.zeros_like(shared_NM), where=union_NM > 0)


def match(overlaps_NM: np.ndarray, crowd_M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which detections of a picture, from the highest score on, are right, and which are ignored: bool (T, N) each.

    At each threshold a detection takes the object, of those that are left, that it overlaps most, and at least by the
    threshold. One that takes none is ignored if it overlaps so much with a crowd.
    """
    right_TN = np.zeros((len(THRESHOLDS), len(overlaps_NM)), bool)
    ignored_TN = np.zeros_like(right_TN)
    if not overlaps_NM.size:
        return right_TN, ignored_TN
    left_TM = np.repeat(~crowd_M[None], len(THRESHOLDS), 0)
    thresholds = np.arange(len(THRESHOLDS))
    for place in np.flatnonzero(overlaps_NM.max(1) >= THRESHOLDS[0]):
        overlaps_TM = np.where(left_TM, overlaps_NM[place], -1.0)
        best_T = overlaps_TM.argmax(1)
        right_T = overlaps_TM[thresholds, best_T] >= THRESHOLDS
        left_TM[thresholds[right_T], best_T[right_T]] = False
        right_TN[:, place] = right_T
        on_crowd = overlaps_NM[place, crowd_M].max(initial=-1.0)
        ignored_TN[:, place] = ~right_T & (on_crowd >= THRESHOLDS)
    return right_TN, ignored_TN


def resampled_precision(classes: Sequence[Matches], times_RI: np.ndarray) -> np.ndarray:
    """Mean over classes of the precision, interpolated at 101 recalls, in [0, 1]: (T, R); NaN without objects.

    ``times_RI`` says how often each picture is in each resample. A class without objects in a resample is left out of
    its mean.
    """
    found_KTR = np.stack([_class_precision(each, times_RI) for each in classes])
    return _mean(found_KTR)


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean over the first axis of what is not NaN."""
    there = ~np.isnan(values)
    total, count = np.where(there, values, 0.0).sum(0), there.sum(0)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _class_precision(matches: Matches, times_RI: np.ndarray) -> np.ndarray:
    found_TR = np.full((len(THRESHOLDS), len(times_RI)), np.nan)
    objects_R = times_RI @ matches.objects
    step = max(1, TOGETHER // max(1, len(matches.pictures)))
    for first in range(0, len(times_RI), step):
        some = slice(first, first + step)
        weights_RD = times_RI[some][:, matches.pictures]
        counted_RD = weights_RD.cumsum(1)
        for row, (right_D, ignored_D) in enumerate(zip(matches.right, matches.ignored, strict=True)):
            found_TR[row, some] = _interpolated(weights_RD, counted_RD, right_D, ignored_D, objects_R[some])
    return found_TR


def _interpolated(
    weights_RD: np.ndarray,
    counted_RD: np.ndarray,
    right_D: np.ndarray,
    ignored_D: np.ndarray,
    objects_R: np.ndarray,
) -> np.ndarray:
    """The mean over recalls of the largest precision at that recall or a higher one, (R,); NaN without objects.

    Recall and the largest precision only change at right detections, so that no others are looked at.
    """
    right, ignored = np.flatnonzero(right_D), np.flatnonzero(ignored_D)
    hits_RP = weights_RD[:, right].cumsum(1)
    counted_RP = counted_RD[:, right]
    if len(ignored):
        left_out_RJ = np.pad(weights_RD[:, ignored].cumsum(1), ((0, 0), (1, 0)))
        counted_RP = counted_RP - left_out_RJ[:, np.searchsorted(ignored, right)]
    precision_RP = np.divide(hits_RP, counted_RP, out=np.zeros(hits_RP.shape), where=counted_RP > 0)
    largest_RP = np.maximum.accumulate(precision_RP[:, ::-1], 1)[:, ::-1]
    # Beyond the highest recall that is reached, precision is 0.
    largest_RP = np.pad(largest_RP, ((0, 0), (0, 1)))
    found_R = np.full(len(objects_R), np.nan)
    for number in np.flatnonzero(objects_R):
        places = np.searchsorted(hits_RP[number] / objects_R[number], RECALLS)
        found_R[number] = largest_RP[number, places].mean()
    return found_R
