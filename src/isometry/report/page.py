"""The report of a run: one HTML file that needs no other file and no network."""

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from isometry.errors import printable
from isometry.files import write_output
from isometry.report import formats
from isometry.report.dense import dense_section
from isometry.report.drawing.charts import Chart, line_charts
from isometry.report.drawing.colours import palette_css
from isometry.report.drawing.cost import COSTS, LATENCY, bench_points, cost_charts, model_points
from isometry.report.drawing.images import scale_png
from isometry.report.drawing.matrices import matrix_svg
from isometry.report.drawing.panels import epoch_range, never_finite, panels
from isometry.report.growth import growth_section
from isometry.report.headline import gap_sentence, headline, key_figures
from isometry.report.pruning import pruning_section
from isometry.report.records.data import ReportData, Row, by_role
from isometry.report.relations import block_maps
from isometry.report.tables import models_grid, runtimes_grid
from isometry.report.task import task_figures, task_headline, task_section
from isometry.report.times import times_section


def write_page(path: Path, page: str) -> None:
    """Writes a page, whole or not at all: an older one stays if this one fails.

    Raises:
        UserError: the file cannot be written, or would replace one that is the user's, or was changed.
    """
    write_output(path, page.encode("utf-8", errors="replace"))


def render_report(data: ReportData, bench: Row | None = None, dense: Row | None = None) -> str:
    """A run's page: the same data give the same characters, and the page requests no other file. ``bench`` has "name"
    and "forms" of the network, as `isometry bench` measured it since, and ``dense`` the "figures" that `isometry
    evaluate --dense` did."""
    return rendered(
        "run.html.j2",
        data=data,
        headline=task_headline(data.task)
        if data.task
        else headline(data.models, data.epochs, data.relations),
        figures=[*(task_figures(data.task) if data.task else []), *key_figures(data.models)],
        charts=_curves(data),
        costs=_costs(data, bench),
        never_finite=never_finite(data.epochs),
        blocks=block_maps([("", data)]),
        gap_sentence=gap_sentence(data.relations),
        grid=models_grid(data.models) if data.models else None,
        roles=[row.get("role") or "" for row in data.models],
        benched=runtimes_grid([bench]) if bench else None,
        dense=dense_section(dense or {}),
        details=details(data),
    )


def details(data: ReportData) -> dict[str, Any]:
    """The sections on one run alone, by their names in the template; a page of several runs shows them for each."""
    labels = data.student_blocks, data.teacher_blocks
    return {
        "task": task_section(data.task),
        "growth": growth_section(data.stages),
        "pruning": pruning_section(data.pruning),
        "matrices": [(name, matrix_svg(matrix, *labels, f"CKA {name}")) for name, matrix in data.cka.items()],
        "times": times_section(
            data.times, data.epochs, data.waiting, (by_role(data.models, "student") or {}).get("seconds")
        ),
        "facts": data.facts,
        "config_yaml": data.config_yaml,
    }


def rendered(name: str, **context: Any) -> str:
    """The template of that name, filled."""
    folder = files("isometry.report")

    def text(file: str) -> str:
        return folder.joinpath(file).read_text(encoding="utf-8")

    environment = Environment(
        autoescape=True,
        finalize=_lines_as_text,
        undefined=StrictUndefined,
        loader=FunctionLoader(text),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"tight": _tight, "nested": _nested}
    environment.globals |= {"number": formats.number, "scale": scale_png()}
    style = Markup(f"{palette_css()}\n{text('style.css')}")
    return environment.get_template(name).render(style=style, **context)


def _curves(data: ReportData) -> list[Chart]:
    if not data.epochs:
        return []
    teacher = by_role(data.models, "teacher") or {}
    # The curves are of the validation part, so a teacher's figure on another part is not comparable.
    comparable = teacher.get("top1_part") == "val" and formats.is_number(teacher.get("top1"))
    reference = (teacher["top1"], "teacher") if comparable else None
    return line_charts(panels(data.epochs), epoch_range(data.epochs), data.marks, reference)


def _costs(data: ReportData, bench: Row | None) -> list[Chart]:
    """Accuracy against cost: the models of the run's table, and the network as `isometry bench` measured it."""
    part = data.models[-1].get("top1_part") if data.models else None
    charts = cost_charts([(cost, model_points(data.models, cost.key)) for cost in COSTS], part)
    if not bench:
        return charts
    return charts + cost_charts([(LATENCY, bench_points([bench]))], bench["forms"][-1].get("top1_part"))


def _nested(part: Markup, prefix: str) -> Markup:
    """A part of the page with ids of its own, so that it can occur more than once, and its headings two levels
    further down."""
    renamed = re.sub(r'(\bid="|xlink:href="#|"url\(#)', rf"\g<1>{prefix}-", str(part))
    return Markup(re.sub(r"(</?h)([2-4])>", lambda found: f"{found[1]}{int(found[2]) + 2}>", renamed))


def _lines_as_text(value: Any) -> Any:
    """Text without control characters, as HTML wants it; its line breaks stay."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return "\n".join(map(printable, value.split("\n")))
    return value


def _tight(text: str) -> str:
    """Keeps a number and its unit on one line, and sets apostrophes as in print."""
    return re.sub(r"(?<=[\d%]) (?=[%kMGT±])", "\u00a0", text).replace("'", "’")
