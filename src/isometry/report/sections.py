"""A run's sections of the page, drawn: what `ReportData` has, in words, tables and pictures."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from isometry.report import formats
from isometry.report.drawing.charts import curve_svg, stages_svg
from isometry.report.drawing.cost import COSTS, CostChart, cost_charts, model_points
from isometry.report.drawing.matrix import matrix_svg
from isometry.report.drawing.panels import Panel, epoch_range, panels
from isometry.report.growth import growth_grid, growth_sentence
from isometry.report.headline import by_role
from isometry.report.pruning import pruning_section
from isometry.report.records.data import ReportData, Row
from isometry.report.tables import Grid
from isometry.report.times import times_section

# CSS pixels. The first chart spans two columns of the page; on a narrow page its narrow twin stands in.
WIDE, TALL, SMALL = (716, 280), (344, 280), (344, 180)
HALF = (530, 320)
"""Of a chart that is one of two beside each other."""


class Chart(NamedTuple):
    """One panel, drawn."""

    panel: Panel
    svg: Markup
    narrow_svg: Markup | None
    """The same for a narrow page; None where `svg` fits both."""


class Growth(NamedTuple):
    """The stages of a run that grew: in words, in figures and drawn for a wide and for a narrow page."""

    sentence: str
    grid: Grid
    svg: Markup
    narrow_svg: Markup


def details(data: ReportData) -> dict[str, Any]:
    """By name in the template, the sections that a run has to itself, also where several are compared."""
    return {
        "growth": _growth(data.stages) if data.stages else None,
        "pruning": pruning_section(data.pruning, WIDE, TALL) if data.pruning else None,
        "matrices": _matrices(data),
        "times": times_section(data.times, data.epochs, WIDE[0], TALL[0]),
        "facts": data.facts,
        "config_yaml": data.config_yaml,
    }


def run_charts(data: ReportData) -> list[Chart]:
    """The curves of one run."""
    if not data.epochs:
        return []
    reference = _teacher_line(data.models)
    return charts(panels(data.epochs), epoch_range(data.epochs), data.marks, reference)


def charts(
    found: Sequence[Panel],
    axis: tuple[float, float],
    marks: Sequence[tuple[float, str]] = (),
    reference: tuple[float, str] | None = None,
) -> list[Chart]:
    """Panels, drawn: the first one large, the second beside it, the others small.

    Args:
        found: the panels.
        axis: first and last epoch of their common axis.
        marks: (epoch, label) of vertical lines.
        reference: (value, label) of a line across the panel of top-1.
    """
    drawn = []
    for index, panel in enumerate(found):
        line = reference if panel.key == "top1" else None

        def draw(size: tuple[int, int], panel: Panel = panel, line: Any = line) -> Markup:
            return Markup(curve_svg(panel, size, axis, marks, line, name_marks=size[0] == WIDE[0]))

        size = WIDE if index == 0 else TALL if index == 1 else SMALL
        drawn.append(Chart(panel, draw(size), draw(TALL) if index == 0 else None))
    return drawn


def run_costs(data: ReportData) -> list[CostChart]:
    """The models of one run's table, accuracy against cost."""
    part = data.models[-1].get("top1_part") if data.models else None
    points = [(cost, model_points(data.models, cost.key)) for cost in COSTS]
    return cost_charts(points, part, HALF, TALL)


def _teacher_line(models: Sequence[Row]) -> tuple[float, str] | None:
    # The curves are of the validation part: a teacher's figure from another part has no place among them.
    teacher = by_role(models, "teacher")
    if teacher and teacher.get("top1_part") == "val" and formats.is_number(teacher.get("top1")):
        return teacher["top1"], "teacher"
    return None


def _growth(stages: Sequence[Row]) -> Growth:
    wide, narrow = (Markup(stages_svg(stages, size[0])) for size in (WIDE, TALL))
    return Growth(growth_sentence(stages), growth_grid(stages), wide, narrow)


def _matrices(data: ReportData) -> list[tuple[str, Markup]]:
    both = (("before training", data.cka_before), ("after training", data.cka_after))
    return [
        (name, Markup(matrix_svg(matrix, data.student_blocks, data.teacher_blocks, f"CKA {name}")))
        for name, matrix in both
        if matrix is not None
    ]
