"""`isometry report`: a run's page drawn again, or one page that compares several; from what is in their folders."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from isometry.errors import UserError
from isometry.report.page import render_comparison, render_report, write_page
from isometry.report.records.groups import Group, group_runs
from isometry.report.records.run_folders import find_runs, notes_of, read_run

PAGE = "report.html"


@dataclass
class ReportConfig:
    """Where the page goes, and what it compares."""

    out: str = ""
    """File to write; report.html, in the folder of the run where there is one."""
    baseline: str = ""
    """Variant that the others' gains are measured against, by the name that the page gives it; the first if not
    given."""


def report(names: list[str], options: ReportConfig, console: Console) -> Path:
    """Writes the page of the runs in the folders ``names``, and returns where; needs neither data nor training.

    One run has its own page again, several are compared: those that differ only in their seed are one variant, with
    means and 95 % intervals. A folder that holds runs stands for all of them.

    Raises:
        UserError: no folder named, no such folder, no run in it, no variant of the baseline's name, or the page can't
            be written.
    """
    folders = find_runs(names)
    runs = [read_run(folder) for folder in folders]
    if len(runs) == 1:
        page, place = render_report(runs[0].data, runs[0].bench), folders[0] / PAGE
    else:
        groups = group_runs(runs)
        command = shlex.join(["isometry", *sys.argv[1:]])
        page, place = (
            render_comparison(groups, _baseline(groups, options.baseline), command=command),
            Path(PAGE),
        )
        for group in groups:
            seeds = ", ".join("–" if seed is None else str(seed) for seed in group.seeds)
            _say(console, f"{group.name}: {len(group.runs)} of seed {seeds}")
    place = Path(options.out) if options.out else place
    write_page(place, page)
    for note in notes_of(runs):
        _say(console, note, "yellow")
    _say(console, f"Report   {place}")
    return place


def _baseline(groups: list[Group], name: str) -> str:
    names = [group.name for group in groups]
    if name and name not in names:
        raise UserError(f"--baseline {name}: no variant is called so; there is {', '.join(names)}")
    return name or names[0]


def _say(console: Console, words: str, style: str = "") -> None:
    console.print(words, style=style, highlight=False, markup=False, soft_wrap=True)
