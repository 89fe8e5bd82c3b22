"""The outcome of a run in words: one sentence, and the few figures that carry it."""

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from isometry.report import formats
from isometry.report.records.data import RelationMaps, Row

FAR_BELOW = 0.9
"""A student under this share of its teacher's accuracy is said to fall short, not to keep something."""
SAME = 0.05
"""Accuracies that differ by less, in points, read the same at one decimal."""


class KeyFigure(NamedTuple):
    """One large figure at the top of the page."""

    label: str
    value: str
    detail: str


def headline(
    models: Sequence[Row], epochs: Sequence[Row] = (), relations: Sequence[RelationMaps] = ()
) -> str:
    """The sentence that opens a report: what the student reached, against its teacher where both were
    measured on the same part of the data, and said plainly when that is bad or unknown."""
    teacher, student = by_role(models, "teacher"), by_role(models, "student")
    if student is None or not formats.is_number(student.get("top1")):
        return _without_accuracy(epochs, relations)
    if teacher is None or not formats.is_number(teacher.get("top1")):
        return f"{_reached(student)}."
    if teacher.get("top1_part") != student.get("top1_part"):
        return f"{_reached(student)}; its teacher was measured on other images, so the two are not compared."
    return _against(student, teacher)


def gap_sentence(relations: Sequence[RelationMaps]) -> str:
    """How far the student's relation maps moved towards the teacher's, over all blocks."""
    before = fmean(maps.gap_before for maps in relations)
    after = fmean(maps.gap_after for maps in relations)
    if not (formats.is_number(before) and formats.is_number(after)):
        return "The gap to the teacher's cosines is not finite."
    blocks = "one block" if len(relations) == 1 else f"{len(relations)} blocks"
    gap = f"Over {blocks}, the mean squared difference to the teacher's cosines"
    if before == after:
        return f"{gap} stayed at {formats.number(after)}."
    verb = "fell" if after < before else "rose"
    return f"{gap} {verb} from {formats.number(before)} to {formats.number(after)}{change(before, after)}."


def change(before: float, after: float) -> str:
    """The relative change in brackets: " (−86 %)"; empty where it means nothing."""
    if not (formats.is_number(before) and formats.is_number(after)) or before <= 0:
        return ""
    return f" ({formats.signed(100 * (after / before - 1), 0)} %)"


def key_figures(models: Sequence[Row]) -> list[KeyFigure]:
    """The student's accuracy, parameters, MACs and speed, each beside its teacher's, where measured."""
    student, teacher = by_role(models, "student"), by_role(models, "teacher") or {}
    if student is None:
        return []
    figures = []
    if formats.is_number(student.get("top1")):
        same_part = teacher.get("top1_part") == student.get("top1_part")
        compared = same_part and formats.is_number(teacher.get("top1"))
        detail = f"teacher {formats.percent(teacher.get('top1'))}" if compared else ""
        label = f"top-1 accuracy{_on(student)}"
        figures.append(KeyFigure(label, formats.percent(student["top1"]), detail))
    for key, label, write in (
        ("params", "parameters", formats.params),
        ("macs", "multiply–accumulates", formats.macs),
    ):
        if formats.is_number(student.get(key)):
            share = _share(student, teacher, key)
            detail = f"{share} the teacher's {write(teacher[key])}" if share else ""
            figures.append(KeyFigure(label, write(student[key]), detail))
    if formats.is_number(speed := student.get("images_per_s")):
        other = teacher.get("images_per_s")
        detail = ""
        if formats.is_number(other) and other > 0:
            detail = f"{formats.rate(speed / other)} times the teacher's {formats.rate(other)}"
        figures.append(KeyFigure("images a second", formats.rate(speed), detail))
    return figures


def by_role(models: Sequence[Row], role: str) -> Row | None:
    """The row whose "role" is `role`; a lone row without any role is the student."""
    for row in models:
        if row.get("role") == role:
            return row
    alone = role == "student" and len(models) == 1 and not models[0].get("role")
    return models[0] if alone else None


def best_epoch(epochs: Sequence[Row]) -> tuple[float, float] | None:
    """(top-1 in percent, epoch) of the best validation, over the model and its EMA; None without one."""
    found = [
        (row[key], row.get("epoch", position))
        for position, row in enumerate(epochs)
        for key in row
        if key.endswith("/top1") and key != "train/top1" and formats.is_number(row[key])
    ]
    return max(found, key=lambda pair: pair[0]) if found else None


def _against(student: Row, teacher: Row) -> str:
    mine, its = student["top1"], teacher["top1"]
    share = _share(student, teacher, "params")
    size = f" with {share} its parameters" if share else ""
    after_comma = f",{size}" if size else ""
    if abs(mine - its) < SAME:
        return f"The student matches its teacher at {formats.percent(mine)}{after_comma}."
    if mine > its:
        gain = f"{mine - its:.1f} points above its teacher"
        return f"The student reaches {formats.percent(mine)}, {gain}{after_comma}."
    if mine < FAR_BELOW * its:
        both = f"{formats.percent(mine)} against {formats.percent(its)}"
        return f"The student falls well short of its teacher: {both}{after_comma}."
    return f"The student keeps {formats.percent(100 * mine / its)} of the teacher's accuracy{size}."


def _reached(student: Row) -> str:
    size = f" with {formats.params(student['params'])} parameters" if student.get("params") else ""
    return f"The student reaches {formats.percent(student['top1'])} top-1{_on(student)}{size}"


def _without_accuracy(epochs: Sequence[Row], relations: Sequence[RelationMaps]) -> str:
    if best := best_epoch(epochs):
        return f"The best validation accuracy is {formats.percent(best[0])}, in epoch {best[1]:g}."
    if relations:
        return f"No accuracy was measured. {gap_sentence(relations)}"
    return "No accuracy was measured in this run."


def _share(student: Row, teacher: Row, key: str) -> str:
    mine, its = student.get(key), teacher.get(key)
    if not (formats.is_number(mine) and formats.is_number(its)) or its <= 0:
        return ""
    share = mine / its
    return f"{formats.percent(100 * share)} of" if share <= 1 else f"{share:.3g} times"


def _on(row: Row) -> str:
    names = {"test": "the test part", "val": "the validation part"}
    part = row.get("top1_part")
    return f" on {names.get(part, part)}" if part else ""
