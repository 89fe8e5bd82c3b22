"""Accuracy over a split, and beside it the mean of the classes' accuracies where classes differ in number."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sklearn.metrics import recall_score
from torch import Tensor, nn

from isometry.distributed import World
from isometry.evaluation.accuracy import accuracy

ALONE = World(0, 1, torch.device("cpu"))
PREPROCESS: Any = SimpleNamespace(normalise=lambda batch: batch)


class Answers(nn.Module):
    """Answers with the class that its input names."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.num_classes = classes

    def forward(self, answers_B: Tensor) -> Tensor:
        return nn.functional.one_hot(answers_B, self.num_classes).float()


def found(labels: list[int], answers: list[int], classes: int = 4) -> dict[str, float]:
    pairs = zip(torch.tensor(answers).split(7), torch.tensor(labels).split(7), strict=True)
    return accuracy(Answers(classes), list(pairs), PREPROCESS, ALONE, nullcontext)  # type: ignore[arg-type]


def test_the_mean_of_the_classes_is_that_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    labels = [0] * 40 + [1] * 3 + [3] * 9
    answers = torch.randint(0, 4, (len(labels),), generator=generator).tolist()
    right = sum(label == answer for label, answer in zip(labels, answers, strict=True))
    figures = found(labels, answers)
    assert figures["top1"] == pytest.approx(100 * right / len(labels))
    # A class without images does not count.
    assert figures["top1_by_class"] == pytest.approx(
        100 * recall_score(labels, answers, labels=[0, 1, 3], average="macro")
    )


def test_the_largest_class_alone_is_not_the_mean():
    figures = found([0] * 99 + [1], [0] * 100)
    assert figures["top1"] == pytest.approx(99)
    assert figures["top1_by_class"] == pytest.approx(50)


@pytest.mark.parametrize(("small", "shown"), [(3, False), (2, True)])
def test_it_is_shown_where_classes_differ_by_more_than_three(small: int, shown: bool):
    labels = [0] * 9 + [1] * small
    assert ("top1_by_class" in found(labels, labels)) == shown
