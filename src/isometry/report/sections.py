"""A run's sections of the page: what `ReportData` has, as text, tables and pictures."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from isometry.report import formats
from isometry.report.drawing.charts import Chart, line_chart
from isometry.report.drawing.cost import COSTS, LATENCY, bench_points, cost_charts, model_points
from isometry.report.drawing.matrix import matrix_svg
from isometry.report.drawing.panels import Panel, epoch_range, panels
from isometry.report.growth import growth_section
from isometry.report.pruning import pruning_section
from isometry.report.records.data import ReportData, Row, by_role
from isometry.report.times import times_section


def details(data: ReportData) -> dict[str, Any]:
    """The sections on one run alone, by their names in the template; a page of several runs shows them for each."""
    return {
        "growth": growth_section(data.stages),
        "pruning": pruning_section(data.pruning),
        "matrices": _matrices(data),
        "times": times_section(data.times, data.epochs),
        "facts": data.facts,
        "config_yaml": data.config_yaml,
    }


def run_charts(data: ReportData) -> list[Chart]:
    """The curves of one run."""
    if not data.epochs:
        return []
    return line_charts(panels(data.epochs), epoch_range(data.epochs), data.marks, _reference(data.models))


def line_charts(
    found: Sequence[Panel],
    epochs: tuple[float, float],
    marks: Sequence[tuple[float, str]] = (),
    reference: tuple[float, str] | None = None,
) -> list[Chart]:
    """Panels, drawn: marks are labelled in the first one, and the reference is a line in the panel of top-1."""
    unlabelled = [(epoch, "") for epoch, _ in marks]
    return [
        line_chart(
            panel, epochs, unlabelled if index else marks, reference if panel.metric == "top1" else None
        )
        for index, panel in enumerate(found)
    ]


def run_costs(data: ReportData, bench: Row) -> list[Chart]:
    """Accuracy against cost: the models of one run's table, and the run as `isometry bench` measured it."""
    part = data.models[-1].get("top1_part") if data.models else None
    charts = cost_charts([(cost, model_points(data.models, cost.key)) for cost in COSTS], part)
    if not bench:
        return charts
    return charts + cost_charts([(LATENCY, bench_points([bench]))], bench["forms"][-1].get("top1_part"))


def _reference(models: Sequence[Row]) -> tuple[float, str] | None:
    # The curves are of the validation part, so a teacher's figure on another part is not comparable.
    teacher = by_role(models, "teacher")
    if teacher and teacher.get("top1_part") == "val" and formats.is_number(teacher.get("top1")):
        return teacher["top1"], "teacher"
    return None


def _matrices(data: ReportData) -> list[tuple[str, Markup]]:
    both = (("before training", data.cka_before), ("after training", data.cka_after))
    return [
        (name, matrix_svg(matrix, data.student_blocks, data.teacher_blocks, f"CKA {name}"))
        for name, matrix in both
        if matrix is not None
    ]
