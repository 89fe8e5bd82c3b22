"""`isometry report`: the report page of a run, or one that compares several, from the records in their folders."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from isometry.data.dense.sources import KINDS
from isometry.errors import UserError
from isometry.report.comparison_page import render_comparison
from isometry.report.page import render_report, write_page
from isometry.report.records.groups import Group, group_runs
from isometry.report.records.run_folders import RunReport, find_runs, notes_of, read_run
from isometry.report.terminal import print_notes, say

PAGE = "report.html"


@dataclass
class ReportConfig:
    """Output and baseline."""

    out: str = ""
    """File to write, to which .html is added if it has no ending, or a folder for report.html; report.html if not
    given, in the run's folder for a single run."""
    baseline: str = ""
    """Variant that gains are measured against, by its name on the page; the first if not given."""


def report(names: list[str], options: ReportConfig, console: Console) -> Path:
    """Writes the report page of the runs in folders, and returns its path; needs neither data nor weights.

    ``names`` are folders of runs, or folders that contain such. Several runs are compared: those that differ only in
    their seed are one variant, with means and 95 % intervals.

    Raises:
        UserError: no such folder, no run in it, no variant of the baseline's name, or the page can't be written.
    """
    folders = find_runs(names)
    runs = [read_run(folder) for folder in folders]
    if len(runs) == 1:
        page, place = render_report(runs[0].data, runs[0].bench, runs[0].dense), folders[0] / PAGE
    else:
        groups = group_runs(runs)
        command = shlex.join(["isometry", *sys.argv[1:]])
        baseline = _baseline(groups, options.baseline)
        page, place = render_comparison(groups, baseline, command=command), Path(PAGE)
        for group in groups:
            seeds = ", ".join("–" if seed is None else str(seed) for seed in group.seeds)
            count, s = len(group.runs), "s" if len(group.runs) > 1 else ""
            say(console, f"{group.name}: {count} run{s}, seed{s} {seeds}")
    place = _page_at(Path(options.out)) if options.out else place
    write_page(place, page)
    print_notes(console, [*notes_of(runs), *other_tasks(runs)])
    say(console, f"Report   {place}")
    return place


def _page_at(out: Path) -> Path:
    if out.is_dir():
        return out / PAGE
    return out if out.suffix else out.with_name(f"{out.name}.html")


def other_tasks(runs: Sequence[RunReport]) -> list[str]:
    """A note on runs whose scores are of several kinds."""
    kinds = dict.fromkeys(KINDS.get(run.data.task.task, "") if run.data.task else "classes" for run in runs)
    return [f"the runs have different tasks, whose scores don't compare: {', '.join(kinds)}"] * (
        len(kinds) > 1
    )


def _baseline(groups: list[Group], name: str) -> str:
    names = [group.name for group in groups]
    if name and name not in names:
        raise UserError(f"--baseline {name}: no variant has this name; there are {', '.join(names)}")
    return name or names[0]
