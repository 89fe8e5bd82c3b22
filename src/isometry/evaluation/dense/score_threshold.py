"""The least score of the boxes that a person is shown: the one with which F1 over all pictures is largest."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from isometry.evaluation.dense.precision_intervals import Boxes, match_classes


class Threshold(NamedTuple):
    """``least``, in 0..1: boxes of this score and of higher ones are shown; and ``f1`` over all pictures with it,
    percent."""

    least: float
    f1: float


def best_threshold(detections: Sequence[Boxes], truths: Sequence[Boxes], classes: int) -> Threshold | None:
    """The score of a detection from which on ``F1 = 2 · right / (shown + objects)`` over all pictures is largest.

    A detection is right as in AP50; one that falls on a crowd, and crowds, don't count. Of equal ones the highest
    score. None where no detection is right.
    """
    if not truths:
        return None
    matches = match_classes(detections, truths, classes)
    counted = [~each.ignored[0] for each in matches]
    scores_D = np.concatenate([each.scores[kept] for each, kept in zip(matches, counted, strict=True)])
    right_D = np.concatenate([each.right[0, kept] for each, kept in zip(matches, counted, strict=True)])
    if not right_D.any():
        return None
    order = np.argsort(-scores_D, kind="stable")
    scores_D, hits_D = scores_D[order], right_D[order].cumsum()
    objects = sum(int(each.objects.sum()) for each in matches)
    f1_D = 2 * hits_D / (np.arange(1, len(hits_D) + 1) + objects)
    # Detections of equal scores are shown together or not at all.
    f1_D[:-1][scores_D[1:] == scores_D[:-1]] = -1
    best = int(f1_D.argmax())
    return Threshold(float(scores_D[best]), 100 * float(f1_D[best]))
