"""The result of a run: one sentence, and the key figures at the top of the page."""

from collections.abc import Sequence
from statistics import fmean

from isometry.report import formats
from isometry.report.records.data import RelationMaps, Row, by_role, on_part

FAR_BELOW = 0.9
"""Share of the teacher's accuracy under which a student falls short of it."""
SAME = 0.05
"""Accuracies that differ by less, in points, read the same at one decimal."""
THE_PART = " on the {} part"
COSTS = (
    ("params", "parameters", formats.params),
    ("macs", "multiply–accumulates", formats.macs),
    ("images_per_s", "images a second", formats.rate),
)


def headline(
    models: Sequence[Row], epochs: Sequence[Row] = (), relations: Sequence[RelationMaps] = ()
) -> str:
    """The accuracy of the student in a sentence, compared with its teacher's where both were measured on the same part
    of the data."""
    teacher, student = by_role(models, "teacher"), by_role(models, "student")
    if student is None or not formats.is_number(student.get("top1")):
        if best := best_validation(epochs):
            return f"The best validation accuracy is {formats.top1(best)}, in epoch {best['epoch']:g}."
        measured = f"No accuracy was measured. {gap_sentence(relations)}"
        return measured if relations else "No accuracy was measured in this run."
    if teacher is not None and _comparable(student, teacher):
        return _against(student, teacher)
    on = on_part(student.get("top1_part"), THE_PART)
    size = f" with {formats.params(student['params'])} parameters" if student.get("params") else ""
    reached = f"The student reaches {formats.percent(student['top1'])} top-1{on}{size}{_by_class(student)}"
    if teacher is None or not formats.is_number(teacher.get("top1")):
        return f"{reached}."
    return f"{reached}; its teacher was measured on other images, so the two are not compared."


def gap_sentence(relations: Sequence[RelationMaps]) -> str:
    """The change of the gap between the student's relation maps and the teacher's, a mean over all blocks; empty
    without maps."""
    if not relations:
        return ""
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
    """The relative change in brackets: " (−86 %)"; empty where it is not defined."""
    if not (formats.is_number(before) and formats.is_number(after)) or before <= 0:
        return ""
    return f" ({formats.signed(100 * (after / before - 1), 0)} %)"


def key_figures(models: Sequence[Row]) -> list[tuple[str, str, str]]:
    """(label, value, detail) of the student's accuracy, parameters, MACs and speed, each with its teacher's, where
    measured."""
    student, teacher = by_role(models, "student"), by_role(models, "teacher") or {}
    if student is None:
        return []
    figures = []
    if formats.is_number(student.get("top1")):
        comparable = _comparable(student, teacher)
        details = [_mean_of_classes(student), f"teacher {formats.top1(teacher)}" if comparable else ""]
        detail = "; ".join(filter(None, details))
        on = on_part(student.get("top1_part"), THE_PART)
        figures.append((f"top-1 accuracy{on}", formats.percent(student["top1"]), detail))
    for key, label, write in COSTS:
        if formats.is_number(student.get(key)):
            share = _share(student, teacher, key)
            detail = f"{share} the teacher's {write(teacher[key])}" if share else ""
            figures.append((label, write(student[key]), detail))
    return figures


def best_validation(epochs: Sequence[Row]) -> Row | None:
    """``top1``, ``top1_by_class`` (if there is one) and ``epoch`` of the best validation, over the model and its EMA;
    None without one."""
    found = [
        {"top1": row[key], "top1_by_class": row.get(f"{key}_by_class"), "epoch": row.get("epoch", index)}
        for index, row in enumerate(epochs)
        for key in row
        if key.endswith("/top1") and key != "train/top1" and formats.is_number(row[key])
    ]
    return max(found, key=lambda each: float(each["top1"])) if found else None


def _comparable(student: Row, teacher: Row) -> bool:
    return formats.is_number(teacher.get("top1")) and teacher.get("top1_part") == student.get("top1_part")


def _against(student: Row, teacher: Row) -> str:
    reached, teachers = student["top1"], teacher["top1"]
    share = _share(student, teacher, "params")
    size = f" with {share} its parameters" if share else ""
    comma = "," if size else ""
    end = f"{_by_class(student, teacher)}."
    if abs(reached - teachers) < SAME:
        return f"The student matches its teacher at {formats.percent(reached)}{comma}{size}{end}"
    if reached > teachers:
        gain = f"{reached - teachers:.1f} points above its teacher"
        return f"The student reaches {formats.percent(reached)}, {gain}{comma}{size}{end}"
    if reached < FAR_BELOW * teachers:
        both = f"{formats.percent(reached)} against {formats.percent(teachers)}"
        return f"The student falls well short of its teacher: {both}{comma}{size}{end}"
    return (
        f"The student keeps {formats.percent(100 * reached / teachers)} of the teacher's accuracy{size}{end}"
    )


def _mean_of_classes(row: Row) -> str:
    value = row.get("top1_by_class")
    return f"mean of classes {formats.percent(value)}" if formats.is_number(value) else ""


def _by_class(student: Row, teacher: Row | None = None) -> str:
    """Goes on with the mean of the classes' accuracies, and the teacher's, where classes differ much in number."""
    if not (found := _mean_of_classes(student)):
        return ""
    theirs = teacher.get("top1_by_class") if teacher else None
    against = f" against the teacher's {formats.percent(theirs)}" if formats.is_number(theirs) else ""
    return f"; {found}{against}"


def _share(student: Row, teacher: Row, key: str) -> str:
    value, teachers = student.get(key), teacher.get(key)
    if not (formats.is_number(value) and formats.is_number(teachers)) or teachers <= 0:
        return ""
    share = value / teachers
    return f"{formats.percent(100 * share)} of" if share <= 1 else f"{share:.3g} times"
