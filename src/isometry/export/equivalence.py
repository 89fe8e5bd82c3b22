"""Numerical differences between variants of a network, and their accuracy."""

import math
import statistics
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from isometry.errors import UserError
from isometry.evaluation.scores import top1_by_class, wilson
from isometry.evaluation.timing import Row, interleaved_times, whole_batches
from isometry.evaluation.variants import EvaluationImages
from isometry.models.cost import Forward

TOLERANCE = 1e-3
"""Largest allowed difference between two variants' outputs for an image, relative to the spread of all outputs."""


@torch.no_grad()
def differences(run: Forward, reference: Forward, images: Tensor, batch_sizes: Sequence[int]) -> list[Row]:
    """Differences of a variant's outputs from those of the network that it should equal, by batch size.

    Batches are made of the images (N, C, H, W), repeated if a batch is larger.

    Returns:
        A row a batch size: ``batch_size``; ``images``; ``gap``, the largest difference; ``share``, that relative
        to the spread (largest minus smallest output of the reference); ``apart``, the number of images that differ by
        more than :data:`TOLERANCE` of the spread or have an output that is not finite.
    """
    rows = []
    for size in batch_sizes:
        batches = whole_batches(images, size)
        wanted_NK = torch.cat([reference(batch) for batch in batches])
        found_NK = torch.cat([run(batch) for batch in batches])
        gap_N = (found_NK - wanted_NK).abs().flatten(1).amax(1)
        spread = float(wanted_NK.max() - wanted_NK.min())
        near_N = (gap_N <= TOLERANCE * spread) & found_NK.isfinite().flatten(1).all(1)
        gap = float(gap_N.max())
        rows.append(
            {
                "batch_size": size,
                "images": len(gap_N),
                "gap": gap,
                "share": gap / spread if spread else 0.0,
                "apart": int((~near_N).sum()),
            }
        )
    return rows


def check_differences(rows: Sequence[Row], allowed: float, compared: str, exact: bool = True) -> None:
    """Raises UserError for a variant that differs from the reference.

    Args:
        rows: of :func:`differences`.
        allowed: share of images that may differ, because rounding can switch a gate that is near its threshold.
        compared: what was compared, for the message.
        exact: if False, the outputs need only be finite.
    """
    for row in rows:
        if not math.isfinite(row["gap"]) or (exact and row["apart"] > allowed * row["images"]):
            raise UserError(
                f"{compared}: its outputs differ from the model's by up to {row['gap']:.2g}, "
                f"{100 * row['share']:.2g} % of their spread, on {row['apart']} of {row['images']} images at batch "
                f"{row['batch_size']}; nothing was written; try another version of onnxruntime or torch"
            )


def speed_up(run: Forward, reference: Forward, images: Tensor, seconds: float) -> Row:
    """Speed of a variant relative to another at batch 1, image by image.

    The median of reference's time / run's time over rounds in which both have the same image, and its 95 % interval by
    order statistics (ranks n/2 ± 0.98·√n of the n ratios). Load that slows a whole round cancels. Each is timed for
    about ``seconds``.

    Returns:
        ``median``, ``low``, ``high``, ``rounds``.
    """
    batches = images.split(1)
    times = interleaved_times({0: (run, batches), 1: (reference, batches)}, seconds)
    ratios = sorted(slow / fast for fast, slow in zip(times[0], times[1], strict=True))
    rank = max(0, math.floor(len(ratios) / 2 - 0.98 * math.sqrt(len(ratios))))
    return {
        "median": statistics.median(ratios),
        "low": ratios[rank],
        "high": ratios[-1 - rank],
        "rounds": len(ratios),
    }


@torch.no_grad()
def evaluate_variants(
    variants: Mapping[str, Forward], dataset: EvaluationImages, classes: int
) -> dict[str, Row]:
    """Accuracy of variants, the reference first, on all images of a split, in one pass.

    The images are labelled only if their classes are the network's; ``classes`` is 0 for one that returns features.

    Returns:
        By variant ``images`` and ``part``; with labels ``top1`` (percent), its 95 % interval ``top1_low``,
        ``top1_high`` (Wilson) and, where classes differ much in number, ``top1_by_class``
        (:func:`isometry.evaluation.scores.top1_by_class`); ``agreement``, the percentage of images with the
        reference's predicted class, or for features ``cosine``, the mean cosine similarity with the reference's.
    """
    sums = {name: 0.0 for name in variants}
    right_K = {name: torch.zeros(classes, dtype=torch.float64) for name in variants}
    judged = bool(classes and dataset.labelled)
    images_K = torch.zeros(classes, dtype=torch.float64)
    images = 0
    for images_BCHW, labels_B in dataset.pairs():
        outputs = {name: run(images_BCHW) for name, run in variants.items()}
        wanted = next(iter(outputs.values()))
        for name, found in outputs.items():
            sums[name] += _agreement(found, wanted, classes)
            if judged:
                right_K[name] += _counts(labels_B[found.argmax(1) == labels_B], classes)
        if judged:
            images_K += _counts(labels_B, classes)
        images += len(labels_B)
    rows: dict[str, Row] = {}
    for name, total in sums.items():
        rows[name] = {"images": images, "part": dataset.part}
        if judged:
            rows[name] |= _accuracy(right_K[name].tolist(), images_K.tolist())
        rows[name] |= {"agreement": 100 * total / images} if classes else {"cosine": total / images}
    return rows


def _agreement(found: Tensor, wanted: Tensor, classes: int) -> float:
    """Images with the wanted class; for features, the sum of their cosines with the wanted ones."""
    if not classes:
        return float(F.cosine_similarity(found.flatten(1), wanted.flatten(1)).double().sum())
    return float((found.argmax(1) == wanted.argmax(1)).sum())


def _counts(labels_B: Tensor, classes: int) -> Tensor:
    return torch.bincount(labels_B.cpu(), minlength=classes).double()


def _accuracy(right_K: Sequence[float], images_K: Sequence[float]) -> Row:
    right, images = round(sum(right_K)), round(sum(images_K))
    low, high = wilson(right, images)
    row = {"top1": 100 * right / images, "top1_low": 100 * low, "top1_high": 100 * high}
    by_class = top1_by_class(right_K, images_K)
    return row if by_class is None else {**row, "top1_by_class": by_class}
