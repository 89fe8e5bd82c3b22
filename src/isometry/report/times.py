"""Where the time of training went: in words, as a table and drawn, by the phases of a step."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from isometry.report import formats
from isometry.report.drawing.charts import MUTED, SERIES, bare_axes, inline_svg, plain_style
from isometry.report.records.data import REST, Row
from isometry.report.tables import Grid

NO_PHASES = ("epoch", "steps")
NAMES = {"student": "student forward"}
"""Of phases whose key does not say enough."""
BAR_HEIGHT = 28
"""CSS pixels of a bar and the space around it."""


class TimesSection(NamedTuple):
    """What the page shows of the time, with pictures for a wide and for a narrow page."""

    words: str
    grid: Grid
    svg: Markup
    narrow_svg: Markup


def times_section(rows: Sequence[Row], epochs: Sequence[Row], wide: int, narrow: int) -> TimesSection | None:
    """The section, drawn in two widths in CSS pixels; None where no step was timed.

    Keys read: those of `ReportData.times`, and "step" of `epochs`, how many steps the run has taken.
    """
    if not _steps(rows):
        return None
    pictures = (Markup(times_svg(rows, width)) for width in (wide, narrow))
    return TimesSection(_words(rows, epochs), times_grid(rows), *pictures)


def times_sentence(rows: Sequence[Row]) -> str:
    """Each phase's share, the largest first; empty where no step was timed."""
    if not _steps(rows):
        return ""
    return ", ".join(_with_share(*phase) for phase in _shares(rows, largest_first=True))


def times_grid(rows: Sequence[Row]) -> Grid:
    """A row a phase: its time in the whole run, an optimizer step's, and its share; then all of them together."""
    seconds, steps = _seconds(rows), _steps(rows)
    whole = sum(seconds.values())
    cells = [
        [
            name,
            formats.duration(spent),
            formats.milliseconds(spent / steps),
            formats.percent(100 * spent / whole),
        ]
        for name, spent in (*seconds.items(), ("together", whole))
    ]
    return Grid(["phase", "whole run", "ms a step", "share"], cells)


def times_svg(rows: Sequence[Row], width: int) -> str:
    """A bar a phase as inline SVG, `width` CSS pixels wide, which says its figures as text too."""
    shares = _shares(rows)
    with plain_style(f"times {width}"):
        figure, axes = bare_axes((width, BAR_HEIGHT * len(shares)), left=106, right=50, top=0, bottom=0)
        axes.spines["bottom"].set_visible(False)
        axes.grid(False)
        axes.set_xticks([])
        axes.set_yticks(range(len(shares)), [name for name, _ in shares])
        axes.set_ylim(len(shares) - 0.5, -0.5)
        for place, (name, share) in enumerate(shares):
            axes.barh(place, share, height=0.5, color=MUTED if name == REST else SERIES[0])
            axes.annotate(
                formats.percent(share, 0), (share, place), (6, 0),
                textcoords="offset points", va="center", color=MUTED,
            )  # fmt: skip
        axes.margins(x=0)
        told = ", ".join(_with_share(*phase) for phase in shares)
        return inline_svg(figure, f"Share of each phase in the time of training: {told}")


def _words(rows: Sequence[Row], epochs: Sequence[Row]) -> str:
    seconds, steps = _seconds(rows), _steps(rows)
    whole = sum(seconds.values())
    name, share = _shares(rows, largest_first=True)[0]
    words = (
        f"In the main process {steps:,} optimizer steps took {formats.duration(whole)}, "
        f"{formats.milliseconds(whole / steps)} ms each; the largest phase is “{name}” with "
        f"{formats.percent(share, 0)}. Validation and the saves between epochs are not counted."
    )
    if seconds.get(REST):
        words += " The rest is reading losses, saves inside an epoch and the loop itself."
    taken = epochs[-1].get("step", steps) if epochs else steps
    if taken > steps:
        words += (
            f" Of the run's {taken:,} steps {steps:,} were timed: those that an epoch had taken before it was "
            "resumed are not."
        )
    return words


def _steps(rows: Sequence[Row]) -> int:
    return sum(row["steps"] for row in rows)


def _seconds(rows: Sequence[Row]) -> dict[str, float]:
    """By name over all epochs, in the rows' order, of phases that took any time."""
    phases = [key for key in rows[0] if key not in NO_PHASES]
    seconds = {phase: sum(row[phase] for row in rows) for phase in phases}
    return {NAMES.get(phase, phase): spent for phase, spent in seconds.items() if spent > 0}


def _shares(rows: Sequence[Row], largest_first: bool = False) -> list[tuple[str, float]]:
    """(name, percent of all phases together)."""
    seconds = _seconds(rows)
    whole = sum(seconds.values())
    shares = [(name, 100 * spent / whole) for name, spent in seconds.items()]
    return sorted(shares, key=lambda share: -share[1]) if largest_first else shares


def _with_share(name: str, share: float) -> str:
    return f"{name} {formats.percent(share, 0)}"
