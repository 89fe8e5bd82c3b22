"""The folder of a run, read for its report: from its record, or without one from its tables."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from isometry.errors import UserError, reason
from isometry.parsing import parse_json, parse_yaml, read_json, validate
from isometry.recipes import saved_config
from isometry.report.records.data import ReportData
from isometry.report.records.record import RecordError, has_record, read_record
from isometry.report.records.schema import Bench, Epochs, Evaluation, Models, Stages, Times

CONFIG, METRICS, BENCH = "config.yaml", "metrics.jsonl", "bench.json"
EVALUATION = "evaluation.json"
TABLES: dict[str, tuple[str, Any]] = {
    "models": ("summary.json", Models),
    "stages": ("stages.json", Stages),
    "epochs": (METRICS, Epochs),
    "times": ("times.jsonl", Times),
}
"""The tables of a report that are also files of the run's folder, with their types."""
PARSERS: dict[str, Callable[[str], Any]] = {
    ".json": parse_json,
    ".jsonl": lambda text: [parse_json(line) for line in text.splitlines()],
    ".yaml": str,
}
MOST_BYTES = 2**28
"""Largest file that is read."""


@dataclass(frozen=True)
class RunReport:
    """The folder of a run, as read."""

    folder: Path
    data: ReportData
    options: dict[str, Any] = field(default_factory=dict)
    """Of its config, by dotted name; empty without a config."""
    bench: dict[str, Any] = field(default_factory=dict)
    """What ``isometry bench`` measured: "name" and "forms" of the network; empty without."""
    dense: dict[str, Any] = field(default_factory=dict)
    """What ``isometry evaluate --dense`` measured: "figures", and the name of the "teacher"; empty without."""

    @property
    def seed(self) -> int | None:
        """The run's seed; None without a config."""
        seed = self.options.get("seed")
        return seed if isinstance(seed, int) else None


def find_runs(names: Sequence[str]) -> list[Path]:
    """The named folders of runs, in that order and each once; a folder that is no run stands for all runs in it.

    Raises:
        UserError: no such folder, or no run in it.
    """
    found: dict[Path, Path] = {}
    for name in names:
        folder = Path(name)
        if not folder.is_dir():
            raise UserError(f"report {name}: no such folder; name that of a run, or one that holds runs")
        inside = list(_runs_in(folder))
        if not inside:
            raise UserError(
                f"report {name}: holds no run (no {METRICS}); name the --out of one that was trained"
            )
        for run in inside:
            found.setdefault(run.resolve(), run)
    return list(found.values())


def read_run(folder: Path) -> RunReport:
    """Reads a run's folder; the notes of its data name what could not be read.

    Without a record (older versions wrote none, and an unfinished run has none yet) the curves and tables come from the
    files that every version writes.
    """
    notes: list[str] = []
    try:
        data = read_record(folder) if has_record(folder) else _from_tables(folder, notes)
    except RecordError as error:
        notes.append(f"{error}; so its maps and pictures are not shown, only tables and curves")
        data = _from_tables(folder, notes)
    options = _options(data.config_yaml or _read(folder / CONFIG, str, notes) or "", notes)
    bench = _read(folder / BENCH, Bench, notes, "; give isometry bench again")
    evaluation = _read(folder / EVALUATION, Evaluation, notes, "; give isometry evaluate again") or {}
    data = replace(data, notes=[*data.notes, *notes])
    named = {"name": str(folder), **bench} if bench else {}
    return RunReport(folder, data, options, named, evaluation.get("dense", {}))


def read_summary(folder: Path) -> dict[str, dict[str, Any]]:
    """The rows of a run's ``summary.json`` by role: "student", "teacher".

    Raises:
        UserError: it can't be read, or is not a run's summary.
    """
    path = folder / "summary.json"
    try:
        return {row["role"]: row for row in read_json(path, Models) if "role" in row}
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: is not a run's summary ({reason(error)}); delete it and give the command again"
        ) from error


def notes_of(runs: Sequence[RunReport]) -> list[str]:
    """The notes of all runs; a note that several runs have occurs once, with their number."""
    by_note: dict[str, list[Path]] = {}
    for run in runs:
        for note in run.data.notes:
            by_note.setdefault(note, []).append(run.folder)
    if len(runs) == 1:
        return list(by_note)
    return [
        f"{found[0]}: {note}" if len(found) == 1 else f"{len(found)} of {len(runs)} runs: {note}"
        for note, found in by_note.items()
    ]


def _runs_in(folder: Path) -> Iterator[Path]:
    if (folder / METRICS).is_file() or has_record(folder):
        yield folder
        return
    # The runs of `isometry compare` have the teacher in their own tables, and what they are transferred to is no run of
    # the comparison.
    left_out = {"teacher", "tasks"} if (folder / "plan.yaml").is_file() else set()
    for inside in sorted(folder.iterdir(), key=lambda path: _natural(path.name)):
        if inside.is_dir() and not inside.is_symlink() and inside.name not in left_out:
            yield from _runs_in(inside)


def _natural(name: str) -> list[int | str]:
    """Orders ``seed-10`` after ``seed-9``."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _from_tables(folder: Path, notes: list[str]) -> ReportData:
    noted = bool(notes)
    tables: dict[str, Any] = {
        name: _read(folder / file, kind, notes) or [] for name, (file, kind) in TABLES.items()
    }
    config = _read(folder / CONFIG, str, notes) or ""
    if not noted:
        why = "made by an older version of isometry" if tables["models"] else "not finished"
        notes.append(f"{why}, so only tables and curves are shown")
    names = [str(row["model"]) for row in tables["models"] if row.get("role") in ("student", "teacher")]
    return ReportData(" ◄ ".join(names[::-1]) or folder.resolve().name, config_yaml=config, **tables)


def _read(path: Path, kind: Any, notes: list[str], advice: str = "") -> Any:
    """The content of a file as ``kind``; None where there is none or, with a note, where it can't be read."""
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES} bytes")
        return validate(PARSERS[path.suffix](path.read_text(encoding="utf-8")), kind)
    except (OSError, ValueError) as error:
        notes.append(f"{path.name}: can't be read ({reason(error)}), so it is left out{advice}")
        return None


def _options(text: str, notes: list[str]) -> dict[str, Any]:
    """A config's options by their dotted names."""
    try:
        values = parse_yaml(text)
        return dict(_flat(asdict(saved_config(values, CONFIG)[0]), "")) if values else {}
    except UserError as error:
        fault = str(error).removeprefix(f"{CONFIG}: ")
        notes.append(f"{CONFIG}: can't be read ({fault}), so its options are left out")
        return {}


def _flat(values: dict[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
