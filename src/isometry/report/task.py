"""The section on boxes or masks: scores, classes, and the best and the worst pictures, drawn and in words."""

from collections import Counter
from typing import Any

import numpy as np

from isometry.report import formats
from isometry.report.drawing.boxes import IGNORED, boxes_svg, class_colour, errors_svg, mask_svg
from isometry.report.records.data import PARTS, Row, TaskData, TaskPicture
from isometry.report.tables import TASK_FIGURES, Grid, figure, grid

EXPLAINED = {
    "detect": "AP is COCO's average precision: the mean over classes and over the overlaps (IoU) 0.50 to 0.95 that a "
    "box needs to be right; AP50 and AP75 are those at one overlap, and small, medium and large that of objects of one "
    "size: small ones have fewer than 32² pixels, large ones 96² or more. AR@100 is the average recall: the share of "
    "the objects that at most 100 boxes of a picture find, as a mean over the same overlaps.",
    "segment": "IoU of a class: pixels that are right, by those that the mask or the answer have of it; mIoU is the "
    "mean over classes.",
}
MARKS = {
    "detect": "A solid line and ✓ mark what is right, dashes and ✗ a wrong class, dots and ✗ a box without an object; "
    "objects that were not found are dashed in the truth.",
    "segment": "The last picture of each row has the wrong pixels striped. Class 0 has no colour.",
}
TITLES = {"detect": "Boxes", "segment": "Masks"}
FIGURES = {key: name.removeprefix("AP ") for key, name in TASK_FIGURES.items()} | {"ar100": "AR@100"}
"""Scores of a part with their headings, which fit a terminal of 80 columns."""
INTERVAL = "95 % interval over pictures"
SCORES = {"detect": "F1", "segment": "mean IoU"}
"""What the score of a picture is."""


def task_section(data: TaskData | None) -> dict[str, Any] | None:
    """The section by its names in the template; None for a run that classifies."""
    if data is None:
        return None
    names = [str(row["name"]) for row in data.classes]
    return {
        "title": TITLES[data.task],
        "explained": EXPLAINED[data.task],
        "interval": intervals_text(data.scores),
        "grid": scores_grid(data),
        "classes": classes_grid(data),
        "marks": " ".join(filter(None, [shown_boxes(data), MARKS[data.task], choice(data)])),
        "legend": [(class_colour(number) if number else "none", names[number]) for number in _seen(data)],
        "groups": [
            (f"{group.capitalize()} pictures", [_shown(picture, data.task, names) for picture in found])
            for group in ("worst", "best")
            if (found := [picture for picture in data.pictures if picture.group == group])
        ],
    }


def task_headline(data: TaskData) -> str:
    """The score in a sentence."""
    key = "ap" if data.task == "detect" else "miou"
    what = "an average precision (AP)" if data.task == "detect" else "a mean IoU"
    on = f"{data.images:,} images of the {PARTS.get(data.part, data.part)} part"
    if data.scores.get(key) is None:
        return f"Nothing was there to find on the {on}."
    return f"The network reaches {what} of {formats.percent(data.scores[key])} on {on}."


def task_figures(data: TaskData) -> list[tuple[str, str, str]]:
    """(label, value, detail) of the key figures at the top of the page."""
    return [
        (TASK_FIGURES[key], formats.percent(data.scores[key]), f"{INTERVAL} {ends}" if ends else "")
        for key in ("ap", "ap50", "miou")
        if data.scores.get(key) is not None
        for ends in [_ends(data.scores, key)]
    ]


def intervals_text(scores: Row) -> str:
    """The intervals of a network's scores in words; empty where there are none."""
    found = [f"{name} {ends}" for key, name in TASK_FIGURES.items() if (ends := _ends(scores, key))]
    return f"{INTERVAL}: {', '.join(found)}" if found else ""


def _ends(scores: Row, key: str) -> str:
    low, high = scores.get(f"{key}_low"), scores.get(f"{key}_high")
    if not (formats.is_number(low) and formats.is_number(high)):
        return ""
    return f"{formats.fixed(low)} to {formats.percent(high)}"


def shown_boxes(data: TaskData) -> str:
    """Which boxes pictures show, in a sentence; empty for masks."""
    if data.task == "segment":
        return ""
    if data.least_score is None:
        return "No box is right; those of each picture with the highest scores are shown."
    least = f"Boxes with a score of at least {formats.percent(data.least_score, 0)} are shown"
    if data.f1 is None:
        return f"{least}."
    return f"{least}, with which F1 over all pictures is largest: {formats.percent(data.f1)}."


def choice(data: TaskData) -> str:
    """Which pictures are shown where several have the same score, in a sentence; empty where none has 0."""
    if not data.zeros:
        return ""
    pictures = "1 picture has" if data.zeros == 1 else f"{data.zeros:,} pictures have"
    things = "objects" if data.task == "detect" else "classes"
    text = f"{pictures} {SCORES[data.task]} 0 %; of equal ones those with most {things} are shown."
    return text if any(picture.group == "best" for picture in data.pictures) else f"{text} None is above."


def _seen(data: TaskData) -> list[int]:
    """The classes of the masks that are drawn, in their order."""
    masks = [
        mask for each in data.pictures for mask in (each.truth_mask, each.answer_mask) if mask is not None
    ]
    found = {int(number) for mask in masks for number in np.unique(mask)}
    return sorted(found.intersection(range(len(data.classes))))


def scores_grid(data: TaskData) -> Grid:
    """The scores in one row; a dash for those of which there is no object."""
    headings = {key: heading for key, heading in FIGURES.items() if key in data.scores}
    cells = [formats.percent(data.scores[key]) for key in headings]
    return Grid(["part", *headings.values()], [[PARTS.get(data.part, data.part), *cells]])


def classes_grid(data: TaskData) -> Grid:
    """A row for each class."""
    columns = [
        figure("name", "class", str),
        figure("value", "AP" if data.task == "detect" else "IoU", formats.percent),
        figure("ap50", "AP50", formats.percent),
        figure("ar100", FIGURES["ar100"], formats.percent),
        figure("objects", "objects", _count),
        figure("pixels", "pixels", _count),
        figure("train", "boxes in training", _count),
    ]
    return grid(columns, data.classes)


def _count(count: int) -> str:
    return f"{count:,}"


def _shown(picture: TaskPicture, task: str, names: list[str]) -> dict[str, Any]:
    name = picture.name.rpartition("/")[2]
    title = f"{name}: {SCORES[task]} {formats.percent(picture.score, 0)}"
    if task == "detect":
        words = box_words(picture)
        drawn = [
            ("truth", boxes_svg(picture.pixels, picture.truth, f"{name}, truth")),
            ("answer", boxes_svg(picture.pixels, picture.answer, f"{name}, answer: {words}")),
        ]
    else:
        words = mask_words(picture, names)
        truth, answer = picture.truth_mask, picture.answer_mask
        assert truth is not None
        assert answer is not None
        drawn = [
            ("truth", mask_svg(picture.pixels, truth, f"{name}, truth")),
            ("answer", mask_svg(picture.pixels, answer, f"{name}, answer: {words}")),
            ("wrong pixels", errors_svg(picture.pixels, truth, answer, f"{name}, wrong pixels")),
        ]
    return {"title": title, "path": picture.name, "words": words, "drawn": drawn}


def box_words(picture: TaskPicture) -> str:
    """How many boxes are right and what is wrong: "right 3; wrong class 1 (7 81 %); missed 1 (2)"."""
    by_verdict: dict[str, list[str]] = {}
    for box in [*picture.answer, *picture.truth]:
        by_verdict.setdefault(box.verdict, []).append(box.text)
    parts = [f"right {len(by_verdict.get('right', []))}"]
    for verdict in ("wrong class", "no object", "missed"):
        if texts := by_verdict.get(verdict):
            parts.append(f"{verdict} {len(texts)} ({', '.join(texts)})")
    return "; ".join(parts)


def mask_words(picture: TaskPicture, names: list[str], most: int = 3) -> str:
    """The share of pixels that are right, and the most frequent errors: "97 % of the pixels right; 2 as 7: 31
    pixels"."""
    truth, answer = picture.truth_mask, picture.answer_mask
    assert truth is not None
    assert answer is not None
    counted = truth != IGNORED
    if not counted.any():
        return "no pixel counts"
    wrong = counted & (truth != answer)
    pairs = Counter(zip(truth[wrong].tolist(), answer[wrong].tolist(), strict=True)).most_common(most)
    share = 100 * (1 - np.count_nonzero(wrong) / np.count_nonzero(counted))
    errors = [f"{names[true]} as {names[given]}: {count:,} pixels" for (true, given), count in pairs]
    return "; ".join([f"{formats.percent(share, 0)} of the pixels right", *errors])
