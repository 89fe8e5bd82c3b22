"""Intersection over union of masks: of each class, their mean, and its interval over pictures.

Masks are integers (H, W): classes 0..K-1, and 255 where a pixel does not count.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isometry.data.dense.annotations import IGNORED
from isometry.evaluation.dense.intervals import multiplicities

Row = dict[str, Any]

RESAMPLES = 1000
"""Of the pictures, for the interval."""


def confusion(answer_HW: Tensor, mask_HW: Tensor, classes: int) -> Tensor:
    """Pixels of class i that were answered as class j, int64 (K, K); ignored pixels of the mask are left out."""
    counted = mask_HW != IGNORED
    pairs = mask_HW[counted].long() * classes + answer_HW[counted].long()
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def class_pixels(confusion_KK: Tensor) -> np.ndarray:
    """Of each class the pixels that are right, those of the mask and those of the answer: int64 (3, K)."""
    return torch.stack([confusion_KK.diagonal(), confusion_KK.sum(1), confusion_KK.sum(0)]).cpu().numpy()


def class_iou(pixels_3K: np.ndarray) -> np.ndarray:
    """``|A ∩ B| / |A ∪ B|`` of each class, A its pixels in the masks and B in the answers, in [0, 1].

    Shapes: (..., 3, K) as :func:`class_pixels`, summed over pictures -> (..., K); NaN where neither has the class.
    """
    right, true, answered = np.moveaxis(pixels_3K.astype(np.float64), -2, 0)
    union = true + answered - right
    return np.divide(right, union, out=np.full_like(union, np.nan), where=union > 0)


def mean_iou(pixels_3K: np.ndarray) -> np.ndarray:
    """Mean of :func:`class_iou` over the classes that masks or answers have: (..., 3, K) -> (...), NaN without any."""
    iou = class_iou(pixels_3K)
    there = ~np.isnan(iou)
    total, count = np.where(there, iou, 0.0).sum(-1), there.sum(-1)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def iou_scores(pixels_I3K: np.ndarray, class_names: Sequence[str]) -> Row:
    """mIoU over I pictures and the IoU of each class, percent, from :func:`class_pixels` of each picture.

    The interval is the bootstrap's: the 2.5th and 97.5th percentile of mIoU over :data:`RESAMPLES` draws of I pictures
    with replacement (B. Efron, "Bootstrap methods: another look at the jackknife", Ann. Statist. 7, 1979). It covers
    the sampling of pictures, not the variation between training runs.

    Returns:
        ``miou``, ``miou_low`` and ``miou_high`` (None without pixels that count), ``images``, and ``classes``, a row
        each in the order of ``class_names``: ``name``, ``pixels`` (of the masks), and ``value`` (None where neither
        masks nor answers have the class).
    """
    total_3K = pixels_I3K.sum(0)
    rows = [
        {"name": name, "pixels": int(pixels), "value": _percent(value)}
        for name, pixels, value in zip(class_names, total_3K[1], class_iou(total_3K), strict=True)
    ]
    low, high = np.nanpercentile(_resampled(pixels_I3K), [2.5, 97.5]) if total_3K.any() else (np.nan, np.nan)
    found = {"miou": mean_iou(total_3K), "miou_low": low, "miou_high": high}
    return {
        **{name: _percent(value) for name, value in found.items()},
        "images": len(pixels_I3K),
        "classes": rows,
    }


def _resampled(pixels_I3K: np.ndarray) -> np.ndarray:
    """mIoU of every resample, float64 (RESAMPLES,)."""
    images, three, classes = pixels_I3K.shape
    sums = multiplicities(images, RESAMPLES).astype(np.float64) @ pixels_I3K.reshape(images, -1).astype(
        np.float64
    )
    return mean_iou(sums.reshape(RESAMPLES, three, classes))


def _percent(value: Any) -> float | None:
    return None if np.isnan(value) else 100 * float(value)
