"""What answers to N labelled images come to: accuracy with its interval, calibration, classes, confusions.

Pure functions of NumPy arrays; shares are percent in what is returned, and in [0, 1] within a formula.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Row = dict[str, Any]

BINS = 15
"""Bins of confidence, as Guo et al. take them."""
Z = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""
FEWEST_FOR_TOP5 = 6
"""Classes; of five, any five hold the right one."""


@dataclass(frozen=True)
class Predictions:
    """What a network says about N images.

    Attributes:
        labels: the right classes, int64 (N,).
        predictions: the most probable classes, int64 (N,).
        confidences: their probabilities, float64 (N,).
        within_five: whether the right class is among the five most probable, bool (N,).
        classes: how many there are.
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
    (E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927). It says how
    far another draw of as many images might be, not how far another training run might be.

    Raises:
        ValueError: no trial, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} of {trials} is no share")
    share, spread = successes / trials, Z**2 / trials
    centre = share + spread / 2
    half = Z * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    # Rounding must not put the share itself outside.
    return min(share, (centre - half) / (1 + spread)), max(share, (centre + half) / (1 + spread))


def accuracy(right: np.ndarray) -> Row:
    """``value``, ``low`` and ``high`` of its 95 % interval (percent), and ``images``; from bool (N,)."""
    hits, images = int(right.sum()), len(right)
    low, high = wilson(hits, images)
    return {"value": 100 * hits / images, "low": 100 * low, "high": 100 * high, "images": images}


def scores(answers: Predictions, names: Sequence[str]) -> Row:
    """All that the answers say: ``top1``, ``top5`` (six classes or more), ``calibration``, ``classes``, ``confusion``.

    Args:
        answers: to at least one image.
        names: of the classes, in order.
    """
    found: Row = {"top1": accuracy(answers.right)}
    if answers.classes >= FEWEST_FOR_TOP5:
        found["top5"] = accuracy(answers.within_five)
    counts = confusion(answers)
    return {
        **found,
        "calibration": calibration(answers.confidences, answers.right),
        "classes": per_class(counts, names),
        "confusion": counts.tolist(),
    }


def calibration(confidences: np.ndarray, right: np.ndarray, bins: int = BINS) -> Row:
    """The expected calibration error, Σ_b |B_b|/n · |acc(B_b) − conf(B_b)|, over bins of equal width.

    B_b are the images whose confidence lies in ((b−1)/M, b/M], acc their share of right answers, conf their mean
    confidence, M = ``bins`` (C. Guo et al., "On calibration of modern neural networks", ICML 2017, eq. 3 to 5).

    Returns:
        ``ece`` (percent) and ``bins``, a row each: ``low`` and ``high`` (its bounds, in [0, 1]), ``images``, and where
        it has some, ``confidence`` and ``accuracy`` (percent).
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


def confusion(answers: Predictions) -> np.ndarray:
    """How many images of class i were taken for class j: int64 (K, K)."""
    counts = np.zeros((answers.classes, answers.classes), dtype=np.int64)
    np.add.at(counts, (answers.labels, answers.predictions), 1)
    return counts


def per_class(counts: np.ndarray, names: Sequence[str]) -> list[Row]:
    """A row a class: ``name``, ``images``, and where it has some, ``value``, ``low`` and ``high`` (percent)."""
    rows = []
    for place, name in enumerate(names):
        right, images = int(counts[place, place]), int(counts[place].sum())
        row: Row = {"name": name, "images": images}
        if images:
            low, high = wilson(right, images)
            row |= {"value": 100 * right / images, "low": 100 * low, "high": 100 * high}
        rows.append(row)
    return rows


def frequent_confusions(counts: np.ndarray, most: int) -> list[tuple[int, int, int]]:
    """(class, what it was taken for, images) of the most frequent wrong answers, at most so many."""
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(place), len(counts)) for place in order]
    return [(i, j, int(wrong[i, j])) for i, j in pairs if wrong[i, j]]
