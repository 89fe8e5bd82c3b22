"""Answers to pictures as the report draws them: boxes with their verdicts, or masks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from isometry.data.dense.annotations import DenseImages
from isometry.data.dense.summary import class_counts
from isometry.evaluation.dense.answers import Answers, Row
from isometry.evaluation.dense.examples import Example
from isometry.report.records.data import DrawnBox, TaskData, TaskPicture, Verdict


def task_data(
    answers: Answers,
    scores: Row,
    part: str,
    examples: Mapping[str, Sequence[Example]],
    where: Callable[[int], str],
    train: DenseImages,
) -> TaskData:
    """The section of the report on boxes or masks.

    ``scores`` are those of ``answers``, ``where`` names a picture of the part by its number, and ``train`` is the
    training part, whose boxes of each class are counted.
    """
    rest = {key: value for key, value in scores.items() if key not in ("images", "classes")}
    pictures = [
        _picture(answers, example, group, where(example.picture.index))
        for group, found in examples.items()
        for example in found
    ]
    zeros = sum(each.score == 0 for each in answers.pictures)
    chosen: dict[str, Any] = {"zeros": zeros}
    classes = scores["classes"]
    if answers.task == "detect":
        best = answers.threshold
        chosen |= {"least_score": best and 100 * best.least, "f1": best and best.f1}
        counts, _ = class_counts(train)
        classes = [{**row, "train": counts[label]} for label, row in enumerate(classes)]
    return TaskData(answers.task, part, scores["images"], rest, classes, pictures, **chosen)


def _picture(answers: Answers, example: Example, group: Any, name: str) -> TaskPicture:
    pixels = np.ascontiguousarray(example.pixels.permute(1, 2, 0).numpy())
    drawn = _boxes(answers, example) if answers.task == "detect" else _masks(example)
    return TaskPicture(name, group, example.picture.score, pixels, **drawn)


def _masks(example: Example) -> dict[str, Any]:
    assert example.truth is not None
    assert example.answer is not None
    masks = {"truth_mask": example.truth, "answer_mask": example.answer}
    return {name: mask.numpy().astype(np.uint8) for name, mask in masks.items()}


def _boxes(answers: Answers, example: Example) -> dict[str, Any]:
    place, names = example.picture.place, answers.names
    truth, found, judged = answers.truths[place], answers.found[place], answers.judged(place)
    verdicts: list[Verdict] = ["found"] * len(truth["labels"])
    for number in range(len(verdicts)):
        if truth["crowd"][number]:
            verdicts[number] = "crowd"
        elif number in judged.missed:
            verdicts[number] = "missed"

    def corners(boxes_M4: Tensor) -> list[Any]:
        moved = example.placement.to_input(boxes_M4.numpy())
        return [tuple(round(value, 2) for value in box) for box in moved.tolist()]

    places, answered = corners(truth["boxes"]), corners(found["boxes"])
    return {
        "truth": [
            DrawnBox(places[number], names[truth["labels"][number]], verdict)
            for number, verdict in enumerate(verdicts)
        ],
        "answer": [
            DrawnBox(
                answered[number],
                f"{names[found['labels'][number]]} {100 * float(found['scores'][number]):.0f} %",
                verdict,
            )
            for number, verdict in zip(judged.shown, judged.verdicts, strict=True)
        ],
    }
