"""Whether two forms of a network compute the same, and how each does on labelled images."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from isometry.errors import UserError
from isometry.evaluation.scores import wilson
from isometry.evaluation.timing import TimedNetwork, times_in_turns, whole_batches
from isometry.evaluation.variants import EvaluationImages
from isometry.models.cost import Forward

Row = dict[str, Any]

TOLERANCE = 1e-3
"""How far two forms' answers to an image may be apart, as a share of the spread of all answers."""


@torch.no_grad()
def differences(run: Forward, reference: Forward, images: Tensor, batch_sizes: Sequence[int]) -> list[Row]:
    """How far two forms' answers are apart, batch size by batch size.

    Args:
        run: the form that is checked.
        reference: what it should compute.
        images: (N, C, H, W); repeated where a batch is larger.
        batch_sizes: of each, as many batches as the images make.

    Returns:
        A row a batch size: ``batch_size``; ``images``; ``gap``, the largest difference of two answers; ``share``, that
        over the spread (largest less smallest answer of the reference); ``apart``, the number of images further apart
        than :data:`TOLERANCE` of the spread, and of those with an answer that is no finite number.
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


def check_differences(rows: Sequence[Row], allowed: float, told: str, exact: bool = True) -> None:
    """Refuses a form that does not compute what the reference does.

    Args:
        rows: of :func:`differences`.
        allowed: share of the images that may be apart: a gate within rounding of its threshold may fall on its other
            side, and takes a whole channel with it.
        told: what was compared, for the message.
        exact: without it the answers need only be finite numbers.

    Raises:
        UserError: more images than that are apart.
    """
    for row in rows:
        if not math.isfinite(row["gap"]) or (exact and row["apart"] > allowed * row["images"]):
            raise UserError(
                f"{told}: its answers are up to {row['gap']:.2g} from the model's, {100 * row['share']:.2g} % of "
                f"their spread, on {row['apart']} of {row['images']} images at batch {row['batch_size']}; nothing was "
                "written; try another version of onnxruntime or torch"
            )


def speed_up(run: Forward, reference: Forward, images: Tensor, seconds: float) -> Row:
    """How many times as fast a form is as another at batch 1, image by image.

    The median of reference's time / run's time over rounds in which both have the same image, and its 95 % interval by
    order statistics (ranks n/2 ± 0.98·√n of the n ratios): what slows down all of a round does not count.

    Args:
        run: the form that may be faster.
        reference: the one that it is measured against.
        images: (N, C, H, W).
        seconds: about so long each.

    Returns:
        ``median``, ``low``, ``high``, ``rounds``.
    """
    batches = images.split(1)
    times = times_in_turns({0: TimedNetwork(run, batches), 1: TimedNetwork(reference, batches)}, seconds)
    ratios = sorted(slow / fast for fast, slow in zip(times[0], times[1], strict=True))
    rank = max(0, math.floor(len(ratios) / 2 - 0.98 * math.sqrt(len(ratios))))
    return {
        "median": statistics.median(ratios),
        "low": ratios[rank],
        "high": ratios[-1 - rank],
        "rounds": len(ratios),
    }


@torch.no_grad()
def judge(forms: Mapping[str, Forward], material: EvaluationImages, classes: int) -> dict[str, Row]:
    """How forms of a network do on all images of a part, in one pass over them.

    Args:
        forms: by name, the reference first.
        material: the images; with labels only if the network's classes are theirs.
        classes: of the network; 0 for one that answers with features.

    Returns:
        By form ``images`` and ``part``; with labels ``top1`` (percent) and its 95 % interval ``top1_low``,
        ``top1_high`` (Wilson); ``agreement``, the percentage of images with the reference's answer, or for features
        ``cosine``, the mean cosine similarity with the reference's.
    """
    sums = {name: torch.zeros(2, dtype=torch.float64) for name in forms}
    images = 0
    for images_BCHW, labels_B in material.pairs():
        answers = {name: run(images_BCHW) for name, run in forms.items()}
        wanted = next(iter(answers.values()))
        for name, found in answers.items():
            sums[name] += torch.stack(
                [_right(found, labels_B, classes), _alike(found, wanted, classes)]
            ).cpu()
        images += len(labels_B)
    return {name: _row(totals.tolist(), images, material, classes) for name, totals in sums.items()}


def _right(found: Tensor, labels_B: Tensor, classes: int) -> Tensor:
    if not classes:
        return torch.zeros((), dtype=torch.float64, device=found.device)
    return (found.argmax(1) == labels_B).double().sum()


def _alike(found: Tensor, wanted: Tensor, classes: int) -> Tensor:
    if not classes:
        return F.cosine_similarity(found.flatten(1), wanted.flatten(1)).double().sum()
    return (found.argmax(1) == wanted.argmax(1)).double().sum()


def _row(totals: list[float], images: int, material: EvaluationImages, classes: int) -> Row:
    right, alike = totals
    row: Row = {"images": images, "part": material.part}
    if classes and material.labelled:
        low, high = wilson(round(right), images)
        row |= {"top1": 100 * right / images, "top1_low": 100 * low, "top1_high": 100 * high}
    return row | ({"agreement": 100 * alike / images} if classes else {"cosine": alike / images})
