"""The folder of a run, read for its report: from its record, or without one from its tables."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from isometry.errors import UserError, reason
from isometry.files import parse_json, parse_yaml, validate
from isometry.report.records.data import ReportData
from isometry.report.records.record import RecordError, has_record, read_record
from isometry.report.records.schema import Bench, Epochs, Models, Stages, Table, Times

CONFIG, METRICS = "config.yaml", "metrics.jsonl"
TABLES: dict[str, tuple[str, Any]] = {
    "models": ("summary.json", Models),
    "stages": ("stages.json", Stages),
    "epochs": (METRICS, Epochs),
    "times": ("times.jsonl", Times),
}
"""The tables of a report that are also files of the run's folder, with their types."""
MOST_BYTES = 2**28
"""Largest file that is read."""


@dataclass(frozen=True)
class RunReport:
    """What the folder of a run has to show.

    Attributes:
        folder: where it is.
        data: of its own page.
        options: of its config, those in groups as ``grow.depth``; empty where no config is there.
        bench: "name" and "forms" of the network, as ``isometry bench`` measured it; empty without.
    """

    folder: Path
    data: ReportData
    options: dict[str, Any] = field(default_factory=dict)
    bench: dict[str, Any] = field(default_factory=dict)

    @property
    def seed(self) -> int | None:
        """The run's seed, where its config is there."""
        seed = self.options.get("seed")
        return seed if isinstance(seed, int) else None


def find_runs(names: Sequence[str]) -> list[Path]:
    """The folders of runs that are named, in that order and each once; a folder of folders stands for all runs in it.

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
    """What a run's folder has to show; whatever could not be read is said in the notes of its data.

    Where there is no record (an older version wrote none, a run that is not finished has none yet) the curves and
    tables come from the files that every version writes.
    """
    notes: list[str] = []
    try:
        data = read_record(folder) if has_record(folder) else _from_tables(folder, notes)
    except RecordError as error:
        notes.append(f"{error}; so its maps and pictures are not shown, only tables and curves")
        data = _from_tables(folder, notes, told=True)
    options = _options(folder, data.config_yaml, notes)
    bench = _bench(folder, notes)
    return RunReport(folder, replace(data, notes=[*data.notes, *notes]), options, bench)


def notes_of(runs: Sequence[RunReport]) -> list[str]:
    """What a reader of several runs must know; what more than one of them says is said once, with their number."""
    said: dict[str, list[RunReport]] = {}
    for run in runs:
        for note in run.data.notes:
            said.setdefault(note, []).append(run)
    return [f"{_who(found, len(runs))}{note}" for note, found in said.items()]


def _who(runs: Sequence[RunReport], of: int) -> str:
    if of == 1:
        return ""
    return f"{runs[0].folder}: " if len(runs) == 1 else f"{len(runs)} of {of} runs: "


def _runs_in(folder: Path) -> Iterator[Path]:
    if (folder / METRICS).is_file() or has_record(folder):
        yield folder
        return
    # Of `isometry compare`, whose runs all have the teacher in their own tables.
    beside = {"teacher"} if (folder / "plan.yaml").is_file() else set()
    for inside in sorted(folder.iterdir(), key=lambda path: _natural(path.name)):
        if inside.is_dir() and not inside.is_symlink() and inside.name not in beside:
            yield from _runs_in(inside)


def _natural(name: str) -> list[tuple[int, str]]:
    """Orders ``seed-10`` after ``seed-9``."""
    words, number = [], ""
    for character in name:
        if character.isdecimal():
            number += character
            continue
        words += [(int(number), "")] if number else []
        words, number = [*words, (0, character)], ""
    return words + ([(int(number), "")] if number else [])


def _from_tables(folder: Path, notes: list[str], told: bool = False) -> ReportData:
    tables: dict[str, Any] = {
        name: _table(folder / file, kind, notes) for name, (file, kind) in TABLES.items()
    }
    config = _text(folder / CONFIG, notes)
    unfinished = not tables["models"]
    if not told:
        why = "not finished" if unfinished else "made by a version of isometry that kept less of it"
        notes.append(f"{why}, so only tables and curves are shown")
    names = [str(row["model"]) for row in tables["models"] if row.get("role") in ("student", "teacher")]
    title = " ◄ ".join(names[::-1]) or folder.resolve().name
    return ReportData(title, config_yaml=config, **tables)


def _table(path: Path, kind: Any, notes: list[str]) -> Table:
    if not path.is_file():
        return []
    try:
        text = _text(path, notes)
        rows = (
            [parse_json(line) for line in text.splitlines()]
            if path.suffix == ".jsonl"
            else parse_json(text or "[]")
        )
        table: Table = validate(rows, kind)
        return table
    except ValueError as error:
        notes.append(f"{path.name}: can't be read ({error}), so it is left out")
        return []


def _text(path: Path, notes: list[str]) -> str:
    if not path.is_file():
        return ""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES} bytes")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        notes.append(f"{path.name}: can't be read ({reason(error)}), so it is left out")
        return ""


def _options(folder: Path, text: str, notes: list[str]) -> dict[str, Any]:
    """A config's options by their dotted names."""
    try:
        values = parse_yaml(text or _text(folder / CONFIG, notes)) or {}
        return dict(_flat(validate(values, dict[str, Any]), ""))
    except (UserError, ValueError) as error:
        notes.append(f"{CONFIG}: is no config ({error}), so it is left out")
        return {}


def _flat(values: dict[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _bench(folder: Path, notes: list[str]) -> dict[str, Any]:
    path = folder / "bench.json"
    if not path.is_file():
        return {}
    try:
        bench: Bench = validate(parse_json(_text(path, notes) or "{}"), Bench)
    except ValueError as error:
        notes.append(f"{path.name}: can't be read ({error}), so it is left out; give isometry bench again")
        return {}
    forms = [{**form, "refused": list(form.get("refused", ()))} for form in bench["forms"]]
    return {"name": bench.get("name", str(folder)), "forms": forms}
