"""The report: one HTML file that needs nothing else, offline or on."""

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from isometry.report import formats
from isometry.report.data import RelationMaps, ReportData, Row
from isometry.report.growth import growth_grid, growth_sentence
from isometry.report.headline import by_role, change, gap_sentence, headline, key_figures
from isometry.report.panels import Panel, epoch_range, never_finite, panels
from isometry.report.pictures import colour_range, curve_svg, map_png, matrix_svg, scale_png, stages_svg
from isometry.report.pruning import pruning_section
from isometry.report.saving import write_whole
from isometry.report.tables import Grid, models_grid
from isometry.report.times import times_section

# CSS pixels. The first chart spans two columns of the page; on a narrow page its narrow twin stands in.
WIDE, TALL, SMALL = (716, 280), (344, 280), (344, 180)


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


class MapRow(NamedTuple):
    """The three maps of one block under one colour scale."""

    block: str
    maps: list[tuple[str, str, str]]
    """(whose map, data URI, what its gap is)."""
    low: str
    high: str


def write_report(path: Path, data: ReportData) -> None:
    """Write `render_report(data)` to `path`, whole or not at all: an older report stays if this one fails.

    Raises:
        UserError: the file cannot be written.
    """
    write_whole(path, render_report(data).encode("utf-8", errors="replace"))


def render_report(data: ReportData) -> str:
    """The page as a string: the same data give the same characters, and the page asks for no other file."""
    home = files("isometry.report")
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["tight"] = _tight
    template = environment.from_string(home.joinpath("template.html.j2").read_text(encoding="utf-8"))
    return template.render(
        data=data,
        style=Markup(home.joinpath("style.css").read_text(encoding="utf-8")),
        headline=headline(data.models, data.epochs, data.relations),
        figures=key_figures(data.models),
        charts=_charts(data),
        never_finite=never_finite(data.epochs),
        growth=_growth(data.stages) if data.stages else None,
        pruning=pruning_section(data.pruning, WIDE, TALL) if data.pruning else None,
        times=times_section(data.times, data.epochs, WIDE[0], TALL[0]),
        maps=[_map_row(maps) for maps in data.relations],
        gap_sentence=gap_sentence(data.relations) if data.relations else "",
        matrices=_matrices(data),
        scale=scale_png(),
        grid=models_grid(data.models) if data.models else None,
        roles=[row.get("role") or "" for row in data.models],
        number=formats.number,
    )


def _charts(data: ReportData) -> list[Chart]:
    found = panels(data.epochs)
    if not found:
        return []
    axis = epoch_range(data.epochs)
    charts = []
    for index, panel in enumerate(found):
        reference = _teacher_line(data.models) if panel.key == "top1" else None

        def draw(size: tuple[int, int], panel: Panel = panel, reference: Any = reference) -> Markup:
            named = size[0] == WIDE[0]
            return Markup(curve_svg(panel, size, axis, data.marks, reference, name_marks=named))

        size = WIDE if index == 0 else TALL if index == 1 else SMALL
        charts.append(Chart(panel, draw(size), draw(TALL) if index == 0 else None))
    return charts


def _teacher_line(models: Sequence[Row]) -> tuple[float, str] | None:
    # The curves are of the validation part: a teacher's figure from another part has no place among them.
    teacher = by_role(models, "teacher")
    if teacher and teacher.get("top1_part") == "val" and formats.is_number(teacher.get("top1")):
        return teacher["top1"], "teacher"
    return None


def _growth(stages: Sequence[Row]) -> Growth:
    wide, narrow = (Markup(stages_svg(stages, size[0])) for size in (WIDE, TALL))
    return Growth(growth_sentence(stages), growth_grid(stages), wide, narrow)


def _map_row(maps: RelationMaps) -> MapRow:
    low, high = colour_range([maps.teacher, maps.before, maps.after])
    gap_after = f"gap {formats.number(maps.gap_after)}{change(maps.gap_before, maps.gap_after)}"
    drawn = [
        ("teacher", map_png(maps.teacher, low, high), ""),
        ("student before", map_png(maps.before, low, high), f"gap {formats.number(maps.gap_before)}"),
        ("student after", map_png(maps.after, low, high), gap_after),
    ]
    return MapRow(maps.block, drawn, formats.number(low), formats.number(high))


def _matrices(data: ReportData) -> list[tuple[str, Markup]]:
    both = (("before training", data.cka_before), ("after training", data.cka_after))
    return [
        (name, Markup(matrix_svg(matrix, data.student_blocks, data.teacher_blocks, f"CKA {name}")))
        for name, matrix in both
        if matrix is not None
    ]


def _tight(text: str) -> str:
    """Keep a number and its unit on one line, and set apostrophes as print does."""
    return re.sub(r"(?<=\d) (?=[%kMGT±])", "\u00a0", text).replace("'", "’")
