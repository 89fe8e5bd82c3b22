"""The report: one HTML file that needs no other file and no network."""

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from isometry.files import write_atomically
from isometry.report import formats
from isometry.report.bench_tables import runtimes_grid
from isometry.report.comparison_page import comparison_context
from isometry.report.drawing.colours import palette_css
from isometry.report.drawing.images import scale_png
from isometry.report.drawing.panels import never_finite
from isometry.report.headline import gap_sentence, headline, key_figures
from isometry.report.records.data import ReportData, Row
from isometry.report.records.groups import Group
from isometry.report.relations import block_maps
from isometry.report.sections import details, run_charts, run_costs
from isometry.report.tables import models_grid


def write_page(path: Path, page: str) -> None:
    """Writes a page, whole or not at all: an older one stays if this one fails.

    Raises:
        UserError: the file cannot be written.
    """
    write_atomically(path, page.encode("utf-8", errors="replace"))


def render_report(data: ReportData, bench: Row | None = None) -> str:
    """A run's page: the same data give the same characters, and the page requests no other file. ``bench`` has "name"
    and "forms" of the network, as `isometry bench` measured it since."""
    return _rendered(
        "run.html.j2",
        data=data,
        headline=headline(data.models, data.epochs, data.relations),
        figures=key_figures(data.models),
        charts=run_charts(data),
        costs=run_costs(data, bench or {}),
        never_finite=never_finite(data.epochs),
        blocks=block_maps([("", data)]),
        gap_sentence=gap_sentence(data.relations),
        grid=models_grid(data.models) if data.models else None,
        roles=[row.get("role") or "" for row in data.models],
        benched=runtimes_grid([bench]) if bench else None,
        details=details(data),
    )


def render_comparison(groups: Sequence[Group], baseline: str, command: str = "") -> str:
    """The page of several runs, likewise; ``baseline`` is the name of a group, and ``command`` made the page."""
    return _rendered("compared.html.j2", **comparison_context(groups, baseline), command=command)


def _rendered(name: str, **context: Any) -> str:
    folder = files("isometry.report")

    def text(file: str) -> str:
        return folder.joinpath(file).read_text(encoding="utf-8")

    environment = Environment(
        autoescape=True,
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


def _nested(part: Markup, prefix: str) -> Markup:
    """A part of the page with ids of its own, so that it can occur more than once, and its headings two levels
    further down."""
    renamed = re.sub(r'(\bid="|xlink:href="#|"url\(#)', rf"\g<1>{prefix}-", str(part))
    return Markup(re.sub(r"(</?h)([2-4])>", lambda found: f"{found[1]}{int(found[2]) + 2}>", renamed))


def _tight(text: str) -> str:
    """Keeps a number and its unit on one line, and sets apostrophes as in print."""
    return re.sub(r"(?<=[\d%]) (?=[%kMGT±])", "\u00a0", text).replace("'", "’")
