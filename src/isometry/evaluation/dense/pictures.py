"""Answers to pictures as the report draws them: boxes with their verdicts, or masks."""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from isometry.evaluation.dense.answers import Best, Example, Row
from isometry.evaluation.dense.detection import judge
from isometry.models.dense.network import DenseNetwork
from isometry.report.records.data import DrawnBox, TaskData, TaskPicture, Verdict


def task_data(
    network: DenseNetwork, scores: Row, part: str, examples: Best, where: Callable[[int], str]
) -> TaskData:
    """The section of the report on boxes or masks; ``where`` names a picture of the part by its number."""
    rest = {key: value for key, value in scores.items() if key not in ("images", "classes")}
    pictures = [
        _picture(network, example, group, where(example.index))
        for group, found in examples.groups.items()
        for example in found
    ]
    return TaskData(network.task, part, scores["images"], rest, scores["classes"], pictures)


def _picture(network: DenseNetwork, example: Example, group: Any, name: str) -> TaskPicture:
    pixels = np.ascontiguousarray(example.pixels.permute(1, 2, 0).numpy())
    drawn = _boxes(network, example) if network.task == "detect" else _masks(example)
    return TaskPicture(name, group, example.score, pixels, **drawn)


def _masks(example: Example) -> dict[str, Any]:
    masks = {"truth_mask": example.truth, "answer_mask": example.answer}
    return {name: mask.numpy().astype(np.uint8) for name, mask in masks.items()}


def _boxes(network: DenseNetwork, example: Example) -> dict[str, Any]:
    names, truth, found = network.class_names, example.truth, example.answer
    judged = judge(found, truth)
    verdicts: list[Verdict] = ["found"] * len(truth["labels"])
    for place in range(len(verdicts)):
        if truth["crowd"][place]:
            verdicts[place] = "crowd"
        elif place in judged.missed:
            verdicts[place] = "missed"
    return {
        "truth": [
            DrawnBox(_corners(truth["boxes"][place]), names[truth["labels"][place]], verdict)
            for place, verdict in enumerate(verdicts)
        ],
        "answer": [
            DrawnBox(
                _corners(found["boxes"][place]),
                f"{names[found['labels'][place]]} {100 * float(found['scores'][place]):.0f} %",
                verdict,
            )
            for place, verdict in zip(judged.shown, judged.verdicts, strict=True)
        ],
    }


def _corners(box_4: Tensor) -> Any:
    return tuple(round(value, 2) for value in box_4.tolist())
