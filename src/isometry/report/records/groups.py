"""Runs that differ only in their seed, as one; what the groups are called, and in which options they differ."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from isometry.config import FREE_ON_RESUME
from isometry.report import formats
from isometry.report.records.data import Row
from isometry.report.records.rows import by_role
from isometry.report.records.run_folders import RunReport
from isometry.report.tables import Grid

NOT_COMPARED = FREE_ON_RESUME | {"seed"}
"""Options in which runs of one group may differ: none changes what is computed but for chance."""

ASIDE = frozenset({"seed", "out", "resume", "log", "log_tensorboard", "log_wandb", "log_interval"})
"""Options that the table of differences leaves out: they change neither what is computed nor how long it takes."""


@dataclass(frozen=True)
class Group:
    """Runs with one config and a seed each, by seed."""

    name: str
    runs: list[RunReport]

    @property
    def shown(self) -> RunReport:
        """The one whose pictures stand for all."""
        return self.runs[0]

    @property
    def seeds(self) -> list[int | None]:
        """One a run."""
        return [run.seed for run in self.runs]

    def students(self) -> list[Row]:
        """The row of the table of models that each run has of what it trained, where it is finished."""
        rows = [by_role(run.data.models, "student") for run in self.runs]
        return [row for row in rows if row is not None]

    def values(self, key: str) -> list[float]:
        """That figure of each run's student; empty unless all of them have it."""
        found = [row[key] for row in self.students() if formats.is_number(row.get(key))]
        return found if len(found) == len(self.runs) else []


def group_runs(runs: Sequence[RunReport]) -> list[Group]:
    """Runs by config, seeds aside, in the order of the first of each; a run that repeats a seed begins another group,
    for it says nothing new of chance."""
    members: dict[str, list[RunReport]] = {}
    for run in runs:
        told = json.dumps(_comparable(run), sort_keys=True, default=str) if run.options else str(run.folder)
        copies = (f"{told} {copy}" for copy in range(len(runs)))
        key = next(key for key in copies if run.seed not in [other.seed for other in members.get(key, [])])
        members.setdefault(key, []).append(run)
    ordered = [sorted(group, key=lambda run: run.seed or 0) for group in members.values()]
    return [Group(name, group) for name, group in zip(_names(ordered), ordered, strict=True)]


def differences(groups: Sequence[Group]) -> Grid:
    """A row for each option that is not the same in all groups, a column a group; seeds and places are left out."""
    options = [_comparable(group.shown, but=ASIDE) for group in groups]
    names = dict.fromkeys(name for found in options for name in found)
    cells = [[name, *(_written(found.get(name)) for found in options)] for name in names]
    return Grid(["option", *(group.name for group in groups)], [row for row in cells if len({*row[1:]}) > 1])


def _comparable(run: RunReport, but: frozenset[str] = NOT_COMPARED) -> dict[str, Any]:
    """A run's options without some, and with a seed that stands in a path (``seed-3``) taken out of it."""
    return {name: _unseeded(value, run.seed) for name, value in run.options.items() if name not in but}


def _unseeded(value: Any, seed: int | None) -> Any:
    return re.sub(rf"\bseed-{seed}\b", "seed-*", value) if isinstance(value, str) else value


def _written(value: Any) -> str:
    if value is None or value == "":
        return formats.MISSING
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _names(groups: Sequence[Sequence[RunReport]]) -> list[str]:
    """What the folders of each group have in common and those of the others have not."""
    folders = [[os.path.abspath(run.folder) for run in group] for group in groups]
    root = os.path.commonpath([folder for group in folders for folder in group])
    names = [_name([os.path.relpath(folder, root) for folder in group]) for group in folders]
    if len(groups) == 1:
        return [names[0] or os.path.basename(root) or root]
    whole = [
        name
        if name and names.count(name) == 1
        else ", ".join(os.path.relpath(folder, root) for folder in group)
        for name, group in zip(names, folders, strict=True)
    ]
    return [os.path.basename(root) if name == "." else name for name in whole]


def _name(folders: Sequence[str]) -> str:
    """The beginning that relative folders share, without the words that count them: ``whole/seed-`` is ``whole``."""
    first, last = min(folders), max(folders)  # whatever these two share, all do
    both = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    shared = "".join(character for character, _ in both)
    if any(folder[len(shared) :][:1].isdecimal() for folder in folders):
        shared = shared.rstrip("0123456789")
    shared = re.sub(r"(^|[-_./ ]+)seed[-_]?\d*$", "", shared)
    return shared.strip("-_./ ")
