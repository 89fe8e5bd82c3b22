"""The report: one HTML file that needs nothing else, offline or on."""

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from isometry.files import write_whole
from isometry.report import formats
from isometry.report.bench_tables import runtimes_grid
from isometry.report.comparison_page import compared_view
from isometry.report.drawing.charts import scale_png
from isometry.report.drawing.cost import LATENCY, CostChart, bench_points, cost_charts
from isometry.report.drawing.panels import never_finite
from isometry.report.headline import gap_sentence, headline, key_figures
from isometry.report.records.data import ReportData, Row
from isometry.report.records.groups import Group
from isometry.report.relations import blocks
from isometry.report.sections import HALF, TALL, details, run_charts, run_costs
from isometry.report.tables import models_grid


def write_report(path: Path, data: ReportData) -> None:
    """Write `render_report(data)` to `path`, whole or not at all: an older report stays if this one fails.

    Raises:
        UserError: the file cannot be written.
    """
    write_page(path, render_report(data))


def write_page(path: Path, page: str) -> None:
    """Write a page, likewise."""
    write_whole(path, page.encode("utf-8", errors="replace"))


def render_report(data: ReportData, bench: Row | None = None) -> str:
    """A run's page as a string: the same data give the same characters, and the page asks for no other file.

    Args:
        data: of the run.
        bench: "name" and "forms" of the network, as `isometry bench` measured it since.
    """
    return _rendered(
        "run.html.j2",
        data=data,
        headline=headline(data.models, data.epochs, data.relations),
        figures=key_figures(data.models),
        charts=run_charts(data),
        costs=[*run_costs(data), *_latency(bench or {})],
        never_finite=never_finite(data.epochs),
        blocks=blocks([("", data)]),
        gap_sentence=gap_sentence(data.relations) if data.relations else "",
        grid=models_grid(data.models) if data.models else None,
        roles=[row.get("role") or "" for row in data.models],
        benched=runtimes_grid([bench]) if bench else None,
        details=details(data),
    )


def render_comparison(groups: Sequence[Group], baseline: str, command: str = "") -> str:
    """The page of several runs, likewise.

    Args:
        groups: the runs, those that differ only in their seed together.
        baseline: name of the group that the others' gains are measured against.
        command: the one that made the page.
    """
    return _rendered("compared.html.j2", **compared_view(groups, baseline), command=command)


def _latency(bench: Row) -> list[CostChart]:
    if not bench:
        return []
    part = bench["forms"][-1].get("top1_part")
    return cost_charts([(LATENCY, bench_points([bench]))], part, HALF, TALL)


def _rendered(name: str, **context: Any) -> str:
    home = files("isometry.report")

    def text(file: str) -> str:
        return home.joinpath(file).read_text(encoding="utf-8")

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FunctionLoader(text),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"tight": _tight, "nested": _nested}
    environment.globals |= {"number": formats.number, "half": formats.half, "scale": scale_png()}
    return environment.get_template(name).render(style=Markup(text("style.css")), **context)


def _nested(drawn: Markup, prefix: str) -> Markup:
    """A part of the page with names of its own for its elements, so that it can stand there more than once, and its
    headings two levels further down."""
    renamed = re.sub(r'(\bid="|xlink:href="#|"url\(#)', rf"\g<1>{prefix}-", str(drawn))
    return Markup(re.sub(r"(</?h)([2-4])>", lambda found: f"{found[1]}{int(found[2]) + 2}>", renamed))


def _tight(text: str) -> str:
    """Keep a number and its unit on one line, and set apostrophes as print does."""
    return re.sub(r"(?<=[\d%]) (?=[%kMGT±])", "\u00a0", text).replace("'", "’")
