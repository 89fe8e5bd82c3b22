"""Runs that differ only in their seed, as groups; the groups' names, and the options in which they differ."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from isometry.config import FREE_ON_RESUME
from isometry.report import formats
from isometry.report.records.data import Row, by_role
from isometry.report.records.run_folders import RunReport
from isometry.report.tables import Grid

FREE_IN_A_GROUP = FREE_ON_RESUME | {"seed"}
"""Options in which runs of one group may differ: their results differ by chance alone."""
NOT_SHOWN = frozenset({"seed", "out", "resume", "log", "log_interval"})
"""Options that the table of differences leaves out: they change neither what is computed nor how long it takes."""


@dataclass(frozen=True)
class Group:
    """Runs of one config, sorted by seed."""

    name: str
    runs: list[RunReport]

    @property
    def shown(self) -> RunReport:
        """The run whose pictures are shown."""
        return self.runs[0]

    @property
    def seeds(self) -> list[int | None]:
        """One for each run."""
        return [run.seed for run in self.runs]

    def students(self) -> list[Row]:
        """The student's row of the table of models of each run that is finished."""
        rows = [by_role(run.data.models, "student") for run in self.runs]
        return [row for row in rows if row is not None]

    def values(self, key: str) -> list[float]:
        """A figure of each run's student; empty unless all runs have it."""
        found = [row[key] for row in self.students() if formats.is_number(row.get(key))]
        return found if len(found) == len(self.runs) else []


def group_runs(runs: Sequence[RunReport]) -> list[Group]:
    """Runs grouped by config, seeds aside, in the order of the first of each. A run that repeats a seed begins another
    group: it is no further sample."""
    members: dict[str, list[RunReport]] = {}
    for run in runs:
        config = json.dumps(_options(run), sort_keys=True, default=str) if run.options else str(run.folder)
        copies = (f"{config} {copy}" for copy in range(len(runs)))
        key = next(key for key in copies if run.seed not in [other.seed for other in members.get(key, [])])
        members.setdefault(key, []).append(run)
    ordered = [sorted(group, key=lambda run: run.seed or 0) for group in members.values()]
    return [Group(name, group) for name, group in zip(_names(ordered), ordered, strict=True)]


def differences(groups: Sequence[Group]) -> Grid:
    """A row for each option that differs between groups, a column for each group; seeds and folders are left out."""
    options = [_options(group.shown, but=NOT_SHOWN) for group in groups]
    names = dict.fromkeys(name for found in options for name in found)
    cells = [[name, *(_text(found.get(name)) for found in options)] for name in names]
    return Grid(["option", *(group.name for group in groups)], [row for row in cells if len({*row[1:]}) > 1])


def _options(run: RunReport, but: frozenset[str] = FREE_IN_A_GROUP) -> dict[str, Any]:
    """A run's options without some; paths do not differ by the run's seed in them (``seed-3``)."""

    def without_seed(value: Any) -> Any:
        return re.sub(rf"\bseed-{run.seed}\b", "seed-*", value) if isinstance(value, str) else value

    return {name: without_seed(value) for name, value in run.options.items() if name not in but}


def _text(value: Any) -> str:
    if value is None or value == "":
        return formats.MISSING
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _names(groups: Sequence[Sequence[RunReport]]) -> list[str]:
    """The part of the path that the folders of a group share and those of other groups do not."""
    folders = [[os.path.abspath(run.folder) for run in group] for group in groups]
    root = os.path.commonpath([folder for group in folders for folder in group])
    relative = [[os.path.relpath(folder, root) for folder in group] for group in folders]
    names = [_shared_name(group) for group in relative]
    if len(groups) == 1:
        return [names[0] or os.path.basename(root) or root]
    unique = [
        name if name and names.count(name) == 1 else ", ".join(group)
        for name, group in zip(names, relative, strict=True)
    ]
    return [os.path.basename(root) if name == "." else name for name in unique]


def _shared_name(folders: Sequence[str]) -> str:
    """The prefix that relative folders share, without what numbers them: ``whole/seed-`` is ``whole``."""
    shared = os.path.commonprefix(folders)  # noqa: RUF071 - of characters, not of folders
    if any(folder[len(shared) :][:1].isdecimal() for folder in folders):
        shared = shared.rstrip("0123456789")
    return re.sub(r"(^|[-_./ ]+)seed[-_]?\d*$", "", shared).strip("-_./ ")
