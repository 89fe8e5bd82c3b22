"""The best and the worst pictures of a split, read again with their answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from isometry.data import Preprocess
from isometry.data.dense.batches import DenseEvaluation
from isometry.data.dense.placement import Placement
from isometry.evaluation.dense.answers import Answers, PictureScore, answering
from isometry.models.dense.network import DenseNetwork

EXAMPLES = 4
"""Pictures of the best, and as many of the worst."""


@dataclass(frozen=True)
class Example:
    """A picture as the network saw it: ``pixels`` uint8 (C, H, W), ``placement`` in them; and how well it was
    answered.

    ``truth`` and ``answer`` of masks are in pixels of the network's input, None for boxes.
    """

    picture: PictureScore
    pixels: Tensor
    placement: Placement
    truth: Tensor | None = None
    answer: Tensor | None = None


def extremes(pictures: Sequence[PictureScore], most: int = EXAMPLES) -> dict[str, list[PictureScore]]:
    """By "worst" and "best", each from its end on: of equal scores those with most objects, then the first.

    None is in both; none of score 0 is among the best.
    """
    by_score = sorted(pictures, key=lambda each: (-each.score, -each.objects, each.place))
    best = [each for each in by_score[:most] if each.score > 0]
    rest = sorted(set(pictures) - set(best), key=lambda each: (each.score, -each.objects, each.place))
    return {"worst": rest[:most], "best": best}


def read_examples(
    network: DenseNetwork, loader: DenseEvaluation, preprocess: Preprocess, answers: Answers
) -> dict[str, list[Example]]:
    """The :func:`extremes` of the split that ``loader`` reads, answered again where there are masks."""
    with answering(network):
        return {
            name: [_read(network, loader, preprocess, picture) for picture in group]
            for name, group in extremes(answers.pictures).items()
        }


def _read(
    network: DenseNetwork, loader: DenseEvaluation, preprocess: Preprocess, picture: PictureScore
) -> Example:
    batch = loader.read([picture.index])
    masks: dict[str, Any] = {}
    if network.task == "segment":
        images, truth_1HW = preprocess.normalise(batch)
        masks = {"truth": truth_1HW[0].cpu(), "answer": network(images)[0].argmax(0).cpu()}
    return Example(picture, batch.images[0], batch.placements[0], **masks)
