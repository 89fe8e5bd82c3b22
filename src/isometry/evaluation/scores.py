"""Accuracy with its interval, calibration, per-class accuracy and confusion matrix of N predictions.

Pure functions of NumPy arrays; returned shares are in percent, those in formulas in [0, 1].
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Row = dict[str, Any]

BINS = 15
"""Confidence bins, as in Guo et al."""
Z = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


UNEVEN = 3
"""Where the largest class has more than so many times the images of the smallest, top-1 tells little of small ones."""


def top1_by_class(right: Sequence[float], images: Sequence[float]) -> float | None:
    """Mean of the classes' accuracies (balanced accuracy), percent; from the right answers and images of each class.

    Classes without images do not count. None where no class has more than ``UNEVEN`` times the images of another.
    """
    right_K, images_K = np.asarray(right), np.asarray(images)
    there = images_K > 0
    if not there.any() or images_K[there].max() <= UNEVEN * images_K[there].min():
        return None
    return 100 * float((right_K[there] / images_K[there]).mean())


@dataclass(frozen=True)
class Predictions:
    """A network's predictions on N images.

    Attributes:
        labels: the right classes, int64 (N,).
        predictions: the most probable classes, int64 (N,).
        confidences: their probabilities, float64 (N,).
        within_five: whether the right class is among the five most probable, bool (N,).
        classes: number of classes.
    """

    labels: np.ndarray
    predictions: np.ndarray
    confidences: np.ndarray
    within_five: np.ndarray
    classes: int

    @property
    def right(self) -> np.ndarray:
        """Whether each prediction is right, bool (N,)."""
        return self.predictions == self.labels


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a share, in [0, 1], from ``successes`` of ``trials``.

    With p = successes / n and z = 1.96:  (p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n)
    (E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927). It covers
    the sampling of images, not the variation between training runs.

    Raises:
        ValueError: no trial, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} of {trials} is not a share")
    share, spread = successes / trials, Z**2 / trials
    centre = share + spread / 2
    half = Z * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    # Rounding must not exclude the share itself.
    return min(share, (centre - half) / (1 + spread)), max(share, (centre + half) / (1 + spread))


def accuracy(right: np.ndarray) -> Row:
    """``value``, ``low`` and ``high`` of its 95 % interval (percent), and ``images``; from bool (N,)."""
    return {**_share(int(right.sum()), len(right)), "images": len(right)}


def _share(hits: int, images: int) -> Row:
    low, high = wilson(hits, images)
    return {"value": 100 * hits / images, "low": 100 * low, "high": 100 * high}


def scores(predictions: Predictions, names: Sequence[str]) -> Row:
    """All scores of predictions on at least one image: ``top1``, ``top1_by_class`` (see :func:`top1_by_class`),
    ``top5`` (six classes or more), ``calibration``, ``classes`` (by ``names`` in order), ``confusion``.
    """
    found: Row = {"top1": accuracy(predictions.right)}
    if predictions.classes > 5:  # with five it is always 100 %
        found["top5"] = accuracy(predictions.within_five)
    counts = confusion(predictions)
    if (mean := top1_by_class(counts.diagonal().tolist(), counts.sum(1).tolist())) is not None:
        found["top1_by_class"] = {"value": mean}
    return {
        **found,
        "calibration": calibration(predictions.confidences, predictions.right),
        "classes": per_class(counts, names),
        "confusion": counts.tolist(),
    }


def calibration(confidences: np.ndarray, right: np.ndarray, bins: int = BINS) -> Row:
    """The expected calibration error, Σ_b |B_b|/n · |acc(B_b) − conf(B_b)|, over bins of equal width.

    B_b are the images whose confidence lies in ((b−1)/M, b/M], acc their share of right predictions, conf their mean
    confidence, M = ``bins`` (C. Guo et al., "On calibration of modern neural networks", ICML 2017, eq. 3 to 5).

    Returns:
        ``ece`` (percent) and ``bins``, a row each: ``low`` and ``high`` (its bounds, in [0, 1]), ``images``, and if it
        has images, ``confidence`` and ``accuracy`` (percent).
    """
    edges = np.linspace(0, 1, bins + 1)
    places = np.clip(np.searchsorted(edges, confidences, side="left") - 1, 0, bins - 1)
    rows, error = [], 0.0
    for place in range(bins):
        inside = places == place
        row: Row = {"low": edges[place], "high": edges[place + 1], "images": int(inside.sum())}
        if row["images"]:
            row["confidence"] = 100 * float(confidences[inside].mean())
            row["accuracy"] = 100 * float(right[inside].mean())
            error += row["images"] / len(right) * abs(row["accuracy"] - row["confidence"])
        rows.append(row)
    return {"ece": error, "bins": rows}


def confusion(predictions: Predictions) -> np.ndarray:
    """Images of class i that were predicted as class j: int64 (K, K)."""
    counts = np.zeros((predictions.classes, predictions.classes), dtype=np.int64)
    np.add.at(counts, (predictions.labels, predictions.predictions), 1)
    return counts


def per_class(counts: np.ndarray, names: Sequence[str]) -> list[Row]:
    """A row a class: ``name``, ``images``, and if it has images, ``value``, ``low`` and ``high`` (percent)."""
    shares = zip(names, counts.diagonal().tolist(), counts.sum(1).tolist(), strict=True)
    return [
        {"name": name, "images": images} | (_share(right, images) if images else {})
        for name, right, images in shares
    ]


def frequent_confusions(counts: np.ndarray, most: int) -> list[tuple[int, int, int]]:
    """(class, predicted class, images) of the ``most`` most frequent errors."""
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(place), len(counts)) for place in order]
    return [(i, j, int(wrong[i, j])) for i, j in pairs if wrong[i, j]]
